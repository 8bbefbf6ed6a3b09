/* SPDX-License-Identifier: Apache-2.0
 * Limits, as the reader and ggml have them: BRCI_GGUF_NAME_MAX bytes of a name, BRCI_GGUF_RANK_MAX dimensions,
 * BRCI_GGUF_ITEMS_MAX items; arrays are aligned to at most ALIGNMENT_MAX bytes. */
#include "container/declared.h"
#include "container/gguf.h"

#include <stdlib.h>
#include <string.h>

#define ALIGNMENT_MAX (1u << 20)

static brc_status put_u32(brci_grown *b, uint32_t number, brc_error *err) {
    return brci_grow(b, &number, sizeof number, err);
}

static brc_status put_u64(brci_grown *b, uint64_t number, brc_error *err) {
    return brci_grow(b, &number, sizeof number, err);
}

static brc_status put_string(brci_grown *b, const void *text, size_t length, brc_error *err) {
    TRY(put_u64(b, length, err));
    return brci_grow(b, text, length, err);
}

static brc_status check_array(const brci_declared *a, brc_error *err) {
    if (strlen(a->name) >= BRCI_GGUF_NAME_MAX)
        return brci_fail(err, BRC_LIMIT, 0, "%s: a name of %zu bytes; GGUF allows %u", brci_clip(a->name).text,
                         strlen(a->name), BRCI_GGUF_NAME_MAX - 1);
    if (a->rank > BRCI_GGUF_RANK_MAX)
        return brci_fail(err, BRC_LIMIT, 0, "%s: %u dimensions; GGUF allows %u", brci_clip(a->name).text, a->rank,
                         BRCI_GGUF_RANK_MAX);
    if (a->bytes < 0)
        return brci_fail(err, BRC_SHAPE, 0, "%s: rows of %lld elements are no whole blocks of %u (%s)",
                         brci_clip(a->name).text, (long long)(a->rank > 0 ? a->shape[a->rank - 1] : 1),
                         a->dtype->numbers, a->dtype->word);
    return BRC_OK;
}

/* Whether the bytes of an array of strings are what its count says. */
static int are_strings(const brc_value *v) {
    const uint8_t *at = v->bytes;
    uint64_t left = (uint64_t)v->length, length;
    for (uint64_t i = 0; i < v->count; i++) {
        if (left < sizeof length) return 0;
        memcpy(&length, at, sizeof length);
        left -= sizeof length;
        if (length > left || length > BRCI_GGUF_ITEMS_MAX) return 0;
        at += sizeof length + length;
        left -= length;
    }
    return left == 0;
}

static int is_whole(const brc_value *v) {
    const unsigned size = brci_value_bytes(v->type == BRC_VALUE_ARRAY ? v->item : v->type);
    if (v->count > BRCI_GGUF_ITEMS_MAX || (v->type != BRC_VALUE_ARRAY && v->count != 1)) return 0;
    if (v->type == BRC_VALUE_STRING) return (uint64_t)v->length <= BRCI_GGUF_ITEMS_MAX;
    if (v->type == BRC_VALUE_ARRAY && v->item == BRC_VALUE_STRING) return are_strings(v);
    return size > 0 && (uint64_t)v->length == v->count * size;
}

static int alignment_of(const brc_value *v, uint32_t *alignment) {
    if (v->type != BRC_VALUE_U32) return 0;
    memcpy(alignment, v->bytes, sizeof *alignment);
    return *alignment > 0 && *alignment <= ALIGNMENT_MAX && (*alignment & (*alignment - 1)) == 0;
}

/* Keys that GGUF defines as u32 (docs/gguf.md of ggml). */
static const char *const numbers[] = {BRCI_GGUF_ALIGNMENT_KEY, "general.quantization_version", "general.file_type"};

static brc_status type_pair(brci_arena *arena, brci_pair *pair, brc_error *err) {
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers && pair->typed.type == BRC_VALUE_STRING; i++) {
        if (strcmp(numbers[i], pair->key) != 0) continue;
        char *end = NULL;
        const unsigned long long number = strtoull(pair->value, &end, 10);
        uint32_t *bytes = brci_arena_take(arena, sizeof *bytes);
        if (bytes == NULL) return brci_fail(err, BRC_MEMORY, 0, "no memory for a pair");
        if (pair->value[0] < '0' || pair->value[0] > '9' || *end != '\0' || number > UINT32_MAX)
            return brci_fail(err, BRC_ARGUMENT, 0, "metadata: %s must be a number of 32 bits", pair->key);
        *bytes = (uint32_t)number;
        pair->typed = (brc_value){
            .size = sizeof pair->typed, .type = BRC_VALUE_U32, .count = 1, .bytes = bytes, .length = sizeof *bytes};
    }
    return BRC_OK;
}

static brc_status check_pair(const brci_pair *pair, brc_error *err) {
    uint32_t alignment;
    if (pair->key[0] == '\0') return brci_fail(err, BRC_ARGUMENT, 0, "metadata: GGUF has no empty keys");
    if (!is_whole(&pair->typed))
        return brci_fail(err, BRC_ARGUMENT, 0, "metadata: the value of %s is not what its type and count say",
                         brci_clip(pair->key).text);
    if (strcmp(pair->key, BRCI_GGUF_ALIGNMENT_KEY) == 0 && !alignment_of(&pair->typed, &alignment))
        return brci_fail(err, BRC_ARGUMENT, 0, "metadata: %s must be a u32, a power of two and at most %u", pair->key,
                         ALIGNMENT_MAX);
    return BRC_OK;
}

static brc_status put_pair(brci_grown *b, const brci_pair *pair, brc_error *err) {
    const brc_value *v = &pair->typed;
    TRY(put_string(b, pair->key, strlen(pair->key), err));
    TRY(put_u32(b, v->type, err));
    if (v->type == BRC_VALUE_STRING) return put_string(b, v->bytes, (size_t)v->length, err);
    if (v->type == BRC_VALUE_ARRAY) {
        TRY(put_u32(b, v->item, err));
        TRY(put_u64(b, v->count, err));
    }
    return brci_grow(b, v->bytes, (size_t)v->length, err);
}

static brc_status put_array(brci_grown *b, const brci_declared *a, int64_t offset, brc_error *err) {
    TRY(put_string(b, a->name, strlen(a->name), err));
    TRY(put_u32(b, a->rank, err));
    for (uint32_t i = a->rank; i-- > 0;) TRY(put_u64(b, (uint64_t)a->shape[i], err));
    TRY(put_u32(b, (uint32_t)a->dtype->order, err));
    return put_u64(b, (uint64_t)offset, err);
}

static int64_t aligned(int64_t n, uint32_t alignment) { return (n + alignment - 1) / alignment * alignment; }

static brc_status header(brci_declared *const *arrays, size_t n, const brci_pair *metadata, size_t n_metadata,
                         brci_grown *b, int64_t *end, brc_error *err) {
    uint32_t alignment = BRCI_GGUF_ALIGNMENT;
    int64_t offset = 0;
    for (size_t i = 0; i < n_metadata; i++)
        if (strcmp(metadata[i].key, BRCI_GGUF_ALIGNMENT_KEY) == 0) (void)alignment_of(&metadata[i].typed, &alignment);
    TRY(brci_grow(b, BRCI_GGUF_MAGIC, 4, err));
    TRY(put_u32(b, BRCI_GGUF_VERSION, err));
    TRY(put_u64(b, n, err));
    TRY(put_u64(b, n_metadata, err));
    for (size_t i = 0; i < n_metadata; i++) TRY(put_pair(b, &metadata[i], err));
    for (size_t i = 0; i < n; i++) {
        TRY(put_array(b, arrays[i], offset, err));
        if (arrays[i]->bytes > INT64_MAX / 2 - offset)
            return brci_fail(err, BRC_OVERFLOW, 0, "the arrays of one file exceed 62 bits");
        arrays[i]->offset = offset;
        offset = aligned(offset + arrays[i]->bytes, alignment);
    }
    while (n > 0 && b->length % alignment != 0) TRY(brci_grow(b, "", 1, err));
    for (size_t i = 0; i < n; i++) arrays[i]->offset += (int64_t)b->length;
    *end = (int64_t)b->length + offset;
    return BRC_OK;
}

/* As they were declared: their addresses rise. */
static int as_declared(const void *left, const void *right) {
    const brci_declared *a = *(brci_declared *const *)left, *b = *(brci_declared *const *)right;
    if (a->shard != b->shard) return a->shard < b->shard ? -1 : 1;
    return a < b ? -1 : a > b;
}

const brci_kind brci_gguf_kind = {.name = "GGUF",
                                  .ending = ".gguf",
                                  .of_format = brci_gguf_of_format,
                                  .of_word = brci_gguf_of_word,
                                  .extent = brci_gguf_extent,
                                  .check_array = check_array,
                                  .check_pair = check_pair,
                                  .type_pair = type_pair,
                                  .order = as_declared,
                                  .header = header};
