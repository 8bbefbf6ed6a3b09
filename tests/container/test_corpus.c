/* SPDX-License-Identifier: Apache-2.0
 * Hostile bytes as a safetensors file, for the memory checkers: each is a buffer of its exact size, cut at every byte,
 * and with single bytes changed. fuzz/ looks for more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "container/file.h"

#define ENTRY "{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]"

typedef struct sample {
    const char *header; /* 4 bytes of data follow */
    brc_status status;
} sample;

static const sample samples[] = {
    {"{\"a\":" ENTRY "}}", BRC_OK},
    {"{\"__metadata__\":{\"k\":\"v\",\"\":\"\\u0001\"},\"a\":" ENTRY ",\"x\":[1.5,null,{\"y\":\"\\ud83d\\ude00\"}]}} ",
     BRC_OK},
    {"{\"\":{\"dtype\":\"F4\",\"shape\":[2,4],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F64\",\"shape\":[0],"
     "\"data_offsets\":[4,4]}}",
     BRC_OK},
    {"", BRC_MALFORMED},
    {"{", BRC_MALFORMED},
    {"{}", BRC_MALFORMED},
    {"[]", BRC_MALFORMED},
    {"{\"", BRC_MALFORMED},
    {"{\"a\\", BRC_MALFORMED},
    {"{\"a\\\"", BRC_MALFORMED},
    {"{\"a\":", BRC_MALFORMED},
    {"{\"a\":\"", BRC_MALFORMED},
    {"{\"a\":{", BRC_MALFORMED},
    {"{\"a\":{\"\\", BRC_MALFORMED},
    {"{\"a\":{\"dtype\":\"U8\\", BRC_MALFORMED},
    {"{\"a\":-0", BRC_MALFORMED},
    {"{\"a\":{\"x\":-0", BRC_MALFORMED},
    {"{\"a\":{}}}", BRC_MALFORMED},
    {"{\"a\":" ENTRY "}}}", BRC_MALFORMED},
    {"{\"a\":" ENTRY "]}", BRC_MALFORMED},
    {"{\"a\":" ENTRY ",\"x\":\"\xff\"}}", BRC_MALFORMED},
    {"{\"a\xc0\xaf\":" ENTRY "}}", BRC_MALFORMED},
    {"{\"a\\ud800\":" ENTRY "}}", BRC_MALFORMED},
    {"{\"a\\u0000b\":" ENTRY "}}", BRC_MALFORMED},
    {"{\"a\":" ENTRY "},\"a\":" ENTRY "}}", BRC_MALFORMED},
    {"{\"a\":" ENTRY "},\"b\":" ENTRY "}}", BRC_MALFORMED},
    {"{\"a\":" ENTRY ",\"dtype\":\"U8\"}}", BRC_MALFORMED},
    {"{\"__metadata__\":null,\"__metadata__\":null,\"a\":" ENTRY "}}", BRC_MALFORMED},
    {"{\"__metadata__\":nul,\"a\":" ENTRY "}}", BRC_MALFORMED},
    {"{\"__metadata__\":{\"k\":1},\"a\":" ENTRY "}}", BRC_MALFORMED},
    {"{\"__metadata__\":{\"k\":\"v\",\"k\":\"v\"},\"a\":" ENTRY "}}", BRC_MALFORMED},
    {"{\"a\":{\"dtype\":\"U\\u00008\",\"shape\":[4],\"data_offsets\":[0,4]}}", BRC_MALFORMED},
    {"{\"a\":{\"dtype\":\"I4\",\"shape\":[8],\"data_offsets\":[0,4]}}", BRC_MALFORMED},
    {"{\"a\":{\"dtype\":\"F4\",\"shape\":[7],\"data_offsets\":[0,4]}}", BRC_MALFORMED},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[-4],\"data_offsets\":[0,4]}}", BRC_MALFORMED},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4.0],\"data_offsets\":[0,4]}}", BRC_MALFORMED},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4,4]}}", BRC_MALFORMED},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,0]}}", BRC_MALFORMED},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}", BRC_MALFORMED},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[5],\"data_offsets\":[0,5]}}", BRC_TRUNCATED},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[9223372036854775807],\"data_offsets\":[0,9223372036854775807]}}",
     BRC_OVERFLOW},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[9223372036854775808],\"data_offsets\":[0,4]}}", BRC_MALFORMED},
    {"{\"a\":{\"dtype\":\"U64\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]}}", BRC_OVERFLOW},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0,4294967296,4294967296],\"data_offsets\":[0,0]}}", BRC_OVERFLOW},
};

/* Opens the bytes from a buffer without a byte to spare; touches all that was read. */
static brc_status open_exact(const uint8_t *bytes, size_t size) {
    uint8_t *exact = malloc(size > 0 ? size : 1);
    brc_file *file = NULL;
    brc_error err = {BRC_OK, 0, ""};
    brc_status status;
    uint64_t sum = 0;
    assert_non_null(exact);
    memcpy(exact, bytes, size);
    status = brci_file_of_bytes(exact, size, &file, &err);
    assert_int_equal(err.status, status);
    for (size_t i = 0; status == BRC_OK && i < brc_file_count(file); i++) {
        const brc_named_array *a = brc_file_at(file, i);
        assert_ptr_equal(brc_file_find(file, a->name), a);
        for (int64_t k = 0; k < a->bytes; k++) sum += ((const uint8_t *)a->array.data)[k];
    }
    if (status == BRC_OK) assert_in_range(sum, 0, 4 * 255);
    else assert_null(file);
    brc_file_close(file);
    free(exact);
    return status;
}

static size_t file_of(const char *header, uint8_t bytes[1024]) {
    uint64_t length = strlen(header);
    assert_true(length < 1000);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, header, length);
    memcpy(bytes + 8 + length, "abcd", 4);
    return 12 + length;
}

static void test_verdicts(void **state) {
    uint8_t bytes[1024];
    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        size_t size = file_of(samples[i].header, bytes);
        brc_status status = open_exact(bytes, size);
        if (status != samples[i].status) print_error("%s\n", samples[i].header);
        assert_int_equal(status, samples[i].status);
    }
}

/* The header's length follows the cut in the second round, so that the JSON ends early rather than the file. */
static void test_cut_at_every_byte(void **state) {
    uint8_t bytes[1024];
    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        size_t size = file_of(samples[i].header, bytes);
        for (size_t cut = 0; cut < size; cut++)
            assert_true(open_exact(bytes, cut) != BRC_OK || samples[i].status != BRC_OK);
        for (uint64_t length = 0; length < size - 12; length++) {
            memcpy(bytes, &length, 8);
            open_exact(bytes, 8 + (size_t)length);
            open_exact(bytes, size);
        }
    }
}

static void test_every_byte_changed(void **state) {
    static const char letters[] = "\0\1\"\\{}[]:,-0 \x80\xff";
    uint8_t bytes[1024];
    (void)state;
    for (size_t i = 0; i < 3; i++) { /* the whole ones */
        size_t size = file_of(samples[i].header, bytes);
        for (size_t at = 0; at < size; at++) {
            uint8_t kept = bytes[at];
            for (size_t k = 0; k < sizeof letters; k++) {
                bytes[at] = (uint8_t)letters[k];
                open_exact(bytes, size);
            }
            bytes[at] = kept;
        }
    }
}

static void test_deep(void **state) {
    enum { LEVELS = 200000 };
    size_t size = 8 + 5 + LEVELS;
    uint8_t *bytes = malloc(size);
    uint64_t length = size - 8;
    (void)state;
    assert_non_null(bytes);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, "{\"a\":", 5);
    memset(bytes + 13, '[', LEVELS);
    assert_int_equal(open_exact(bytes, size), BRC_LIMIT);
    memcpy(bytes + 13, "{\"x\":", 5);
    assert_int_equal(open_exact(bytes, size), BRC_LIMIT);
    free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_cut_at_every_byte),
        cmocka_unit_test(test_every_byte_changed),
        cmocka_unit_test(test_deep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
