/* SPDX-License-Identifier: Apache-2.0
 * A checkpoint in another dialect. Two passes over the tensors: what becomes of each is decided, and judged where the
 * answer must be known before a byte is written; then arrays are declared, made and written one tensor at a time. */
#include "convert/carried.h"
#include "convert/change.h"
#include "convert/scales.h"
#include "convert/select.h"
#include "convert/transfer.h"

#include <math.h> /* INFINITY */
#include <stdlib.h>
#include <string.h>

typedef struct converting {
    brci_transfer transfer;
    brci_conversion conversion;
    const brc_convert_options *options;
    size_t n;             /* entries */
    brci_change *changes; /* [n] */
    uint8_t *changed;     /* [n] 1 = its arrays are not those of the source */
    brci_written *written;
    const char **kept, **plain;
    size_t n_written, n_kept, n_plain, n_changed;
} converting;

static const brc_entry *entry_at(const converting *c, size_t i) { return brc_checkpoint_at(c->transfer.source, i); }

/* ------------------------------------------------------------------------------------------------- telling */

static void warn(const converting *c, const brc_entry *entry, const char *what, const char *text) {
    if (c->options->warn != NULL) c->options->warn(c->options->user, entry->name, what, text);
}

static void tell(const converting *c, const brc_entry *entry, const brci_change *change, int64_t bytes_after) {
    char text[BRCI_DOUBT_SIZE];
    const int plain = entry->tensor.format == BRC_NONE;
    const brc_outcome outcome = {.name = entry->name,
                                 .quantized = change->tensor.format != BRC_NONE,
                                 .why = plain && change->way == BRCI_CARRY ? "plain" : NULL,
                                 .elements = brci_entry_elements(entry),
                                 .bytes_before = brci_entry_bytes(entry),
                                 .bytes_after = bytes_after,
                                 .exactness = change->exactness,
                                 .sqnr = change->way == BRCI_CARRY ? (double)INFINITY : change->sqnr,
                                 .from = change->from,
                                 .to = change->to};
    if (change->way != BRCI_CARRY && brci_doubt(change->largest, text)) warn(c, entry, "magnitude", text);
    if (change->uneven > 0) {
        snprintf(text, sizeof text, "%lld scales are no powers of two, though they are said to be",
                 (long long)change->uneven);
        warn(c, entry, "scale", text);
    }
    if (change->beyond > 0) {
        snprintf(text, sizeof text, "%lld values are beyond the range of %.60s", (long long)change->beyond, change->to);
        warn(c, entry, "range", text);
    }
    if (c->options->outcome != NULL) c->options->outcome(c->options->user, &outcome);
}

/* ------------------------------------------------------------------------------------------------ deciding */

static brc_status check_required(const converting *c, const brci_change *change, brc_error *err) {
    if (c->options->require == 0 || change->exactness <= (brc_exactness)(c->options->require - 1)) return BRC_OK;
    return brci_fail(err, BRC_UNSUPPORTED, 0, "%s as %s (SQNR %.2f dB), and no worse than %s is allowed",
                     brc_exactness_name(change->exactness), change->to, change->sqnr,
                     brc_exactness_name((brc_exactness)(c->options->require - 1)));
}

static brc_status plan(converting *c, size_t i, brc_error *err) {
    const brc_entry *entry = entry_at(c, i);
    brci_change *change = &c->changes[i];
    TRY(brci_change_plan(&c->conversion, entry, change, err));
    c->changed[i] = change->way != BRCI_CARRY;
    c->n_changed += c->changed[i];
    if ((c->options->require == 0 && !c->options->dry_run) || change->judged) return BRC_OK;
    TRY(brci_change_measure(&c->conversion, entry, change, err));
    return check_required(c, change, err);
}

static brc_status plan_all(converting *c, brc_error *err) {
    c->changes = calloc(c->n + 1, sizeof *c->changes);
    c->changed = calloc(c->n + 1, sizeof *c->changed);
    c->written = calloc(c->n + 1, sizeof *c->written);
    c->kept = calloc(c->n + 1, sizeof *c->kept);
    c->plain = calloc(c->n + 1, sizeof *c->plain);
    if (c->changes == NULL || c->changed == NULL || c->written == NULL || c->kept == NULL || c->plain == NULL)
        return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    for (size_t i = 0; i < c->n; i++) {
        TRY(brci_about(err, plan(c, i, err), c->transfer.source, entry_at(c, i)));
        TRY(brci_transfer_step(&c->transfer, entry_at(c, i), err));
    }
    return BRC_OK;
}

/* ----------------------------------------------------------------------------------------------- declaring */

/* What the dialect takes along of the arrays beside the values, and what it leaves. */
static brc_status check_companions(const converting *c, const brc_entry *entry, const brci_change *change,
                                   brc_error *err) {
    const char *name = brc_dialect_get(c->options->dialect)->name;
    brci_pool pool = {0};
    brci_store store = {.pool = &pool};
    brc_status status = BRC_OK;
    const int scaled = change->tensor.format != BRC_NONE;
    if (scaled) status = c->conversion.target->store(entry->name, &change->tensor, change->origin, &store, err);
    for (size_t i = 0; status == BRC_OK && i < entry->n_parts; i++) {
        const char *role = brci_left_behind(entry, i, change->origin, scaled ? &store : NULL);
        if (role != NULL) status = brci_check_left(role, scaled ? name : NULL, err);
        if (role != NULL && status == BRC_OK)
            warn(c, entry, role,
                 brci_pool_print(&pool, "%s is left behind: %s has no place for it", entry->parts[i].array->name,
                                 scaled ? name : "a plain tensor"));
    }
    brci_pool_free(&pool);
    return status;
}

static brc_status declare(converting *c, size_t i, brc_error *err) {
    const brc_entry *entry = entry_at(c, i);
    const brci_change *change = &c->changes[i];
    const brc_named_array *array = entry->parts[0].array;
    if (change->tensor.format != BRC_NONE)
        c->written[c->n_written++] =
            (brci_written){.name = entry->name, .tensor = &change->tensor, .origin = change->origin};
    else if (change->way == BRCI_DENSE ? entry->tensor.rank == 2 : array->rank == 2 && brci_is_high(array))
        c->kept[c->n_kept++] = entry->name;
    if (change->tensor.format == BRC_NONE) c->plain[c->n_plain++] = entry->name;
    if (change->way == BRCI_CARRY) return brci_transfer_declare_plain(&c->transfer, entry, err);
    if (change->origin != NULL) TRY(check_companions(c, entry, change, err));
    if (change->way == BRCI_DENSE)
        return brci_transfer_declare(&c->transfer, entry, entry->name, NULL, change->format, entry->tensor.rank,
                                     entry->tensor.shape, err);
    return brci_transfer_declare_stored(&c->transfer, c->conversion.target, entry, &change->tensor, change->origin,
                                        err);
}

/* What the written checkpoint says of itself. Where nothing changed, everything stays as it is. */
static brc_status declare_texts(converting *c, brc_error *err) {
    brci_transfer *t = &c->transfer;
    /* Plain numbers beside tensors that were not chosen: those are still described. */
    const int anew = c->n_changed > 0 && !(c->options->dialect == BRC_DIALECT_PLAIN && c->n_written > 0);
    brci_texts texts = {.drop = anew};
    brci_reader reader = {.file = t->file, .path = t->destination, .pool = &t->pool, .forced = BRC_DIALECT_COUNT};
    if (!anew || c->n_written == 0 || c->conversion.target->config == NULL)
        return brci_transfer_companions(t, &texts, anew, err);
    brci_read_quantization(&reader);
    const brci_summary summary = {.written = c->written,
                                  .n_written = c->n_written,
                                  .kept = c->kept,
                                  .n_kept = c->n_kept,
                                  .plain = c->plain,
                                  .n_plain = c->n_plain,
                                  .origin =
                                      brci_method_dialect(&reader) == c->options->dialect ? reader.quantization : NULL};
    texts.n = c->conversion.target->config(&t->pool, &summary, texts.texts);
    json_decref(reader.quantization);
    free(reader.scratch); /* of what it reported */
    if (texts.n < 0) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    texts.summary = &summary;
    texts.plain_text = c->conversion.target->plain_text;
    return brci_transfer_companions(t, &texts, 1, err);
}

static brc_status declare_all(converting *c, brc_error *err) {
    brci_transfer *t = &c->transfer;
    TRY(brci_transfer_metadata(t, c->changed, err));
    for (size_t i = 0; i < c->n; i++) TRY(brci_about(err, declare(c, i, err), t->source, entry_at(c, i)));
    TRY(declare_texts(c, err));
    return t->pool.failed ? brci_fail(err, BRC_MEMORY, 0, "out of memory") : BRC_OK;
}

/* ------------------------------------------------------------------------------------------------- writing */

static brc_status write_made(converting *c, const brc_entry *entry, const brci_change *change, const brci_made *made,
                             size_t *next, int64_t *bytes, brc_error *err) {
    if (change->way != BRCI_DENSE) return brci_transfer_write_packed(&c->transfer, &made->packed, next, bytes, err);
    *bytes = brci_entry_elements(entry) * brc_format_get(change->format)->bits / 8;
    return brc_writer_write(c->transfer.writer, c->transfer.numbers[(*next)++], 0, made->memory, *bytes, err);
}

static brc_status write_changed(converting *c, const brc_entry *entry, brci_change *change, size_t *next,
                                int64_t *bytes, brc_error *err) {
    brci_made made;
    brc_status status = brci_change_make(&c->conversion, entry, change, &made, err);
    if (status == BRC_OK && !change->judged) status = brci_change_judge(&c->conversion, entry, &made, change, err);
    if (status == BRC_OK) status = write_made(c, entry, change, &made, next, bytes, err);
    brci_made_end(&made);
    return status;
}

static brc_status write_all(converting *c, brc_error *err) {
    size_t next = 0;
    for (size_t i = 0; i < c->n; i++) {
        const brc_entry *entry = entry_at(c, i);
        int64_t bytes = 0;
        brc_status status = c->changed[i] ? write_changed(c, entry, &c->changes[i], &next, &bytes, err)
                                          : brci_transfer_write_plain(&c->transfer, entry, &next, err);
        TRY(brci_about(err, status, c->transfer.source, entry));
        tell(c, entry, &c->changes[i], c->changed[i] ? bytes : brci_entry_bytes(entry));
        TRY(brci_transfer_step(&c->transfer, entry, err));
    }
    brc_writer *writer = c->transfer.writer;
    c->transfer.writer = NULL;
    return brc_writer_finish(writer, err);
}

/* Bytes of a tensor as it would be written. */
static int64_t planned_bytes(converting *c, const brc_entry *entry, const brci_change *change) {
    brci_store store = {.pool = &c->transfer.pool};
    int64_t bytes = 0;
    if (change->way == BRCI_CARRY) return brci_entry_bytes(entry);
    if (change->way == BRCI_DENSE) return brci_entry_elements(entry) * brc_format_get(change->format)->bits / 8;
    if (c->conversion.target->store(entry->name, &change->tensor, change->origin, &store, NULL) != BRC_OK) return 0;
    for (size_t i = 0; i < store.n; i++) bytes += brci_stored_bytes(&store.arrays[i]);
    return bytes;
}

static void tell_all(converting *c) {
    for (size_t i = 0; i < c->n; i++)
        tell(c, entry_at(c, i), &c->changes[i], planned_bytes(c, entry_at(c, i), &c->changes[i]));
}

/* --------------------------------------------------------------------------------------------- the interface */

static brc_status check_options(const brc_convert_options *o, brc_error *err) {
    if (o == NULL || o->size < sizeof *o) return brci_fail(err, BRC_ARGUMENT, 0, "options of this version are needed");
    if ((o->n_recipes > 0 && o->recipes == NULL) || (o->n_include > 0 && o->include == NULL) ||
        (o->n_exclude > 0 && o->exclude == NULL))
        return brci_fail(err, BRC_ARGUMENT, 0, "recipes, include and exclude must be as many as they count");
    const brci_dialect *dialect = brci_dialect_of(o->dialect);
    if (dialect == NULL || (dialect->store == NULL && o->dialect != BRC_DIALECT_PLAIN))
        return brci_fail(err, BRC_UNSUPPORTED, 0, "the dialect %s is not written yet",
                         brc_dialect_get(o->dialect) == NULL ? "asked for" : brc_dialect_get(o->dialect)->name);
    if (o->dialect == BRC_DIALECT_PLAIN ? o->n_recipes > 0 : o->format != BRC_NONE)
        return brci_fail(err, BRC_ARGUMENT, 0, "plain numbers have a format, scaled ones a recipe");
    if (o->format != BRC_NONE && o->format != BRC_BF16 && o->format != BRC_F16 && o->format != BRC_F32)
        return brci_fail(err, BRC_ARGUMENT, 0, "the format must be bf16, f16 or f32");
    if (o->require > BRC_LOSSY + 1) return brci_fail(err, BRC_ARGUMENT, 0, "there is no such class");
    for (size_t i = 0; i < o->n_recipes; i++) TRY(brc_recipe_check(&o->recipes[i], err));
    return BRC_OK;
}

brc_status brc_convert_checkpoint(const brc_checkpoint *source, const char *destination,
                                  const brc_convert_options *options, brc_error *err) {
    converting c = {.options = options};
    TRY(check_options(options, err));
    TRY(brci_check_ending(options->dialect, destination, err));
    brc_status status = brci_transfer_begin(&c.transfer, source, destination, options->overwrite, options->progress,
                                            options->user, err);
    c.transfer.left = options->left;
    c.transfer.total *= options->dry_run ? 1 : 2;
    if (status == BRC_OK) {
        c.n = brc_checkpoint_count(source);
        status = brci_conversion_begin(&c.conversion, source, options, &c.transfer.pool, err);
    }
    if (status == BRC_OK) status = plan_all(&c, err);
    if (status == BRC_OK) status = declare_all(&c, err);
    if (status == BRC_OK && options->dry_run) tell_all(&c);
    if (status == BRC_OK && !options->dry_run) status = brc_writer_begin(c.transfer.writer, err);
    if (status == BRC_OK && !options->dry_run) status = write_all(&c, err);
    brci_transfer_end(&c.transfer);
    free(c.changes);
    free(c.changed);
    free(c.written);
    free(c.kept);
    free(c.plain);
    return status;
}
