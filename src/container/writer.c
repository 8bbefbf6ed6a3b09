/* SPDX-License-Identifier: Apache-2.0
 *
 * Writing checkpoints: arrays are declared, the headers written, then bytes placed where they belong. What the kinds of
 * files differ in is behind brci_kind.
 * Limits: BRCI_SHARDS_MAX shards; 2^31 arrays; a copied file has at most COPY_MAX bytes. */
#include "container/outputs.h"
#include "container/safetensors.h"
#include "container/safetensors_write.h"

#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#define COPY_MAX ((int64_t)256 << 20)

struct brc_writer {
    brci_arena arena;
    const char *path, *folder, *single; /* single: file name where the destination is one file, else NULL */
    const brci_kind *kind;
    int overwrite;
    enum { DECLARING, WRITING, FAILED } state;
    pthread_mutex_t lock; /* of state and of what is written of each array */
    brci_declared *arrays;
    size_t n_arrays, array_capacity;
    brci_names by_name;
    brci_pair *metadata;
    size_t n_metadata, metadata_capacity;
    brci_names by_key;
    struct text_file {
        const char *name, *text, *from; /* one of the last two */
    } * texts;
    size_t n_texts, text_capacity;
    const char **old; /* names of brci_writer_replaces */
    size_t n_old, old_capacity;
    uint32_t n_shards;
    size_t *outputs_of_shards;
    const char **shard_names;
    brci_outputs outputs;
    int64_t bytes;
};

static brc_status no_memory(brc_error *err) { return brci_fail(err, BRC_MEMORY, 0, "no memory to write a checkpoint"); }

static const char *keep(brc_writer *w, const char *text) { return brci_arena_text(&w->arena, text, strlen(text)); }

static const char *path_in(brc_writer *w, const char *name) {
    return brci_arena_print(&w->arena, "%s/%s", w->folder, name);
}

static int ends_with(const char *path, const char *ending) {
    size_t length = strlen(path), tail = strlen(ending);
    return length >= tail && strcasecmp(path + length - tail, ending) == 0;
}

const brci_kind *brci_kind_of(const char *path) {
    static const brci_kind *const kinds[] = {&brci_safetensors_kind, &brci_gguf_kind};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (ends_with(path, kinds[i]->ending)) return kinds[i];
    return NULL;
}

static int is_there(const char *path, mode_t *mode) {
    struct stat facts;
    int there = lstat(path, &facts) == 0;
    if (there && S_ISLNK(facts.st_mode)) there = stat(path, &facts) == 0 || lstat(path, &facts) == 0;
    if (there && mode != NULL) *mode = facts.st_mode;
    return there;
}

static brc_status exists(const char *path, const char *what, brc_error *err) {
    return brci_fail(err, BRC_EXISTS, 0, "%s: %s", brci_clip(path).text, what);
}

/* Whether the destination is free, or may be replaced. */
static brc_status check_destination(brc_writer *w, brc_error *err) {
    const char *path = w->path, *held[] = {BRCI_INDEX_NAME, BRCI_SINGLE_NAME};
    mode_t mode = 0;
    if (w->single != NULL) {
        if (!is_there(w->folder, NULL) && errno == ENOENT)
            return brci_fail(err, BRC_IO, 0, "%s: there is no folder %s; make it first", brci_clip(path).text,
                             brci_clip(w->folder).text);
        if (!is_there(w->folder, NULL))
            return brci_fail(err, BRC_IO, 0, "%s: %s", brci_clip(path).text, strerror(errno));
        if (!is_there(path, &mode)) return BRC_OK;
        if (S_ISDIR(mode)) return exists(path, "it is a folder", err);
        return w->overwrite ? BRC_OK : exists(path, "it exists already", err);
    }
    if (!is_there(path, &mode)) return BRC_OK;
    if (!S_ISDIR(mode)) return exists(path, "it exists already and is no folder", err);
    for (size_t i = 0; i < 2 && !w->overwrite; i++) {
        const char *inside = path_in(w, held[i]);
        if (inside == NULL) return no_memory(err);
        if (is_there(inside, NULL)) return exists(inside, "it exists already", err);
    }
    return BRC_OK;
}

static brc_status set_destination(brc_writer *w, const char *path, brc_error *err) {
    size_t length = strlen(path);
    const char *slash = strrchr(path, '/');
    const int single = brci_kind_of(path) != NULL;
    w->kind = single ? brci_kind_of(path) : &brci_safetensors_kind;
    while (!single && length > 1 && path[length - 1] == '/') length--;
    if (!single) w->folder = brci_arena_text(&w->arena, path, length);
    else if (slash == NULL) w->folder = ".";
    else w->folder = brci_arena_text(&w->arena, path, slash == path ? 1 : (size_t)(slash - path));
    if (single) w->single = keep(w, slash == NULL ? path : slash + 1);
    if ((w->path = keep(w, path)) == NULL || w->folder == NULL || (single && w->single == NULL)) return no_memory(err);
    return check_destination(w, err);
}

brc_status brc_writer_new(const char *path, const brc_write_options *options, brc_writer **writer, brc_error *err) {
    brc_writer *w;
    brc_status status;
    if (path == NULL || path[0] == '\0' || writer == NULL || (options != NULL && options->size < sizeof *options))
        return brci_fail(err, BRC_ARGUMENT, 0,
                         "a destination, options of this version and a place for the writer are needed");
    *writer = NULL;
    if ((w = calloc(1, sizeof *w)) == NULL) return no_memory(err);
    w->overwrite = options != NULL && options->overwrite;
    pthread_mutex_init(&w->lock, NULL); /* cannot fail without attributes */
    status = set_destination(w, path, err);
    if (status == BRC_OK) *writer = w;
    else brc_writer_discard(w);
    return status;
}

/* ------------------------------------------------------------------------------------------- declarations */

static brc_status check_text(const char *text, const char *what, brc_error *err) {
    json_t *value = text == NULL ? NULL : json_string(text); /* NULL for what is no UTF-8 */
    if (value == NULL) return brci_fail(err, BRC_ARGUMENT, 0, "%s: not valid UTF-8", what);
    json_decref(value);
    return BRC_OK;
}

static brc_status not_begun(const brc_writer *w, brc_error *err) {
    return w == NULL || w->state != DECLARING
               ? brci_fail(err, BRC_ARGUMENT, 0, "declarations end with brc_writer_begin")
               : BRC_OK;
}

/* Declares an array whose word is known. */
static brc_status declare(brc_writer *w, const char *name, const brci_dtype *dtype, int rank, const int64_t *shape,
                          uint32_t shard, size_t *number, brc_error *err) {
    brci_declared a = {.dtype = dtype, .shard = shard};
    int64_t elements, *dimensions;
    if (rank < 0 || (rank > 0 && shape == NULL) || number == NULL || shard >= BRCI_SHARDS_MAX)
        return brci_fail(err, BRC_ARGUMENT, 0, "%s: shape, shard or number", brci_clip(name).text);
    if (!w->kind->extent(a.dtype, (size_t)rank, shape, &elements, &a.bytes))
        return brci_fail(err, BRC_OVERFLOW, 0, "%s: the shape exceeds 63 bits", brci_clip(name).text);
    dimensions = brci_arena_take(&w->arena, (size_t)(rank > 0 ? rank : 1) * sizeof *dimensions);
    if (dimensions == NULL || (a.name = keep(w, name)) == NULL || w->n_arrays >= INT32_MAX) return no_memory(err);
    if (rank > 0) memcpy(dimensions, shape, (size_t)rank * sizeof *shape);
    a.shape = dimensions;
    a.rank = (uint32_t)rank;
    TRY(w->kind->check_array(&a, err));
    TRY(brci_room(&w->arrays, &w->array_capacity, w->n_arrays, sizeof a, err));
    brc_status status = brci_names_add(&w->by_name, a.name, (uint32_t)w->n_arrays, NULL, err);
    if (status == BRC_EXISTS)
        return brci_fail(err, BRC_ARGUMENT, 0, "%s: two arrays would have this name", brci_clip(name).text);
    TRY(status);
    if (shard >= w->n_shards) w->n_shards = shard + 1;
    *number = w->n_arrays;
    w->arrays[w->n_arrays++] = a;
    return BRC_OK;
}

brc_status brc_writer_add(brc_writer *w, const char *name, brc_format format, int rank, const int64_t *shape,
                          uint32_t shard, size_t *number, brc_error *err) {
    TRY(not_begun(w, err));
    TRY(check_text(name, "the name of an array", err));
    const brci_dtype *dtype = w->kind->of_format(format);
    if (dtype == NULL)
        return brci_fail(err, BRC_FORMAT, 0, "%s: %s has no word for %s%s", brci_clip(name).text, w->kind->name,
                         brc_format_get(format) == NULL ? "this format" : brc_format_get(format)->name,
                         w->kind->of_format(BRC_UINT8) == NULL ? "" : "; store its bytes as uint8");
    return declare(w, name, dtype, rank, shape, shard, number, err);
}

brc_status brc_writer_add_dtype(brc_writer *w, const char *name, const char *word, int rank, const int64_t *shape,
                                uint32_t shard, size_t *number, brc_error *err) {
    TRY(not_begun(w, err));
    TRY(check_text(name, "the name of an array", err));
    const brci_dtype *dtype = word == NULL ? NULL : w->kind->of_word(word);
    if (dtype == NULL)
        return brci_fail(err, BRC_FORMAT, 0, "%s: %s has no type %.40s", brci_clip(name).text, w->kind->name,
                         word == NULL ? "(null)" : word);
    return declare(w, name, dtype, rank, shape, shard, number, err);
}

static brc_status finish_pair(brc_writer *w, brci_pair *pair, brc_error *err) {
    if (w->kind->type_pair != NULL) TRY(w->kind->type_pair(&w->arena, pair, err));
    return w->kind->check_pair(pair, err);
}

/* Adds a pair whose texts and bytes are the writer's. */
static brc_status add_pair(brc_writer *w, brci_pair *pair, brc_error *err) {
    TRY(finish_pair(w, pair, err));
    TRY(brci_room(&w->metadata, &w->metadata_capacity, w->n_metadata, sizeof *pair, err));
    brc_status status = brci_names_add(&w->by_key, pair->key, (uint32_t)w->n_metadata, NULL, err);
    if (status == BRC_EXISTS)
        return brci_fail(err, BRC_ARGUMENT, 0, "metadata: the key %s is there twice", brci_clip(pair->key).text);
    TRY(status);
    w->metadata[w->n_metadata++] = *pair;
    return BRC_OK;
}

brc_status brc_writer_metadata(brc_writer *w, const char *key, const char *value, brc_error *err) {
    brci_pair pair = {0};
    TRY(not_begun(w, err));
    TRY(check_text(key, "a key of the metadata", err));
    TRY(check_text(value, "a value of the metadata", err));
    pair.key = keep(w, key);
    pair.value = keep(w, value);
    if (pair.key == NULL || pair.value == NULL) return no_memory(err);
    pair.typed = (brc_value){.size = sizeof pair.typed,
                             .type = BRC_VALUE_STRING,
                             .count = 1,
                             .bytes = pair.value,
                             .length = (int64_t)strlen(pair.value)};
    return add_pair(w, &pair, err);
}

brc_status brc_writer_value(brc_writer *w, const char *key, const brc_value *value, brc_error *err) {
    brci_pair pair = {0};
    char *bytes;
    TRY(not_begun(w, err));
    TRY(check_text(key, "a key of the metadata", err));
    if (value == NULL || value->size < sizeof *value || value->length < 0 ||
        (value->length > 0 && value->bytes == NULL))
        return brci_fail(err, BRC_ARGUMENT, 0, "metadata: %s: a value of this version must be given",
                         brci_clip(key).text);
    pair.key = keep(w, key);
    bytes = brci_arena_text(&w->arena, value->length > 0 ? value->bytes : "", (size_t)value->length);
    if (pair.key == NULL || bytes == NULL) return no_memory(err);
    pair.typed = *value;
    pair.typed.bytes = pair.value = bytes;
    const int64_t earlier = brci_names_find(&w->by_key, pair.key);
    if (value->type == BRC_VALUE_STRING && w->kind == &brci_safetensors_kind)
        TRY(check_text(strlen(bytes) == (size_t)value->length ? bytes : NULL, "a value of the metadata", err));
    if (earlier < 0) return add_pair(w, &pair, err);
    TRY(finish_pair(w, &pair, err));
    w->metadata[earlier] = pair;
    return BRC_OK;
}

static brc_status add_text(brc_writer *w, const char *name, const char *text, const char *from, brc_error *err) {
    struct text_file file;
    TRY(not_begun(w, err));
    if (w->single != NULL)
        return brci_fail(err, BRC_UNSUPPORTED, 0, "%s belongs into a folder, and the destination is one file",
                         brci_clip(name).text);
    if (name == NULL || name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL)
        return brci_fail(err, BRC_ARGUMENT, 0, "%s is no plain file name",
                         name == NULL ? "(null)" : brci_clip(name).text);
    file = (struct text_file){keep(w, name), text == NULL ? NULL : keep(w, text), from == NULL ? NULL : keep(w, from)};
    if (file.name == NULL || (file.text == NULL && file.from == NULL)) return no_memory(err);
    for (size_t i = 0; i < w->n_texts; i++)
        if (strcmp(w->texts[i].name, name) == 0)
            return brci_fail(err, BRC_ARGUMENT, 0, "%s: to be written twice", brci_clip(name).text);
    TRY(brci_room(&w->texts, &w->text_capacity, w->n_texts, sizeof file, err));
    w->texts[w->n_texts++] = file;
    return BRC_OK;
}

brc_status brc_writer_text(brc_writer *w, const char *name, const char *text, brc_error *err) {
    if (text == NULL) return brci_fail(err, BRC_ARGUMENT, 0, "a text must be given");
    return add_text(w, name, text, NULL, err);
}

brc_status brc_writer_copy(brc_writer *w, const char *name, const char *from, brc_error *err) {
    if (from == NULL) return brci_fail(err, BRC_ARGUMENT, 0, "a file to copy must be given");
    return add_text(w, name, NULL, from, err);
}

brc_status brci_writer_replaces(brc_writer *w, const char *name, brc_error *err) {
    const char *path = path_in(w, name), *kept = keep(w, name);
    TRY(not_begun(w, err));
    if (path == NULL || kept == NULL) return no_memory(err);
    if (!w->overwrite && is_there(path, NULL)) return exists(path, "it exists already", err);
    TRY(brci_room(&w->old, &w->old_capacity, w->n_old, sizeof *w->old, err));
    w->old[w->n_old++] = kept;
    return BRC_OK;
}

/* ------------------------------------------------------------------------------------------- the files */

static int by_name(const void *left, const void *right) {
    return strcmp((*(const brci_declared *const *)left)->name, (*(const brci_declared *const *)right)->name);
}

static brc_status add_bytes(brc_writer *w, int64_t bytes, brc_error *err) {
    return __builtin_add_overflow(w->bytes, bytes, &w->bytes)
               ? brci_fail(err, BRC_OVERFLOW, 0, "the files exceed 63 bits")
               : BRC_OK;
}

/* What replaces a checkpoint is kept from others as that was, also under new names. */
static void keep_mode(brc_writer *w) {
    const char *old[] = {BRCI_INDEX_NAME, BRCI_SINGLE_NAME};
    mode_t mode;
    for (size_t i = 0; i < 2 && w->outputs.mode < 0; i++) {
        const char *path = path_in(w, old[i]);
        if (path != NULL && is_there(path, &mode) && S_ISREG(mode)) w->outputs.mode = mode & 0777;
    }
}

/* Zeros between the arrays and behind the last one, where the kind of file aligns them. */
static brc_status write_gaps(const brci_output *output, brci_declared *const *arrays, size_t n, int64_t end,
                             brc_error *err) {
    static const char zeros[4096];
    for (size_t i = 0; i < n; i++) {
        const int64_t stop = i + 1 < n ? arrays[i + 1]->offset : end;
        for (int64_t at = arrays[i]->offset + arrays[i]->bytes, length; at < stop; at += length) {
            length = stop - at < (int64_t)sizeof zeros ? stop - at : (int64_t)sizeof zeros;
            TRY(brci_output_write(output, zeros, (size_t)length, at, err));
        }
    }
    return BRC_OK;
}

/* Creates a shard with its header, the data still to come. */
static brc_status begin_shard(brc_writer *w, uint32_t shard, brci_declared **arrays, size_t n, brc_error *err) {
    brci_grown header = {0};
    size_t item = 0;
    int64_t end = 0;
    brc_status status = w->kind->header(arrays, n, w->metadata, w->n_metadata, &header, &end, err);
    if (status == BRC_OK) status = brci_outputs_add(&w->outputs, w->shard_names[shard], &item, err);
    if (status == BRC_OK) {
        const brci_output *output = &w->outputs.items[item];
        w->outputs_of_shards[shard] = item;
        status = brci_output_write(output, header.at, header.length, 0, err);
        if (status == BRC_OK) status = write_gaps(output, arrays, n, end, err);
        if (status == BRC_OK) status = add_bytes(w, end, err);
    }
    free(header.at);
    return status;
}

static brc_status name_shards(brc_writer *w, brc_error *err) {
    uint32_t n = w->n_shards > 0 ? w->n_shards : 1;
    w->n_shards = n;
    w->outputs_of_shards = calloc(n, sizeof *w->outputs_of_shards);
    w->shard_names = calloc(n, sizeof *w->shard_names);
    if (w->outputs_of_shards == NULL || w->shard_names == NULL) return no_memory(err);
    if (w->single != NULL && n > 1) return brci_fail(err, BRC_ARGUMENT, 0, "%u shards do not go into one file", n);
    for (uint32_t i = 0; i < n; i++) {
        w->shard_names[i] = w->single != NULL ? w->single
                            : n == 1          ? BRCI_SINGLE_NAME
                                              : brci_arena_print(&w->arena, "model-%05u-of-%05u.safetensors", i + 1, n);
        if (w->shard_names[i] == NULL) return no_memory(err);
    }
    return BRC_OK;
}

static brc_status begin_shards(brc_writer *w, brci_declared **sorted, brc_error *err) {
    size_t first = 0;
    for (uint32_t shard = 0; shard < w->n_shards; shard++) {
        size_t n = 0;
        while (first + n < w->n_arrays && sorted[first + n]->shard == shard) n++;
        if (n == 0 && w->n_arrays > 0)
            return brci_fail(err, BRC_ARGUMENT, 0, "shard %u has no arrays; shards are consecutive", shard);
        TRY(begin_shard(w, shard, sorted + first, n, err));
        first += n;
    }
    return BRC_OK;
}

static brc_status add_whole(brc_writer *w, const char *name, const char *text, size_t length, brc_error *err) {
    size_t item;
    TRY(brci_outputs_add(&w->outputs, name, &item, err));
    TRY(add_bytes(w, (int64_t)length, err));
    return brci_output_write(&w->outputs.items[item], text, length, 0, err);
}

static brc_status begin_texts(brc_writer *w, brc_error *err) {
    for (size_t i = 0; i < w->n_texts; i++) {
        const struct text_file *file = &w->texts[i];
        brci_map map;
        if (file->text != NULL) {
            TRY(add_whole(w, file->name, file->text, strlen(file->text), err));
            continue;
        }
        TRY(brci_map_open(file->from, 1, COPY_MAX, &map, err));
        brc_status status = add_whole(w, file->name, (const char *)map.bytes, (size_t)map.size, err);
        brci_map_close(&map);
        TRY(status);
    }
    return BRC_OK;
}

/* The index is added last: it appears when all it names is there. */
static brc_status begin_index(brc_writer *w, brci_declared **sorted, brc_error *err) {
    brci_grown index = {0};
    int64_t total = 0;
    brc_status status;
    if (w->n_shards < 2) return BRC_OK;
    for (size_t i = 0; i < w->n_arrays; i++) total += sorted[i]->bytes; /* less than w->bytes, which did not overflow */
    if (w->n_arrays > 1) qsort(sorted, w->n_arrays, sizeof *sorted, by_name);
    status = brci_index_text((const brci_declared *const *)sorted, w->n_arrays, w->shard_names, total, &index, err);
    if (status == BRC_OK) status = add_whole(w, BRCI_INDEX_NAME, index.at, index.length, err);
    free(index.at);
    return status;
}

brc_status brc_writer_begin(brc_writer *w, brc_error *err) {
    brci_declared **sorted;
    brc_status status;
    TRY(not_begun(w, err));
    sorted = calloc(w->n_arrays + 1, sizeof(brci_declared *));
    if (sorted == NULL) return no_memory(err);
    w->state = FAILED; /* until all is there */
    for (size_t i = 0; i < w->n_arrays; i++) sorted[i] = &w->arrays[i];
    if (w->n_arrays > 1) qsort(sorted, w->n_arrays, sizeof *sorted, w->kind->order);
    if (w->n_metadata > 1 && w->kind->pair_order != NULL)
        qsort(w->metadata, w->n_metadata, sizeof *w->metadata, w->kind->pair_order);
    status = name_shards(w, err);
    if (status == BRC_OK) status = brci_outputs_begin(&w->outputs, &w->arena, w->folder, w->overwrite, err);
    if (status == BRC_OK && w->single == NULL && w->overwrite) keep_mode(w);
    if (status == BRC_OK) status = begin_shards(w, sorted, err);
    if (status == BRC_OK) status = begin_texts(w, err);
    if (status == BRC_OK) status = begin_index(w, sorted, err);
    if (status == BRC_OK) w->state = WRITING;
    free(sorted);
    return status;
}

static brc_status not_declared(brc_error *err) {
    return brci_fail(err, BRC_ARGUMENT, 0,
                     "bytes are written between brc_writer_begin and brc_writer_finish, to declared arrays");
}

/* Each byte is written once: what is complete is known at the end, and threads do not race. */
static brc_status claim(brc_writer *w, brci_declared *a, int64_t offset, int64_t length, brc_error *err) {
    brc_status status;
    pthread_mutex_lock(&w->lock);
    if (w->state == FAILED) status = brci_fail(err, BRC_ARGUMENT, 0, "the writer has failed before: discard it");
    else if (w->state != WRITING) status = not_declared(err);
    else status = brci_extents_add(&a->written, offset, offset + length, err);
    pthread_mutex_unlock(&w->lock);
    if (status == BRC_EXISTS)
        return brci_fail(err, BRC_ARGUMENT, 0, "%s: bytes %lld + %lld overlap what was written before",
                         brci_clip(a->name).text, (long long)offset, (long long)length);
    return status;
}

static void fail_writer(brc_writer *w) {
    pthread_mutex_lock(&w->lock);
    w->state = FAILED;
    pthread_mutex_unlock(&w->lock);
}

brc_status brc_writer_write(brc_writer *w, size_t number, int64_t offset, const void *bytes, int64_t length,
                            brc_error *err) {
    brci_declared *a;
    brc_status status;
    if (w == NULL || number >= w->n_arrays) return not_declared(err);
    a = &w->arrays[number];
    if (offset < 0 || length < 0 || offset > a->bytes || length > a->bytes - offset || (length > 0 && bytes == NULL))
        return brci_fail(err, BRC_ARGUMENT, 0, "%s: bytes %lld + %lld are outside its %lld", brci_clip(a->name).text,
                         (long long)offset, (long long)length, (long long)a->bytes);
    TRY(claim(w, a, offset, length, err));
    status = brci_output_write(&w->outputs.items[w->outputs_of_shards[a->shard]], bytes, (size_t)length,
                               a->offset + offset, err);
    if (status != BRC_OK) fail_writer(w);
    return status;
}

/* Files of the checkpoint that stood here before and that the new one does not name. */
typedef struct obsolete {
    const char **paths;
    size_t count, capacity;
} obsolete;

static brc_status add_obsolete(brc_writer *w, obsolete *o, const char *name, brc_error *err) {
    const char *path = path_in(w, name);
    if (path == NULL) return no_memory(err);
    for (uint32_t i = 0; i < w->n_shards; i++)
        if (strcmp(w->shard_names[i], name) == 0) return BRC_OK;
    for (size_t i = 0; i < w->n_texts; i++)
        if (strcmp(w->texts[i].name, name) == 0) return BRC_OK;
    TRY(brci_room(&o->paths, &o->capacity, o->count, sizeof *o->paths, err));
    o->paths[o->count++] = path;
    return BRC_OK;
}

/* An index is only believed about .safetensors files beside it: it might name anything. */
static int is_weights(const char *name) {
    return ends_with(name, brci_safetensors_kind.ending) && strchr(name, '/') == NULL;
}

static brc_status find_obsolete(brc_writer *w, const char *old_index, obsolete *o, brc_error *err) {
    brci_index index;
    TRY(add_obsolete(w, o, BRCI_SINGLE_NAME, err));
    for (size_t i = 0; i < w->n_old; i++) TRY(add_obsolete(w, o, w->old[i], err));
    if (old_index == NULL || brci_index_read(old_index, &w->arena, &index, NULL) != BRC_OK)
        return BRC_OK; /* no index that names files */
    brc_status status = BRC_OK;
    for (size_t i = 0; i < index.n_shards && status == BRC_OK; i++) {
        if (is_weights(index.shards[i])) status = add_obsolete(w, o, index.shards[i], err);
    }
    brci_index_free(&index);
    return status;
}

static brc_status commit(brc_writer *w, brc_error *err) {
    const char *old_index = w->single != NULL || !w->overwrite ? NULL : path_in(w, BRCI_INDEX_NAME);
    obsolete o = {0};
    brc_status status = BRC_OK;
    for (size_t i = 0; i < w->n_arrays; i++) {
        const brci_declared *a = &w->arrays[i];
        int64_t written = brci_extents_bytes(&a->written);
        if (written != a->bytes)
            return brci_fail(err, BRC_ARGUMENT, 0, "%s: %lld of its %lld bytes were written", brci_clip(a->name).text,
                             (long long)written, (long long)a->bytes);
    }
    TRY(check_destination(w, err)); /* once more: it may have come to be in the meantime */
    if (old_index != NULL && !is_there(old_index, NULL)) old_index = NULL;
    if (w->single == NULL && w->overwrite) status = find_obsolete(w, old_index, &o, err);
    if (status == BRC_OK) status = brci_outputs_commit(&w->outputs, old_index, o.paths, o.count, err);
    free(o.paths);
    return status;
}

brc_status brc_writer_finish(brc_writer *w, brc_error *err) {
    brc_status status;
    if (w == NULL) return brci_fail(err, BRC_ARGUMENT, 0, "there is no writer");
    if (w->state == WRITING) status = commit(w, err);
    else
        status = brci_fail(err, BRC_ARGUMENT, 0,
                           w->state == FAILED ? "the writer has failed before" : "brc_writer_begin comes first");
    brc_writer_discard(w);
    return status;
}

void brc_writer_discard(brc_writer *w) {
    if (w == NULL) return;
    brci_outputs_discard(&w->outputs);
    brci_names_free(&w->by_name);
    brci_names_free(&w->by_key);
    brci_arena_free(&w->arena);
    for (size_t i = 0; i < w->n_arrays; i++) brci_extents_free(&w->arrays[i].written);
    free(w->arrays);
    free(w->metadata);
    free(w->texts);
    free(w->old);
    free(w->outputs_of_shards);
    free(w->shard_names);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

int64_t brc_writer_bytes(const brc_writer *w) { return w->bytes; }
