/* SPDX-License-Identifier: Apache-2.0
 * Limits, as the reader wants them: BRCI_HEADER_MAX bytes of a header and of an index, BRCI_ENTRY_MAX bytes of JSON for
 * one array. */
#include "container/safetensors_write.h"

#include "container/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static brc_status put_text(brci_grown *t, const char *text, brc_error *err) {
    return brci_grow(t, text, strlen(text), err);
}

/* As a JSON string; Jansson knows what to escape. The text is valid UTF-8 (brc_writer_add has seen to it). */
static brc_status put_string(brci_grown *t, const char *text, brc_error *err) {
    json_t *value = json_string(text);
    char *quoted = value == NULL ? NULL : json_dumps(value, JSON_ENCODE_ANY);
    brc_status status =
        quoted == NULL ? brci_fail(err, BRC_MEMORY, 0, "no memory for a name") : put_text(t, quoted, err);
    free(quoted);
    json_decref(value);
    return status;
}

static brc_status put_number(brci_grown *t, int64_t number, brc_error *err) {
    char digits[24];
    return brci_grow(t, digits, (size_t)snprintf(digits, sizeof digits, "%lld", (long long)number), err);
}

static brc_status put_metadata(brci_grown *t, const brci_pair *metadata, size_t n, brc_error *err) {
    TRY(put_string(t, BRCI_METADATA_NAME, err));
    for (size_t i = 0; i < n; i++) {
        TRY(put_text(t, i == 0 ? ":{" : ",", err));
        TRY(put_string(t, metadata[i].key, err));
        TRY(put_text(t, ":", err));
        TRY(put_string(t, metadata[i].value, err));
    }
    return put_text(t, "}", err);
}

static brc_status put_array(brci_grown *t, const brci_declared *a, int64_t begin, brc_error *err) {
    size_t start;
    TRY(put_string(t, a->name, err));
    TRY(put_text(t, ":", err));
    start = t->length;
    TRY(put_text(t, "{\"dtype\":\"", err));
    TRY(put_text(t, a->dtype->word, err));
    TRY(put_text(t, "\",\"shape\":[", err));
    for (uint32_t i = 0; i < a->rank; i++) {
        if (i > 0) TRY(put_text(t, ",", err));
        TRY(put_number(t, a->shape[i], err));
    }
    TRY(put_text(t, "],\"data_offsets\":[", err));
    TRY(put_number(t, begin, err));
    TRY(put_text(t, ",", err));
    TRY(put_number(t, begin + a->bytes, err));
    TRY(put_text(t, "]}", err));
    if (t->length - start > BRCI_ENTRY_MAX)
        return brci_fail(err, BRC_LIMIT, 0, "%s: a shape of %u dimensions does not fit into a header",
                         brci_clip(a->name).text, a->rank);
    return BRC_OK;
}

/* The order of the Rust library's writer: largest alignment first, then by name. */
static int data_order(const void *left, const void *right) {
    const brci_declared *a = *(brci_declared *const *)left, *b = *(brci_declared *const *)right;
    if (a->shard != b->shard) return a->shard < b->shard ? -1 : 1;
    if (a->dtype->order != b->dtype->order) return a->dtype->order > b->dtype->order ? -1 : 1;
    return strcmp(a->name, b->name);
}

static int by_key(const void *left, const void *right) {
    return strcmp(((const brci_pair *)left)->key, ((const brci_pair *)right)->key);
}

static brc_status check_array(const brci_declared *a, brc_error *err) {
    if (strcmp(a->name, BRCI_METADATA_NAME) == 0)
        return brci_fail(err, BRC_ARGUMENT, 0, "%s is no name for an array", a->name);
    if (a->bytes < 0)
        return brci_fail(err, BRC_SHAPE, 0, "%s: the elements do not fill whole bytes", brci_clip(a->name).text);
    return BRC_OK;
}

static brc_status check_pair(const brci_pair *pair, brc_error *err) {
    if (pair->typed.type == BRC_VALUE_STRING) return BRC_OK;
    return brci_fail(err, BRC_UNSUPPORTED, 0,
                     "__metadata__: the value of %s is no string, and safetensors has no others",
                     brci_clip(pair->key).text);
}

/* Length and JSON, padded to 8 bytes. */
static brc_status header_text(brci_declared *const *arrays, size_t n, const brci_pair *metadata, size_t n_metadata,
                              brci_grown *t, int64_t *end, brc_error *err) {
    int64_t position = 0;
    uint64_t length;
    TRY(brci_grow(t, "\0\0\0\0\0\0\0\0", 8, err)); /* the length, once it is known */
    TRY(put_text(t, "{", err));
    if (n_metadata > 0) TRY(put_metadata(t, metadata, n_metadata, err));
    for (size_t i = 0; i < n; i++) {
        if (i > 0 || n_metadata > 0) TRY(put_text(t, ",", err));
        if (arrays[i]->bytes > INT64_MAX - 2 * BRCI_HEADER_MAX - position)
            return brci_fail(err, BRC_OVERFLOW, 0, "the arrays of one file exceed 63 bits");
        TRY(put_array(t, arrays[i], position, err));
        position += arrays[i]->bytes;
    }
    TRY(put_text(t, "}", err));
    TRY(brci_grow(t, "       ", (8 - t->length % 8) % 8, err));
    length = t->length - 8;
    if (length > BRCI_HEADER_MAX)
        return brci_fail(err, BRC_LIMIT, 0,
                         "the header would have %llu bytes (at most %d are allowed); use more shards",
                         (unsigned long long)length, BRCI_HEADER_MAX);
    memcpy(t->at, &length, sizeof length); /* little-endian, as map.c asserts */
    position = (int64_t)t->length;
    for (size_t i = 0; i < n; i++) {
        arrays[i]->offset = position;
        position += arrays[i]->bytes;
    }
    *end = position;
    return BRC_OK;
}

const brci_kind brci_safetensors_kind = {.name = "safetensors",
                                         .ending = ".safetensors",
                                         .of_format = brci_dtype_of_format,
                                         .of_word = brci_dtype_of_word,
                                         .extent = brci_dtype_extent,
                                         .check_array = check_array,
                                         .check_pair = check_pair,
                                         .order = data_order,
                                         .pair_order = by_key,
                                         .header = header_text};

brc_status brci_index_text(const brci_declared *const *arrays, size_t n, const char *const *shards, int64_t total,
                           brci_grown *t, brc_error *err) {
    TRY(put_text(t, "{\n  \"metadata\": {\n    \"total_size\": ", err));
    TRY(put_number(t, total, err));
    TRY(put_text(t, "\n  },\n  \"weight_map\": {", err));
    for (size_t i = 0; i < n; i++) {
        TRY(put_text(t, i == 0 ? "\n    " : ",\n    ", err));
        TRY(put_string(t, arrays[i]->name, err));
        TRY(put_text(t, ": ", err));
        TRY(put_string(t, shards[arrays[i]->shard], err));
    }
    TRY(put_text(t, "\n  }\n}\n", err));
    if (t->length > BRCI_HEADER_MAX)
        return brci_fail(err, BRC_LIMIT, 0, "the index would have %zu bytes (at most %d are read)", t->length,
                         BRCI_HEADER_MAX);
    return BRC_OK;
}
