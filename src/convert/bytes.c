/* SPDX-License-Identifier: Apache-2.0 */
#include "convert/bytes.h"

#include "container/declared.h"
#include "dialect/config_text.h"

#include <stdlib.h>
#include <string.h>

/* Rows with bytes between them become neighbours. */
static void close_rows(const brc_tensor *t, uint8_t *to, int64_t n) {
    const int64_t row = brc_row_bytes((brc_format)t->format, t->shape[t->rank - 1]);
    const uint8_t *from = t->data;
    for (int64_t at = 0; at < n; at += row, from += t->row_pitch) memcpy(to + at, from, (size_t)row);
}

static int has_gaps(const brci_stored *s, const brc_tensor *t) {
    return s->buffer == BRCI_DATA && t->row_pitch != brc_row_bytes((brc_format)t->format, t->shape[t->rank - 1]);
}

brc_status brci_bytes_of(const brci_stored *s, const brc_tensor *t, brci_bytes *bytes, brc_error *err) {
    const void *const buffers[] = {[BRCI_DATA] = t->data,
                                   [BRCI_SCALE] = t->scale.data,
                                   [BRCI_GLOBAL] = t->global.data,
                                   [BRCI_ZERO] = t->zero.data,
                                   [BRCI_GROUP_INDEX] = t->group_index};
    *bytes = (brci_bytes){.at = s->bytes, .n = brci_stored_bytes(s)};
    if (s->bytes != NULL) return BRC_OK;
    if (s->pack == NULL && !has_gaps(s, t)) {
        bytes->at = buffers[s->buffer];
        return BRC_OK;
    }
    bytes->at = bytes->memory = malloc((size_t)bytes->n + 1);
    if (bytes->memory == NULL) return brci_fail(err, BRC_MEMORY, 0, "out of memory: %lld bytes", (long long)bytes->n);
    if (s->pack != NULL) return s->pack(t, s, bytes->memory, err);
    close_rows(t, bytes->memory, bytes->n);
    return BRC_OK;
}

void brci_bytes_free(brci_bytes *bytes) { free(bytes->memory); }

brc_named_array brci_array_of_stored(const brci_stored *s, const brci_bytes *bytes) {
    void *data = (void *)(uintptr_t)bytes->at;
    brc_named_array array = {.name = s->name,
                             .dtype = brc_safetensors_dtype((brc_format)s->format),
                             .array = brc_array_of((brc_format)s->format, s->rank, s->shape, data),
                             .bytes = bytes->n,
                             .rank = (uint32_t)s->rank,
                             .shape = s->shape};
    if (s->dtype != NULL) { /* blocks of GGUF: the array is their bytes */
        const brci_dtype *type = brci_gguf_of_word(s->dtype);
        array.dtype = s->dtype;
        array.array = brc_array_of(BRC_UINT8, 1, &array.bytes, data);
        array.block_numbers = type->numbers;
        array.block_bytes = type->bytes;
    }
    return array;
}

brc_status brci_pack(const brci_dialect *dialect, const char *name, const brc_tensor *tensor, const brc_entry *origin,
                     brci_packed *packed, brc_error *err) {
    *packed = (brci_packed){.store = {.n = 0}};
    packed->store.pool = &packed->pool;
    TRY(dialect->store(name, tensor, origin, &packed->store, err));
    for (size_t i = 0; i < packed->store.n; i++)
        TRY(brci_bytes_of(&packed->store.arrays[i], tensor, &packed->bytes[i], err));
    return packed->pool.failed ? brci_fail(err, BRC_MEMORY, 0, "out of memory") : BRC_OK;
}

void brci_packed_free(brci_packed *packed) {
    for (size_t i = 0; i < packed->store.n; i++) brci_bytes_free(&packed->bytes[i]);
    brci_pool_free(&packed->pool);
}

/* ------------------------------------------------------------------------------------------------ reading back */

static brci_pair pair_of(const char *key, const char *value) {
    return (brci_pair){.key = key,
                       .value = value,
                       .typed = {.size = sizeof(brc_value),
                                 .type = BRC_VALUE_STRING,
                                 .count = 1,
                                 .bytes = value,
                                 .length = (int64_t)strlen(value)}};
}

/* The arrays, with the texts that a checkpoint of this one tensor would have. */
static brc_status file_of(brc_dialect dialect, const brci_written *written, brci_packed *packed, brc_file **file,
                          brc_error *err) {
    const brci_dialect *d = brci_dialect_of(dialect);
    const brci_summary summary = {.written = written, .n_written = 1};
    brc_named_array arrays[BRCI_MAX_PARTS];
    brci_pair pairs[1 + BRCI_MAX_TEXTS];
    brci_text texts[BRCI_MAX_TEXTS];
    size_t n_pairs = 0;
    const char *config = NULL;
    const int n = d->config == NULL ? 0 : d->config(&packed->pool, &summary, texts);
    for (size_t i = 0; i < packed->store.n; i++)
        arrays[i] = brci_array_of_stored(&packed->store.arrays[i], &packed->bytes[i]);
    if (packed->store.key != NULL) pairs[n_pairs++] = pair_of(packed->store.key, packed->store.value);
    for (int i = 0; i < n; i++) {
        if (texts[i].file == NULL) pairs[n_pairs++] = pair_of(texts[i].member, texts[i].text);
        else if (strcmp(texts[i].file, BRCI_CONFIG_NAME) == 0)
            config = brci_config_with(&packed->pool, config == NULL ? "{}\n" : config, texts[i].member, texts[i].text);
    }
    if (n < 0 || packed->pool.failed) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    return brci_file_of_arrays(arrays, packed->store.n, pairs, n_pairs, config, file, err);
}

brc_status brci_read_back(brc_dialect dialect, const brci_written *written, brci_packed *packed,
                          brc_checkpoint **checkpoint, brc_owned *owned, brc_error *err) {
    brc_file *file;
    brc_error why = {.text = "it is not there"};
    *checkpoint = NULL;
    *owned = (brc_owned){0};
    TRY(file_of(dialect, written, packed, &file, err));
    TRY(brci_checkpoint_of(file, dialect, checkpoint, err));
    const brc_entry *entry = brc_checkpoint_find(*checkpoint, written->name);
    if (brc_checkpoint_usable(*checkpoint, &why) == BRC_OK && entry != NULL &&
        brc_checkpoint_load(*checkpoint, entry, owned, &why) == BRC_OK)
        return BRC_OK;
    return brci_fail(err, BRC_UNSUPPORTED, 0, "%s would not read it again: %.300s", brc_dialect_get(dialect)->name,
                     why.text);
}
