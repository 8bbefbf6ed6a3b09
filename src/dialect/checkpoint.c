/* SPDX-License-Identifier: Apache-2.0
 * A checkpoint: the arrays of a file, read as tensors. Opening runs the dialects over the names, settles who holds
 * which array, and lists entries and findings; tensor data is not touched. */
#include "container/file.h"
#include "dialect/dialect.h"
#include "dialect/order.h"

#include <stdlib.h>
#include <string.h>

#define BESIDE_NAMED 5 /* files that one finding names */

struct brc_checkpoint {
    brc_file *file;
    brci_pool pool;
    const brc_entry **entries; /* [n], in natural order of their names */
    size_t n;
    const brci_finding **findings;
    size_t n_findings;
};

/* -------------------------------------------------------------------------------------------------- files */

/* The notes come first among the findings: brc_verify_checkpoint counts on it. */
static void report_files(brci_reader *reader) {
    const brc_file *file = reader->file;
    const char *names = "";
    for (size_t i = 0; i < file->n_notes; i++) brci_report_note(reader, &file->notes[i]);
    for (size_t i = 0; i < file->n_beside && i < BESIDE_NAMED; i++)
        names = brci_pool_print(reader->pool, "%s%s%s", names, i == 0 ? "" : ", ", file->beside[i]);
    if (file->n_beside > BESIDE_NAMED)
        names = brci_pool_print(reader->pool, "%s and %zu more", names, file->n_beside - BESIDE_NAMED);
    if (file->n_beside > 0)
        brci_report(
            reader, BRC_WARNING, BRC_OK, "",
            brci_pool_print(reader->pool, "the index %s does not name what lies beside it, so it is not read: %s",
                            strrchr(file->index, '/') == NULL ? file->index : strrchr(file->index, '/') + 1, names));
}

/* ------------------------------------------------------------------------------------------------ settling */

/* Two dialects claim the same array: the first keeps it, and the parts of both, as something ambiguous. */
static void merge(brci_reader *reader, brci_reading *kept, brci_reading *other) {
    const brc_entry *a = &kept->entry, *b = &other->entry;
    const char *text = brci_pool_print(
        reader->pool, "two readings fit: %s (%s), or %s as %s (%s); %s", brc_dialect_get(a->dialect)->name, a->evidence,
        b->name, brc_dialect_get(b->dialect)->name, b->evidence,
        a->dialect == b->dialect ? "take the arrays of one of them out" : "say which with --from");
    for (size_t i = 0; i < b->n_parts; i++) {
        const brc_part part = b->parts[i];
        if (*brci_owner(reader, part.array) == kept) continue;
        const int taken = brci_take(reader, kept, part.role, part.array->name, strlen(part.array->name), "") != NULL;
        *brci_owner(reader, part.array) = taken ? kept : NULL; /* no room: listed on its own */
    }
    other->dropped = 1;
    brci_refuse(reader, kept, BRC_AMBIGUITY, BRC_AMBIGUOUS, text);
}

static void settle(brci_reader *reader) {
    for (brci_reading *r = reader->first; r != NULL; r = r->next) {
        brci_reading *rival = NULL;
        for (size_t i = 0; i < r->entry.n_parts && rival == NULL; i++) {
            brci_reading **owner = brci_owner(reader, r->parts[i].array);
            if (*owner == NULL) *owner = r;
            else if (*owner != r) rival = *owner;
        }
        if (rival != NULL) merge(reader, rival, r);
    }
}

static brc_status run_dialects(brci_reader *reader, brc_error *err) {
    for (unsigned i = 0; i < BRC_DIALECT_COUNT; i++) {
        const brci_dialect *dialect = brci_dialect_of((brc_dialect)i);
        if (dialect == NULL || dialect->read == NULL) continue;
        if (reader->forced == BRC_DIALECT_COUNT || reader->forced == (brc_dialect)i || dialect->exclusive)
            TRY(dialect->read(reader, err));
    }
    settle(reader);
    TRY(brci_recognise(reader, err));
    brci_report_bare(reader);
    return reader->pool->failed ? brci_fail(err, BRC_MEMORY, 0, "out of memory") : BRC_OK;
}

/* ------------------------------------------------------------------------------------------------- listing */

typedef struct plain_entry {
    brc_entry entry;
    brc_part part;
} plain_entry;

static int by_natural_order(const void *a, const void *b) {
    return brci_natural_order((*(const brc_entry *const *)a)->name, (*(const brc_entry *const *)b)->name);
}

/* A name is what commands write under: two entries may not share one. */
static void report_twins(brci_reader *reader, const brc_checkpoint *c) {
    for (size_t i = 1; i < c->n; i++)
        if (strcmp(c->entries[i - 1]->name, c->entries[i]->name) == 0)
            brci_report(reader, BRC_ERROR, BRC_MALFORMED, c->entries[i]->name,
                        brci_pool_print(reader->pool, "two tensors have this name: %s, and %s",
                                        brci_array_text(reader->pool, c->entries[i - 1]->parts[0].array),
                                        brci_array_text(reader->pool, c->entries[i]->parts[0].array)));
}

static brc_status list_entries(brci_reader *reader, brc_checkpoint *c, brc_error *err) {
    size_t loose = 0;
    for (size_t i = 0; i < reader->n; i++) loose += reader->owner[i] == NULL;
    c->entries = malloc((reader->readings + loose + 1) * sizeof *c->entries);
    plain_entry *plain = loose == 0 ? NULL : brci_pool_alloc(&c->pool, loose * sizeof *plain);
    if (c->entries == NULL || (loose > 0 && plain == NULL)) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    for (const brci_reading *r = reader->first; r != NULL; r = r->next)
        if (!r->dropped) c->entries[c->n++] = &r->entry;
    for (size_t i = 0; i < reader->n; i++) {
        if (reader->owner[i] != NULL) continue;
        const brc_named_array *array = brc_file_at(reader->file, i);
        *plain = (plain_entry){{.name = array->name,
                                .dialect = BRC_DIALECT_PLAIN,
                                .parts = &plain->part,
                                .n_parts = 1,
                                .tensor = {.size = sizeof(brc_tensor)},
                                .evidence = "",
                                .meaning = "",
                                .recipe = ""},
                               {"data", array}};
        c->entries[c->n++] = &plain++->entry;
    }
    qsort(c->entries, c->n, sizeof *c->entries, by_natural_order);
    report_twins(reader, c);
    return BRC_OK;
}

static brc_status list_findings(const brci_reader *reader, brc_checkpoint *c, brc_error *err) {
    c->findings = malloc((reader->findings + 1) * sizeof *c->findings);
    if (c->findings == NULL || reader->pool->failed) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    for (const brci_finding *f = reader->first_finding; f != NULL; f = f->next) c->findings[c->n_findings++] = f;
    return BRC_OK;
}

static brc_status read_structure(const char *path, brc_dialect forced, brc_checkpoint *c, brc_error *err) {
    brci_reader reader = {.file = c->file,
                          .path = brci_pool_copy(&c->pool, path, strlen(path)),
                          .pool = &c->pool,
                          .n = brc_file_count(c->file),
                          .forced = forced};
    reader.owner = calloc(reader.n + 1, sizeof *reader.owner);
    brc_status status = reader.owner == NULL ? brci_fail(err, BRC_MEMORY, 0, "out of memory") : BRC_OK;
    if (status == BRC_OK) {
        report_files(&reader);
        brci_read_quantization(&reader);
        status = run_dialects(&reader, err);
    }
    if (status == BRC_OK) status = list_entries(&reader, c, err);
    if (status == BRC_OK) status = list_findings(&reader, c, err);
    json_decref(reader.quantization);
    free(reader.scratch);
    free(reader.owner);
    return status;
}

/* --------------------------------------------------------------------------------------------- the interface */

brc_status brc_checkpoint_open(const char *path, const brc_checkpoint_options *options, brc_checkpoint **checkpoint,
                               brc_error *err) {
    brc_open_options open = {.size = sizeof open, .copy = options == NULL ? 0 : options->copy};
    uint32_t dialect = options == NULL ? 0 : options->dialect;
    brc_dialect forced = dialect == 0 ? BRC_DIALECT_COUNT : (brc_dialect)(dialect - 1);
    brc_checkpoint *c;
    if (path == NULL || checkpoint == NULL) return brci_fail(err, BRC_ARGUMENT, 0, "path and checkpoint must be given");
    *checkpoint = NULL;
    if (dialect > BRC_DIALECT_COUNT) return brci_fail(err, BRC_ARGUMENT, 0, "there is no dialect %u", dialect - 1);
    if (dialect != 0 && brci_dialect_of(forced) == NULL)
        return brci_fail(err, BRC_UNSUPPORTED, 0, "the dialect %s is not read yet", brc_dialect_get(forced)->name);
    c = calloc(1, sizeof *c);
    if (c == NULL) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    brc_status status = brc_file_open(path, &open, &c->file, err);
    if (status == BRC_OK) status = read_structure(path, forced, c, err);
    if (status != BRC_OK) {
        brc_checkpoint_close(c);
        return status;
    }
    *checkpoint = c;
    return BRC_OK;
}

brc_status brci_checkpoint_of(brc_file *file, brc_dialect forced, brc_checkpoint **checkpoint, brc_error *err) {
    brc_checkpoint *c = calloc(1, sizeof *c);
    *checkpoint = NULL;
    if (c == NULL) {
        brc_file_close(file);
        return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    }
    c->file = file;
    const brc_status status = read_structure(brc_file_shard_path(file, 0), forced, c, err);
    if (status == BRC_OK) *checkpoint = c;
    else brc_checkpoint_close(c);
    return status;
}

void brc_checkpoint_close(brc_checkpoint *c) {
    if (c == NULL) return;
    brc_file_close(c->file);
    brci_pool_free(&c->pool);
    free(c->entries);
    free(c->findings);
    free(c);
}

const brc_file *brc_checkpoint_file(const brc_checkpoint *c) { return c->file; }
size_t brc_checkpoint_count(const brc_checkpoint *c) { return c->n; }
const brc_entry *brc_checkpoint_at(const brc_checkpoint *c, size_t i) { return i < c->n ? c->entries[i] : NULL; }
size_t brc_checkpoint_findings(const brc_checkpoint *c) { return c->n_findings; }
const brc_finding *brc_checkpoint_finding(const brc_checkpoint *c, size_t i) {
    return i < c->n_findings ? &c->findings[i]->finding : NULL;
}

static int key_order(const void *key, const void *row) {
    return brci_natural_order(key, (*(const brc_entry *const *)row)->name);
}

const brc_entry *brc_checkpoint_find(const brc_checkpoint *c, const char *name) {
    const brc_entry **found =
        name == NULL || c->n == 0 ? NULL : bsearch(name, c->entries, c->n, sizeof *c->entries, key_order);
    return found == NULL ? NULL : *found;
}

brc_status brc_checkpoint_usable(const brc_checkpoint *c, brc_error *err) {
    for (size_t i = 0; i < c->n_findings; i++) {
        const brci_finding *f = c->findings[i];
        if (f->finding.severity >= BRC_AMBIGUITY)
            return brci_fail(err, f->status, 0, "%s%s%s", brci_clip(f->finding.tensor).text,
                             f->finding.tensor[0] == '\0' ? "" : ": ", f->finding.text);
    }
    return BRC_OK;
}

brc_status brc_checkpoint_load(const brc_checkpoint *c, const brc_entry *entry, brc_owned *tensor, brc_error *err) {
    if (c == NULL || entry == NULL || tensor == NULL)
        return brci_fail(err, BRC_ARGUMENT, 0, "checkpoint, entry and tensor must be given");
    const brci_dialect *dialect = brci_dialect_of(entry->dialect);
    *tensor = (brc_owned){.tensor = entry->tensor};
    if (entry->tensor.format == BRC_NONE)
        return brci_fail(err, BRC_UNSUPPORTED, 0, "%s: no scaled tensor%s%s", brci_clip(entry->name).text,
                         entry->meaning[0] == '\0' ? "" : ": ", entry->meaning);
    if (entry->tensor.data == NULL && dialect->load != NULL)
        TRY(dialect->load((const brci_reading *)(const void *)entry, tensor, err));
    brc_status status = brc_tensor_check(&tensor->tensor, err);
    if (status != BRC_OK) brc_release(tensor);
    return status;
}
