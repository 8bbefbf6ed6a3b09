/* SPDX-License-Identifier: Apache-2.0
 * What every dialect does while it reads: look for siblings, propose a tensor, report. */
#include "dialect/dialect.h"

#include <stdlib.h>
#include <string.h>

int64_t brci_stem(const char *name, const char *suffix) {
    size_t length = strlen(name), end = strlen(suffix);
    return length > end && memcmp(name + length - end, suffix, end) == 0 ? (int64_t)(length - end) : -1;
}

/* stem + suffix in the reader's scratch memory; NULL when out of memory. */
static const char *compose(brci_reader *reader, const char *stem, size_t length, const char *suffix) {
    size_t need = length + strlen(suffix) + 1;
    if (need > reader->scratch_room) {
        char *grown = realloc(reader->scratch, need * 2);
        if (grown == NULL) {
            reader->pool->failed = 1;
            return NULL;
        }
        reader->scratch = grown;
        reader->scratch_room = need * 2;
    }
    memcpy(reader->scratch, stem, length);
    strcpy(reader->scratch + length, suffix);
    return reader->scratch;
}

int brci_may_claim(const brci_reader *reader, brc_dialect dialect) {
    if (reader->forced != BRC_DIALECT_COUNT) return reader->forced == dialect;
    return reader->method == NULL || brci_method_dialect(reader) == dialect;
}

const brc_named_array *brci_sibling(brci_reader *reader, const char *stem, size_t length, const char *suffix) {
    const char *name = compose(reader, stem, length, suffix);
    return name == NULL ? NULL : brc_file_find(reader->file, name);
}

int brci_is_comfyui(brci_reader *reader, const char *name) {
    const int64_t module = brci_stem(name, "weight");
    return brc_file_metadata(reader->file, BRCI_COMFYUI_KEY) != NULL ||
           (module >= 0 && brci_sibling(reader, name, (size_t)module, "comfy_quant") != NULL);
}

int brci_has_foreign_scale(brci_reader *reader, const char *name, size_t length) {
    return brci_sibling(reader, name, length, "_scale_2") != NULL || brci_is_comfyui(reader, name);
}

brci_reading **brci_owner(brci_reader *reader, const brc_named_array *array) {
    return &reader->owner[array - brc_file_at(reader->file, 0)]; /* container/file.h: the arrays lie in one row */
}

brci_reading *brci_propose(brci_reader *reader, brc_dialect dialect, const char *name, size_t length) {
    brci_reading *reading = brci_pool_alloc(reader->pool, sizeof *reading);
    if (reading == NULL) return NULL;
    reading->entry = (brc_entry){.name = brci_pool_copy(reader->pool, name, length),
                                 .dialect = dialect,
                                 .parts = reading->parts,
                                 .evidence = "",
                                 .meaning = "",
                                 .recipe = ""};
    if (reader->last == NULL) reader->first = reading;
    else reader->last->next = reading;
    reader->last = reading;
    reader->readings++;
    return reading;
}

const brc_named_array *brci_take(brci_reader *reader, brci_reading *reading, const char *role, const char *stem,
                                 size_t length, const char *suffix) {
    const brc_named_array *array = brci_sibling(reader, stem, length, suffix);
    if (array == NULL || reading->entry.n_parts == BRCI_MAX_PARTS) return NULL;
    reading->parts[reading->entry.n_parts++] = (brc_part){role, array};
    return array;
}

const brc_named_array *brci_part(const brc_entry *entry, const char *role) {
    for (size_t i = 0; i < entry->n_parts; i++)
        if (strcmp(entry->parts[i].role, role) == 0) return entry->parts[i].array;
    return NULL;
}

/* The shard that a tensor's first array lies in, else the path that was opened. */
static const char *file_of(brci_reader *reader, const char *tensor) {
    const brc_named_array *array = brci_sibling(reader, tensor, strlen(tensor), "");
    return array == NULL ? reader->path : brc_file_shard_path(reader->file, array->shard);
}

static void report_in(brci_reader *reader, const char *file, brc_severity severity, brc_status status,
                      const char *tensor, const char *text) {
    brci_finding *made = brci_pool_alloc(reader->pool, sizeof *made);
    if (made == NULL) return;
    *made = (brci_finding){{severity, file, tensor, text}, status, NULL};
    if (reader->last_finding == NULL) reader->first_finding = made;
    else reader->last_finding->next = made;
    reader->last_finding = made;
    reader->findings++;
}

void brci_report(brci_reader *reader, brc_severity severity, brc_status status, const char *tensor, const char *text) {
    report_in(reader, file_of(reader, tensor), severity, status, tensor, text);
}

void brci_report_note(brci_reader *reader, const brc_file_note *note) {
    report_in(reader, note->file, BRC_WARNING, BRC_OK, note->name, note->text);
}

void brci_refuse(brci_reader *reader, brci_reading *reading, brc_severity severity, brc_status status,
                 const char *text) {
    const brc_entry *entry = &reading->entry;
    const char *file =
        entry->n_parts == 0 ? reader->path : brc_file_shard_path(reader->file, entry->parts[0].array->shard);
    reading->entry.tensor = (brc_tensor){.size = sizeof(brc_tensor)};
    reading->entry.meaning = text;
    report_in(reader, file, severity, status, entry->name, text);
}

const char *brci_array_text(brci_pool *pool, const brc_named_array *array) {
    return brci_pool_print(pool, "%s %s", array->dtype, brci_pool_shape(pool, array->rank, array->shape));
}
