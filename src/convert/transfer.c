/* SPDX-License-Identifier: Apache-2.0 */
#include "convert/transfer.h"

#include "container/declared.h"
#include "container/gguf.h"
#include "convert/bytes.h"
#include "dialect/order.h"

#include <stdlib.h>
#include <string.h>

brc_recipe brci_recipe_for(const brc_recipe *recipe, int64_t rank, const int64_t *shape) {
    brc_recipe r = *recipe;
    const int64_t rows = rank > 1 ? shape[rank - 2] : 1, cols = shape[rank - 1];
    if ((r.block.rows != 0 && rows % r.block.rows != 0) || (r.block.cols != 0 && cols % r.block.cols != 0))
        r.partial = 1;
    return r;
}

int64_t brci_entry_bytes(const brc_entry *entry) {
    int64_t bytes = 0;
    for (size_t i = 0; i < entry->n_parts; i++) bytes += entry->parts[i].array->bytes;
    return bytes;
}

int64_t brci_entry_elements(const brc_entry *entry) {
    const brc_named_array *data = entry->parts[0].array;
    int64_t n = 1, rank = entry->tensor.format != BRC_NONE ? entry->tensor.rank : data->rank;
    const int64_t *shape = entry->tensor.format != BRC_NONE ? entry->tensor.shape : data->shape;
    for (int64_t i = 0; i < rank; i++) n *= shape[i];
    return n;
}

brc_status brci_about(brc_error *err, brc_status status, const brc_checkpoint *checkpoint, const brc_entry *entry) {
    if (err != NULL && status != BRC_OK) {
        char text[sizeof err->text];
        const char *path = brc_file_shard_path(brc_checkpoint_file(checkpoint), entry->parts[0].array->shard);
        const char *slash = strrchr(path, '/');
        memcpy(text, err->text, sizeof text);
        snprintf(err->text, sizeof err->text, "%.60s: %s: %.320s", slash == NULL ? path : slash + 1,
                 brci_clip(entry->name).text, text);
        brci_make_utf8(err->text);
    }
    return status;
}

/* Shards that hold the first array of an entry stay shards. */
static brc_status assign_shards(brci_transfer *t, brc_error *err) {
    size_t n = brc_file_shards(t->file);
    t->shards = calloc(n + 1, sizeof *t->shards);
    if (t->shards == NULL) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    t->n_shards = 1;
    if (!t->folder) return BRC_OK; /* one file takes all */
    for (size_t i = 0; i < brc_checkpoint_count(t->source); i++)
        t->shards[brc_checkpoint_at(t->source, i)->parts[0].array->shard] = 1;
    t->n_shards = 0;
    for (size_t i = 0; i < n; i++) t->shards[i] = t->shards[i] ? t->n_shards++ : 0;
    return BRC_OK;
}

brc_status brci_transfer_begin(brci_transfer *t, const brc_checkpoint *source, const char *destination,
                               uint32_t overwrite, brc_progress progress, void *user, brc_error *err) {
    const brc_write_options options = {.size = sizeof options, .overwrite = overwrite};
    *t = (brci_transfer){
        .source = source, .destination = destination, .overwrite = overwrite, .progress = progress, .user = user};
    if (source == NULL || destination == NULL)
        return brci_fail(err, BRC_ARGUMENT, 0, "source and destination must be given");
    t->file = brc_checkpoint_file(source);
    t->folder = brci_kind_of(destination) == NULL;
    for (size_t i = 0; i < brc_checkpoint_count(source); i++)
        t->total += brci_entry_bytes(brc_checkpoint_at(source, i));
    TRY(brc_checkpoint_usable(source, err));
    TRY(assign_shards(t, err));
    TRY(brci_transfer_guard(t, err));
    return brc_writer_new(destination, &options, &t->writer, err);
}

brc_dialect brci_default_dialect(const char *destination) {
    return destination != NULL && brci_kind_of(destination) == &brci_gguf_kind ? BRC_DIALECT_GGUF : BRC_DIALECT_BRECCIA;
}

brc_status brci_check_ending(brc_dialect dialect, const char *destination, brc_error *err) {
    const brci_kind *kind = destination == NULL ? NULL : brci_kind_of(destination);
    const char *has = kind == NULL ? brci_safetensors_kind.ending : kind->ending,
               *wants = brci_dialect_of(dialect)->ending;
    if (wants == NULL) wants = brci_safetensors_kind.ending;
    if (dialect == BRC_DIALECT_PLAIN || strcmp(wants, has) == 0) return BRC_OK;
    return brci_fail(err, BRC_ARGUMENT, 0, "%s: %s tensors are stored in a %s file%s", brci_clip(destination).text,
                     brc_dialect_get(dialect)->name, wants,
                     strcmp(wants, brci_safetensors_kind.ending) == 0 ? ", or a folder of them" : "");
}

void brci_transfer_end(brci_transfer *t) {
    brc_writer_discard(t->writer);
    brci_pool_free(&t->pool);
    free(t->shards);
    free(t->numbers);
}

static brc_status declare(brci_transfer *t, const brc_named_array *beside, const char *name, const char *dtype,
                          unsigned format, int rank, const int64_t *shape, brc_error *err) {
    if (t->n_numbers == t->numbers_room) {
        size_t room = t->numbers_room * 2 + 64;
        size_t *grown = realloc(t->numbers, room * sizeof *grown);
        if (grown == NULL) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
        t->numbers = grown;
        t->numbers_room = room;
    }
    const uint32_t shard = t->shards[beside->shard];
    size_t *number = &t->numbers[t->n_numbers++];
    return dtype != NULL ? brc_writer_add_dtype(t->writer, name, dtype, rank, shape, shard, number, err)
                         : brc_writer_add(t->writer, name, (brc_format)format, rank, shape, shard, number, err);
}

brc_status brci_transfer_declare(brci_transfer *t, const brc_entry *entry, const char *name, const char *dtype,
                                 unsigned format, int rank, const int64_t *shape, brc_error *err) {
    return declare(t, entry->parts[0].array, name, dtype, format, rank, shape, err);
}

/* A pair of the source came along with its metadata. */
static brc_status mark_plain(brci_transfer *t, const brc_named_array *array, brc_error *err) {
    const char *key = brci_plain_key(&t->pool, array->name);
    if (t->pool.failed) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    return brc_file_metadata(t->file, key) != NULL ? BRC_OK
                                                   : brc_writer_metadata(t->writer, key, brci_plain_value, err);
}

brc_status brci_transfer_declare_plain(brci_transfer *t, const brc_entry *entry, brc_error *err) {
    for (size_t i = 0; i < entry->n_parts; i++) {
        const brc_named_array *a = entry->parts[i].array;
        TRY(declare(t, a, a->name, a->block_numbers > 0 ? a->dtype : NULL, a->array.format, (int)a->rank, a->shape,
                    err));
        if (entry->dialect == BRC_DIALECT_PLAIN && brci_is_bare(a)) TRY(mark_plain(t, a, err));
    }
    return BRC_OK;
}

brc_status brci_transfer_declare_stored(brci_transfer *t, const brci_dialect *dialect, const brc_entry *entry,
                                        const brc_tensor *tensor, const brc_entry *origin, brc_error *err) {
    brci_store store = {.pool = &t->pool};
    TRY(dialect->store(entry->name, tensor, origin, &store, err));
    for (size_t i = 0; i < store.n; i++) {
        const brci_stored *s = &store.arrays[i];
        TRY(brci_transfer_declare(t, entry, s->name, s->dtype, s->format, s->rank, s->shape, err));
    }
    return store.key == NULL ? BRC_OK : brc_writer_metadata(t->writer, store.key, store.value, err);
}

brc_status brci_transfer_write_packed(brci_transfer *t, const brci_packed *packed, size_t *next, int64_t *written,
                                      brc_error *err) {
    for (size_t i = 0; i < packed->store.n; i++) {
        const brci_bytes *bytes = &packed->bytes[i];
        TRY(brc_writer_write(t->writer, t->numbers[(*next)++], 0, bytes->at, bytes->n, err));
        *written += bytes->n;
    }
    return BRC_OK;
}

brc_status brci_transfer_write_plain(brci_transfer *t, const brc_entry *entry, size_t *next, brc_error *err) {
    for (size_t i = 0; i < entry->n_parts; i++) {
        const brc_named_array *a = entry->parts[i].array;
        TRY(brc_writer_write(t->writer, t->numbers[(*next)++], 0, a->array.data, a->bytes, err));
    }
    return BRC_OK;
}

/* Place of an entry, by its name; the count if there is none. */
static size_t find_entry(const brc_checkpoint *c, const char *name) {
    const brc_entry *found = brc_checkpoint_find(c, name);
    size_t first = 0, past = brc_checkpoint_count(c);
    if (found == NULL) return past;
    while (first + 1 < past) {
        const size_t middle = first + (past - first) / 2;
        if (brci_natural_order(brc_checkpoint_at(c, middle)->name, name) <= 0) first = middle;
        else past = middle;
    }
    return first;
}

/* Whether a metadata pair describes a tensor of the source that changes, or the checkpoint as one of a dialect. */
static int describes_any(brci_transfer *t, const char *key, const char *value, const uint8_t *changed) {
    for (unsigned i = 0; i < BRC_DIALECT_COUNT; i++) {
        const brci_dialect *dialect = brci_dialect_of((brc_dialect)i);
        const int64_t length = dialect == NULL || dialect->describes == NULL ? -1 : dialect->describes(key, value);
        if (length == 0) return 1;
        if (length < 0 || changed == NULL) continue;
        const size_t at = find_entry(t->source, brci_pool_copy(&t->pool, key, (size_t)length));
        const brc_entry *entry = brc_checkpoint_at(t->source, at);
        if (entry != NULL && entry->dialect == (brc_dialect)i && changed[at]) return 1;
    }
    return 0;
}

/* Whether a pair speaks of the weights' types as a whole. */
static int is_about_types(const char *key) {
    for (unsigned i = 0; i < BRC_DIALECT_COUNT; i++) {
        const brci_dialect *dialect = brci_dialect_of((brc_dialect)i);
        for (size_t j = 0; dialect != NULL && dialect->pairs != NULL && dialect->pairs[j] != NULL; j++)
            if (strcmp(dialect->pairs[j], key) == 0) return 1;
    }
    return 0;
}

/* GGUF's types stay in GGUF; elsewhere a value is its text, and an array has none that is whole. Which of several files
 * one was is not true of the new one. */
static brc_status carry_pair(brci_transfer *t, size_t i, brc_error *err) {
    const brci_kind *kind = brci_kind_of(t->destination);
    const char *value = NULL, *key = brc_file_metadata_at(t->file, i, &value);
    brc_value typed;
    (void)brc_file_value_at(t->file, i, &typed);
    if (strncmp(key, BRCI_GGUF_SPLIT_PREFIX, strlen(BRCI_GGUF_SPLIT_PREFIX)) == 0 && typed.type != BRC_VALUE_STRING)
        return BRC_OK;
    if (kind == &brci_gguf_kind) return brc_writer_value(t->writer, key, &typed, err);
    if (typed.type != BRC_VALUE_ARRAY) return brc_writer_metadata(t->writer, key, value, err);
    if (t->left != NULL) t->left(t->user, key, "an array of metadata, which GGUF alone holds");
    return BRC_OK;
}

brc_status brci_transfer_metadata(brci_transfer *t, const uint8_t *changed, brc_error *err) {
    const int anew = changed == NULL || memchr(changed, 1, brc_checkpoint_count(t->source)) != NULL;
    for (size_t i = 0; i < brc_file_metadata_count(t->file); i++) {
        const char *value = NULL, *key = brc_file_metadata_at(t->file, i, &value);
        if (!anew || !(describes_any(t, key, value, changed) || (changed != NULL && is_about_types(key))))
            TRY(carry_pair(t, i, err));
    }
    return BRC_OK;
}

brc_status brci_transfer_step(brci_transfer *t, const brc_entry *entry, brc_error *err) {
    t->done += brci_entry_bytes(entry);
    if (t->progress != NULL && t->progress(t->user, t->done, t->total, entry->name) != 0)
        return brci_fail(err, BRC_CANCELLED, 0, "stopped; nothing was written to %s", brci_clip(t->destination).text);
    return BRC_OK;
}
