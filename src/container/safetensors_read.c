/* SPDX-License-Identifier: Apache-2.0
 *
 * A safetensors file: 8 bytes little-endian length, a JSON header of that length, the arrays without gaps to the end.
 * Source: safetensors/src/tensor.rs of huggingface/safetensors; the rules are listed in docs/safetensors.md.
 * Limits: BRCI_HEADER_MAX bytes of header, as the library; BRCI_ENTRY_MAX bytes of JSON for one array, so that the tree
 * that Jansson builds of it stays small; all sizes below 2^63; 2^31 arrays. JSON depth: json.c. */
#include "container/dtypes.h"
#include "container/file.h"
#include "container/json.h"
#include "container/safetensors.h"

#include <stdlib.h>
#include <string.h>

typedef struct entry {
    const char *name;
    const brci_dtype *dtype;
    const int64_t *shape;
    int64_t begin, end;
    uint32_t rank, position;
} entry;

/* The header of one shard while it is read. */
typedef struct header {
    brc_file *file;
    const char *path;
    uint32_t shard;
    entry *entries;
    size_t count, capacity;
    int has_metadata;
} header;

static brc_status no_memory(const header *h, brc_error *err) {
    return brci_fail(err, BRC_MEMORY, 0, "%s: no memory for its header", brci_clip(h->path).text);
}

static brc_status fail(const header *h, const entry *e, const char *what, brc_error *err) {
    return brci_fail(err, BRC_MALFORMED, 0, "%s: %s: %s", brci_clip(h->path).text, brci_clip(e->name).text, what);
}

/* A key twice in one header is an error, in two shards a note where the values differ. */
static brc_status add_pair(header *h, brci_json key, const brci_pair *pair, brc_error *err) {
    brc_file *file = h->file;
    uint32_t first;
    brc_status status = brci_file_add_pair(file, pair, &first, err);
    if (status == BRC_EXISTS) {
        brci_pair *earlier = &file->metadata[first];
        if (earlier->shard == pair->shard) return brci_json_fail(key, "a key is twice in __metadata__", err);
        earlier->shard = pair->shard;
        if (strcmp(earlier->value, pair->value) == 0) return BRC_OK;
        return brci_note(file, err, h->path, "", "__metadata__ key \"%s\" has another value than in an earlier shard",
                         pair->key);
    }
    return status;
}

static brc_status read_metadata(header *h, brci_json text, brc_error *err) {
    brci_json_walk walk;
    brci_json_member member;
    TRY(brci_json_walk_object(&walk, text, 2, err));
    for (;;) {
        brci_pair pair = {.shard = h->shard};
        int more;
        TRY(brci_json_next(&walk, &member, &more, err));
        if (!more) return BRC_OK;
        TRY(brci_json_string(member.key, &h->file->arena, &pair.key, err));
        TRY(brci_json_string(member.value, &h->file->arena, &pair.value, err));
        pair.typed = (brc_value){.size = sizeof pair.typed,
                                 .type = BRC_VALUE_STRING,
                                 .count = 1,
                                 .bytes = pair.value,
                                 .length = (int64_t)strlen(pair.value)};
        TRY(add_pair(h, member.key, &pair, err));
    }
}

/* An array of non-negative integers, into `numbers`, which has room for all of them. */
static brc_status read_sizes(const header *h, const entry *e, const json_t *array, int64_t *numbers, brc_error *err) {
    size_t i;
    json_t *item;
    json_array_foreach(array, i, item) {
        if (!json_is_integer(item) || json_integer_value(item) < 0)
            return fail(h, e, "shape and data_offsets hold non-negative integers", err);
        numbers[i] = json_integer_value(item);
    }
    return BRC_OK;
}

static brc_status read_fields(header *h, entry *e, const json_t *value, brc_error *err) {
    const json_t *word = json_object_get(value, "dtype"), *shape = json_object_get(value, "shape"),
                 *offsets = json_object_get(value, "data_offsets");
    int64_t range[2], *dimensions;
    if (!json_is_string(word) || !json_is_array(shape) || !json_is_array(offsets) || json_array_size(offsets) != 2)
        return fail(h, e, "needs \"dtype\": string, \"shape\": [..] and \"data_offsets\": [begin, end]", err);
    e->dtype = strlen(json_string_value(word)) == json_string_length(word) ? brci_dtype_of_word(json_string_value(word))
                                                                           : NULL;
    if (e->dtype == NULL)
        return brci_fail(err, BRC_MALFORMED, 0, "%s: %s: unknown dtype %.40s", brci_clip(h->path).text,
                         brci_clip(e->name).text, json_string_value(word));
    e->rank = (uint32_t)json_array_size(shape); /* ENTRY_MAX bounds it */
    dimensions = brci_arena_take(&h->file->arena, e->rank * sizeof *dimensions);
    if (dimensions == NULL) return no_memory(h, err);
    TRY(read_sizes(h, e, shape, dimensions, err));
    TRY(read_sizes(h, e, offsets, range, err));
    e->shape = dimensions;
    e->begin = range[0];
    e->end = range[1];
    return BRC_OK;
}

/* Jansson reads -0 as the integer 0, where the library sees a float. */
static int has_minus_zero(brci_json text) {
    int in_string = 0;
    for (size_t i = 0; i + 2 < text.length; i++) {
        if (in_string && text.at[i] == '\\') i++;
        else if (text.at[i] == '"') in_string = !in_string;
        else if (!in_string && text.at[i] == '-' && text.at[i + 1] == '0' && strchr(".eE", text.at[i + 2]) == NULL)
            return 1;
    }
    return 0;
}

static brc_status read_entry(header *h, const char *name, brci_json text, brc_error *err) {
    entry e = {.name = name, .position = (uint32_t)h->count};
    json_t *value = NULL;
    brc_status status;
    if (h->count >= INT32_MAX)
        return brci_fail(err, BRC_LIMIT, 0, "%s: more than 2^31 arrays", brci_clip(h->path).text);
    if (text.length == 0 || text.at[0] != '{')
        return brci_json_fail(text, "the entry of an array is a JSON object", err);
    if (has_minus_zero(text)) return brci_json_fail(text, "-0 is not an integer", err);
    TRY(brci_json_load(text, BRCI_ENTRY_MAX, &value, err));
    status = read_fields(h, &e, value, err);
    json_decref(value);
    TRY(status);
    TRY(brci_room(&h->entries, &h->capacity, h->count, sizeof e, err));
    h->entries[h->count++] = e;
    return BRC_OK;
}

static brc_status read_members(header *h, brci_json text, brc_error *err) {
    brci_json_walk walk;
    brci_json_member member;
    TRY(brci_json_walk_object(&walk, text, 1, err));
    for (;;) {
        const char *name = NULL;
        int more;
        TRY(brci_json_next(&walk, &member, &more, err));
        if (!more) return BRC_OK;
        TRY(brci_json_string(member.key, &h->file->arena, &name, err));
        if (strcmp(name, BRCI_METADATA_NAME) != 0) {
            TRY(read_entry(h, name, member.value, err));
        } else if (h->has_metadata) {
            return brci_json_fail(member.key, "__metadata__ is there twice", err);
        } else {
            h->has_metadata = 1;
            if (member.value.length >= 4 && memcmp(member.value.at, "null", 4) == 0) {
                json_t *null = NULL;
                TRY(brci_json_load(member.value, BRCI_ENTRY_MAX, &null, err));
                json_decref(null);
            } else {
                TRY(read_metadata(h, member.value, err));
            }
        }
    }
}

static int by_offset(const void *left, const void *right) {
    const entry *a = left, *b = right;
    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    if (a->end != b->end) return a->end < b->end ? -1 : 1;
    return a->position < b->position ? -1 : 1;
}

/* A view of what the file has; flat where brc_array has no such shape. */
static brc_array view_of(const entry *e, int64_t elements, uint8_t *bytes) {
    int bits = brc_format_get(e->dtype->format)->bits;
    int whole_rows = bits % 8 == 0 || e->rank == 0 || e->shape[e->rank - 1] % 8 * bits % 8 == 0;
    if (e->rank <= BRC_MAX_RANK && whole_rows) return brc_array_of(e->dtype->format, (int)e->rank, e->shape, bytes);
    return brc_array_of(e->dtype->format, 1, &elements, bytes);
}

/* Checks that the arrays tile the data from its first byte to its last, and adds them to the file. */
static brc_status add_arrays(header *h, int64_t data_offset, brc_error *err) {
    brc_file *file = h->file;
    const brci_map *map = &file->shards[h->shard].map;
    int64_t position = 0, size = map->size - data_offset;
    if (h->count > 1) qsort(h->entries, h->count, sizeof *h->entries, by_offset);
    for (size_t i = 0; i < h->count; i++) {
        const entry *e = &h->entries[i];
        int64_t elements, bytes;
        TRY(brci_file_add_array(file, &(brc_named_array){.name = e->name, .shard = h->shard}, err));
        if (e->begin != position || e->end < e->begin)
            return fail(h, e, "data_offsets leave a hole, overlap or run backwards", err);
        if (!brci_dtype_extent(e->dtype, e->rank, e->shape, &elements, &bytes))
            return brci_fail(err, BRC_OVERFLOW, 0, "%s: %s: the shape exceeds 63 bits", brci_clip(h->path).text,
                             brci_clip(e->name).text);
        if (bytes < 0) return fail(h, e, "the elements do not fill whole bytes", err);
        if (bytes != e->end - e->begin) return fail(h, e, "data_offsets do not fit dtype and shape", err);
        if (e->end > size)
            return brci_fail(err, BRC_TRUNCATED, (uint64_t)map->size, "%s: %s: the file ends before its data",
                             brci_clip(h->path).text, brci_clip(e->name).text);
        position = e->end;
        brc_named_array *a = &file->arrays[file->n_arrays - 1];
        *a = (brc_named_array){.name = e->name,
                               .dtype = e->dtype->word,
                               .bytes = bytes,
                               .shard = h->shard,
                               .rank = e->rank,
                               .shape = e->shape};
        a->array = view_of(e, elements, (uint8_t *)(uintptr_t)map->bytes + data_offset + e->begin);
    }
    if (position != size)
        return brci_fail(err, BRC_MALFORMED, (uint64_t)(data_offset + position), "%s: %lld bytes behind the last array",
                         brci_clip(h->path).text, (long long)(size - position));
    return BRC_OK;
}

static brc_status header_length(const char *path, const brci_map *map, int64_t *length, brc_error *err) {
    uint64_t n;
    if (map->size < (int64_t)sizeof n)
        return brci_fail(err, BRC_TRUNCATED, (uint64_t)map->size, "%s: %lld bytes are no safetensors file",
                         brci_clip(path).text, (long long)map->size);
    memcpy(&n, map->bytes, sizeof n);
    if (n > BRCI_HEADER_MAX)
        return brci_fail(err, BRC_LIMIT, 0, "%s: no safetensors file: a header of %llu bytes (at most %d are allowed)",
                         brci_clip(path).text, (unsigned long long)n, BRCI_HEADER_MAX);
    if ((int64_t)n > map->size - (int64_t)sizeof n)
        return brci_fail(err, BRC_TRUNCATED, (uint64_t)map->size, "%s: the file ends before its header of %llu bytes",
                         brci_clip(path).text, (unsigned long long)n);
    *length = (int64_t)n;
    return BRC_OK;
}

brc_status brci_safetensors_read(brc_file *file, uint32_t shard, brc_error *err) {
    const brci_shard *s = &file->shards[shard];
    header h = {.file = file, .path = s->path, .shard = shard};
    int64_t length = 0;
    brc_status status;
    TRY(header_length(s->path, &s->map, &length, err));
    status = read_members(&h, (brci_json){s->path, (const char *)s->map.bytes + 8, (size_t)length, 8}, err);
    if (status == BRC_OK) status = add_arrays(&h, 8 + length, err);
    free(h.entries);
    return status;
}
