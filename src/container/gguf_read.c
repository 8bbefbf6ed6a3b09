/* SPDX-License-Identifier: Apache-2.0
 * A GGUF file: magic, version, counts; key-value pairs; the arrays' names, shapes, types and offsets; then, aligned,
 * their data in the same order. Checked as ggml's own reader does (gguf.cpp); docs/gguf.md lists the rules. Limits:
 * BRCI_GGUF_ITEMS_MAX bytes of a string and items of an array; KEY_MAX bytes of a key; PAIRS_MAX pairs;
 * BRCI_GGUF_NAME_MAX bytes of a name; BRCI_GGUF_RANK_MAX dimensions; all sizes below 2^63; 2^31 arrays. */
#include "container/dtypes.h"
#include "container/gguf.h"

#include <jansson.h>
#include <string.h>

#define KEY_MAX 65535 /* as the specification says */
#define PAIRS_MAX (1 << 20)

/* The bytes of one file while they are read, from `at` on. */
typedef struct cursor {
    brc_file *file;
    const brci_map *map;
    const char *path;
    uint32_t shard;
    uint64_t at;
} cursor;

int brci_is_gguf(const brci_map *map) { return map->size >= 4 && memcmp(map->bytes, BRCI_GGUF_MAGIC, 4) == 0; }

static brc_status fail(const cursor *c, brc_status status, const char *name, const char *what, brc_error *err) {
    return brci_fail(err, status, c->at, "%s: %s%sbyte %llu: %s", brci_clip(c->path).text, brci_clip(name).text,
                     name[0] == '\0' ? "" : ": ", (unsigned long long)c->at, what);
}

static brc_status no_memory(const cursor *c, brc_error *err) {
    return brci_fail(err, BRC_MEMORY, 0, "%s: no memory for its header", brci_clip(c->path).text);
}

/* The next `length` bytes. */
static brc_status take(cursor *c, uint64_t length, const uint8_t **bytes, brc_error *err) {
    *bytes = c->map->bytes + c->at;
    if (length > (uint64_t)c->map->size - c->at)
        return fail(c, BRC_TRUNCATED, "", "the file ends within its header", err);
    c->at += length;
    return BRC_OK;
}

static brc_status take_u32(cursor *c, uint32_t *number, brc_error *err) {
    const uint8_t *bytes;
    TRY(take(c, sizeof *number, &bytes, err));
    memcpy(number, bytes, sizeof *number);
    return BRC_OK;
}

static brc_status take_u64(cursor *c, uint64_t *number, brc_error *err) {
    const uint8_t *bytes;
    TRY(take(c, sizeof *number, &bytes, err));
    memcpy(number, bytes, sizeof *number);
    return BRC_OK;
}

static brc_status take_string(cursor *c, uint64_t limit, const uint8_t **text, uint64_t *length, brc_error *err) {
    TRY(take_u64(c, length, err));
    if (*length > limit) return fail(c, BRC_LIMIT, "", "a string is longer than it may be", err);
    return take(c, *length, text, err);
}

/* A key or a name: text without NUL, for callers and for people. */
static brc_status take_name(cursor *c, uint64_t limit, const char **name, brc_error *err) {
    const uint8_t *bytes;
    uint64_t length;
    TRY(take_string(c, limit, &bytes, &length, err));
    json_t *valid = memchr(bytes, 0, length) == NULL ? json_stringn((const char *)bytes, length) : NULL;
    if (valid == NULL) return fail(c, BRC_MALFORMED, "", "a key or name is no UTF-8 text", err);
    json_decref(valid);
    *name = brci_arena_text(&c->file->arena, (const char *)bytes, length);
    return *name == NULL ? no_memory(c, err) : BRC_OK;
}

/* ------------------------------------------------------------------------------------------------- the pairs */

static brc_status take_items(cursor *c, const char *key, unsigned type, uint64_t count, brc_error *err) {
    const uint8_t *bytes;
    const unsigned size = brci_value_bytes(type);
    if (type != BRC_VALUE_STRING && size == 0)
        return fail(c, BRC_MALFORMED, key,
                    type == BRC_VALUE_ARRAY ? "an array of arrays" : "a value of an unknown type", err);
    if (count > BRCI_GGUF_ITEMS_MAX) return fail(c, BRC_LIMIT, key, "an array has too many items", err);
    if (type != BRC_VALUE_STRING) return take(c, count * size, &bytes, err);
    for (uint64_t i = 0, length; i < count; i++) TRY(take_string(c, BRCI_GGUF_ITEMS_MAX, &bytes, &length, err));
    return BRC_OK;
}

static brc_status take_value(cursor *c, const char *key, brc_value *v, brc_error *err) {
    uint32_t type, item = 0;
    const uint8_t *text;
    uint64_t start, length;
    *v = (brc_value){.size = sizeof *v, .count = 1};
    TRY(take_u32(c, &type, err));
    if (type >= BRC_VALUE_TYPE_COUNT) return fail(c, BRC_MALFORMED, key, "a value of an unknown type", err);
    v->type = (uint8_t)type;
    if (type == BRC_VALUE_STRING) {
        TRY(take_string(c, BRCI_GGUF_ITEMS_MAX, &text, &length, err));
        v->bytes = text;
        v->length = (int64_t)length;
        return BRC_OK;
    }
    if (type == BRC_VALUE_ARRAY) {
        TRY(take_u32(c, &item, err));
        TRY(take_u64(c, &v->count, err));
        if (item >= BRC_VALUE_TYPE_COUNT) return fail(c, BRC_MALFORMED, key, "an array of an unknown type", err);
        v->item = (uint8_t)item;
    }
    start = c->at;
    v->bytes = c->map->bytes + start;
    TRY(take_items(c, key, type == BRC_VALUE_ARRAY ? item : type, v->count, err));
    v->length = (int64_t)(c->at - start);
    return BRC_OK;
}

/* What a file of a split says of its place is its own; any other key twice is an error in one file, and a note between
 * two. */
static brc_status add_pair(cursor *c, const brci_pair *pair, brc_error *err) {
    uint32_t first;
    brc_status status = brci_file_add_pair(c->file, pair, &first, err);
    if (status != BRC_EXISTS) return status;
    brci_pair *earlier = &c->file->metadata[first];
    if (earlier->shard == c->shard) return fail(c, BRC_MALFORMED, pair->key, "the key is there twice", err);
    earlier->shard = c->shard;
    if (strncmp(pair->key, BRCI_GGUF_SPLIT_PREFIX, strlen(BRCI_GGUF_SPLIT_PREFIX)) == 0 ||
        strcmp(earlier->value, pair->value) == 0)
        return BRC_OK;
    return brci_note(c->file, err, c->path, "", "key \"%s\" has another value than in an earlier file", pair->key);
}

static brc_status take_alignment(const cursor *c, const brc_value *v, uint32_t *alignment, brc_error *err) {
    if (v->type != BRC_VALUE_U32) return fail(c, BRC_MALFORMED, BRCI_GGUF_ALIGNMENT_KEY, "must be a u32", err);
    memcpy(alignment, v->bytes, sizeof *alignment);
    if (*alignment == 0 || (*alignment & (*alignment - 1)) != 0)
        return fail(c, BRC_MALFORMED, BRCI_GGUF_ALIGNMENT_KEY, "must be a power of two", err);
    return BRC_OK;
}

static brc_status take_pairs(cursor *c, uint64_t count, uint32_t *alignment, brc_error *err) {
    if (count > PAIRS_MAX) return fail(c, BRC_LIMIT, "", "it claims more pairs than a file may have", err);
    for (uint64_t i = 0; i < count; i++) {
        brci_pair pair = {.shard = c->shard};
        TRY(take_name(c, KEY_MAX, &pair.key, err));
        if (pair.key[0] == '\0') return fail(c, BRC_MALFORMED, "", "an empty key", err);
        TRY(take_value(c, pair.key, &pair.typed, err));
        pair.value = brci_value_text(&c->file->arena, &pair.typed);
        if (pair.value == NULL) return no_memory(c, err);
        if (strcmp(pair.key, BRCI_GGUF_ALIGNMENT_KEY) == 0) TRY(take_alignment(c, &pair.typed, alignment, err));
        TRY(add_pair(c, &pair, err));
    }
    return BRC_OK;
}

/* ------------------------------------------------------------------------------------------------ the arrays */

/* GGUF's first dimension is the one whose elements are neighbours: the last one here. */
static brc_status take_shape(cursor *c, brc_named_array *a, brc_error *err) {
    uint64_t sides[BRCI_GGUF_RANK_MAX];
    int64_t *shape;
    TRY(take_u32(c, &a->rank, err));
    if (a->rank > BRCI_GGUF_RANK_MAX) return fail(c, BRC_MALFORMED, a->name, "more than 4 dimensions", err);
    for (uint32_t i = 0; i < a->rank; i++) TRY(take_u64(c, &sides[i], err));
    if ((shape = brci_arena_take(&c->file->arena, (a->rank + 1) * sizeof *shape)) == NULL) return no_memory(c, err);
    for (uint32_t i = 0; i < a->rank; i++) {
        if (sides[i] > INT64_MAX) return fail(c, BRC_OVERFLOW, a->name, "the shape exceeds 63 bits", err);
        shape[a->rank - 1 - i] = (int64_t)sides[i];
    }
    a->shape = shape;
    return BRC_OK;
}

static brc_status take_array(cursor *c, brc_named_array *a, int64_t *offset, brc_error *err) {
    uint32_t number;
    uint64_t position;
    int64_t elements;
    const brci_dtype *type;
    TRY(take_name(c, BRCI_GGUF_NAME_MAX - 1, &a->name, err));
    TRY(take_shape(c, a, err));
    TRY(take_u32(c, &number, err));
    if ((type = brci_gguf_of_number(number)) == NULL)
        return brci_fail(err, BRC_MALFORMED, c->at, "%s: %s: there is no type %u", brci_clip(c->path).text,
                         brci_clip(a->name).text, number);
    TRY(take_u64(c, &position, err));
    a->dtype = type->word;
    if (!brci_gguf_extent(type, a->rank, a->shape, &elements, &a->bytes))
        return fail(c, BRC_OVERFLOW, a->name, "the shape exceeds 63 bits", err);
    if (a->bytes < 0) return fail(c, BRC_MALFORMED, a->name, "a row is no whole number of blocks", err);
    if (position > INT64_MAX)
        return fail(c, BRC_MALFORMED, a->name, "its offset is not where the one before ends", err);
    *offset = (int64_t)position;
    if (type->format == BRC_NONE) {
        a->block_numbers = type->numbers;
        a->block_bytes = type->bytes;
        a->array = brc_array_of(BRC_UINT8, 1, &a->bytes, NULL);
    } else {
        a->array = brc_array_of(type->format, (int)a->rank, a->shape, NULL);
    }
    return BRC_OK;
}

/* Names, shapes and offsets come first; the data begins where they end, so arrays are placed afterwards. */
static brc_status take_arrays(cursor *c, uint64_t count, uint32_t alignment, brc_error *err) {
    const size_t first = c->file->n_arrays;
    int64_t expected = 0, offset = 0;
    for (uint64_t i = 0; i < count; i++) {
        brc_named_array a = {.shard = c->shard};
        TRY(take_array(c, &a, &offset, err));
        if (offset != expected)
            return fail(c, BRC_MALFORMED, a.name, "its offset is not where the one before ends", err);
        if (__builtin_add_overflow(expected, a.bytes, &expected) || expected > INT64_MAX - alignment)
            return fail(c, BRC_OVERFLOW, a.name, "the arrays exceed 63 bits", err);
        expected = (expected + alignment - 1) / alignment * alignment;
        TRY(brci_file_add_array(c->file, &a, err));
    }
    int64_t at = (int64_t)((c->at + alignment - 1) / alignment * alignment);
    for (size_t i = first; i < c->file->n_arrays; i++) {
        brc_named_array *a = &c->file->arrays[i];
        if (a->bytes > c->map->size - at)
            return brci_fail(err, BRC_TRUNCATED, (uint64_t)c->map->size, "%s: %s: the file ends before its data",
                             brci_clip(c->path).text, brci_clip(a->name).text);
        a->array.data = (uint8_t *)(uintptr_t)c->map->bytes + at;
        at += (a->bytes + alignment - 1) / alignment * alignment;
    }
    if (count > 0 && c->map->size > at)
        return brci_note(c->file, err, c->path, "", "%lld bytes behind the last array are not read",
                         (long long)(c->map->size - at));
    return BRC_OK;
}

static brc_status take_version(cursor *c, brc_error *err) {
    uint32_t version;
    const uint8_t *magic;
    TRY(take(c, 4, &magic, err));
    TRY(take_u32(c, &version, err));
    if ((version & 0xFFFF) == 0)
        return fail(c, BRC_UNSUPPORTED, "",
                    version == 0 ? "version 0 is none" : "a big-endian GGUF file; only little-endian ones are read",
                    err);
    if (version < 2 || version > BRCI_GGUF_VERSION)
        return brci_fail(err, BRC_UNSUPPORTED, 4, "%s: GGUF version %u; 2 and 3 are read", brci_clip(c->path).text,
                         version);
    return BRC_OK;
}

brc_status brci_gguf_read(brc_file *file, uint32_t shard, brc_error *err) {
    const brci_shard *s = &file->shards[shard];
    cursor c = {.file = file, .map = &s->map, .path = s->path, .shard = shard};
    uint64_t arrays = 0, pairs = 0;
    uint32_t alignment = BRCI_GGUF_ALIGNMENT;
    TRY(take_version(&c, err));
    TRY(take_u64(&c, &arrays, err));
    TRY(take_u64(&c, &pairs, err));
    TRY(take_pairs(&c, pairs, &alignment, err));
    return take_arrays(&c, arrays, alignment, err);
}
