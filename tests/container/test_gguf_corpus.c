/* SPDX-License-Identifier: Apache-2.0
 * Hostile bytes as a GGUF file, for the memory checkers: each is a buffer of its exact size, cut at every byte, and
 * with single bytes changed. fuzz/fuzz_gguf.c looks for more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "container/file.h"

/* A file under construction. */
typedef struct bytes {
    uint8_t at[2048];
    size_t n;
} bytes;

static void put(bytes *b, const void *from, size_t n) {
    assert_true(b->n + n <= sizeof b->at);
    memcpy(b->at + b->n, from, n);
    b->n += n;
}

static void put32(bytes *b, uint32_t x) { put(b, &x, sizeof x); }
static void put64(bytes *b, uint64_t x) { put(b, &x, sizeof x); }

static void put_text(bytes *b, const char *text) {
    put64(b, strlen(text));
    put(b, text, strlen(text));
}

/* Every kind of pair, an array of strings, arrays of numbers, an empty tensor, blocks, a scalar. */
static bytes whole_file(void) {
    bytes b = {.n = 0};
    put(&b, "GGUF", 4);
    put32(&b, 3);
    put64(&b, 4);
    put64(&b, 15);
    for (uint32_t type = 0; type <= 12; type++) {
        const char key[] = {'k', (char)('a' + type), 0};
        static const uint8_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
        put_text(&b, key);
        put32(&b, type);
        if (type == 8) put_text(&b, "text");
        if (type == 9) put32(&b, 6), put64(&b, 2);
        for (int i = 0; i < (type == 9 ? 8 : sizes[type]); i++) put(&b, "?", 1);
    }
    put_text(&b, "names");
    put32(&b, 9);
    put32(&b, 8);
    put64(&b, 3);
    put_text(&b, "a");
    put_text(&b, "");
    put_text(&b, "ccc");
    put_text(&b, "general.alignment");
    put32(&b, 4);
    put32(&b, 16);
    put_text(&b, "w"), put32(&b, 2), put64(&b, 3), put64(&b, 2), put32(&b, 0), put64(&b, 0);   /* F32 [2,3]: 24 bytes */
    put_text(&b, "q"), put32(&b, 1), put64(&b, 32), put32(&b, 2), put64(&b, 32);               /* Q4_0 [32]: 18 */
    put_text(&b, "s"), put32(&b, 0), put32(&b, 24), put64(&b, 64);                             /* I8 []: 1 */
    put_text(&b, "z"), put32(&b, 2), put64(&b, 32), put64(&b, 0), put32(&b, 8), put64(&b, 80); /* Q8_0 [0,32] */
    while (b.n % 16 != 0) put(&b, "", 1);
    for (int i = 0; i < 80; i++) put(&b, "\1", 1);
    return b;
}

/* Reads every byte, so that a memory checker sees a read beyond the buffer. */
static void touch(const void *from, int64_t n) {
    const volatile uint8_t *at = from;
    for (int64_t i = 0; i < n; i++) (void)at[i];
}

/* Opens the bytes from a buffer without a byte to spare; touches all that was read. */
static brc_status open_exact(const uint8_t *from, size_t size) {
    uint8_t *exact = malloc(size > 0 ? size : 1);
    brc_file *file = NULL;
    brc_error err = {BRC_OK, 0, ""};
    assert_non_null(exact);
    memcpy(exact, from, size);
    const brc_status status = brci_file_of_bytes(exact, size, &file, &err);
    assert_int_equal(err.status, status);
    assert_true((file != NULL) == (status == BRC_OK));
    for (size_t i = 0; status == BRC_OK && i < brc_file_count(file); i++) {
        const brc_named_array *a = brc_file_at(file, i);
        assert_ptr_equal(brc_file_find(file, a->name), a);
        touch(a->array.data, a->bytes);
    }
    for (size_t i = 0; status == BRC_OK && i < brc_file_metadata_count(file); i++) {
        brc_value value;
        const char *key = brc_file_value_at(file, i, &value), *text = brc_file_metadata(file, key);
        assert_non_null(text);
        touch(value.bytes, value.length);
    }
    brc_file_close(file);
    free(exact);
    return status;
}

static void test_whole(void **state) {
    const bytes b = whole_file();
    (void)state;
    assert_int_equal(open_exact(b.at, b.n), BRC_OK);
}

static void test_cut_at_every_byte(void **state) {
    const bytes b = whole_file();
    (void)state;
    for (size_t cut = 0; cut < b.n - 16; cut++) assert_true(open_exact(b.at, cut) != BRC_OK);
}

static void test_every_byte_changed(void **state) {
    static const uint8_t other[] = {0, 1, 3, 8, 9, 13, 32, 127, 128, 255};
    bytes b = whole_file();
    (void)state;
    for (size_t at = 0; at < b.n - 80; at++) {
        const uint8_t kept = b.at[at];
        for (size_t i = 0; i < sizeof other; i++) {
            b.at[at] = other[i];
            (void)open_exact(b.at, b.n);
        }
        b.at[at] = kept;
    }
}

/* Lengths and counts of 64 bits, wherever they may stand. */
static void test_every_word_large(void **state) {
    static const uint64_t large[] = {UINT64_MAX, INT64_MAX, (uint64_t)1 << 62, (uint64_t)1 << 32, (uint64_t)1 << 30};
    bytes b = whole_file();
    (void)state;
    for (size_t at = 4; at + 8 < b.n - 80; at++)
        for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
            uint8_t kept[8];
            memcpy(kept, b.at + at, 8);
            memcpy(b.at + at, &large[i], 8);
            (void)open_exact(b.at, b.n);
            memcpy(b.at + at, kept, 8);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_whole), cmocka_unit_test(test_cut_at_every_byte),
                                       cmocka_unit_test(test_every_byte_changed),
                                       cmocka_unit_test(test_every_word_large)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
