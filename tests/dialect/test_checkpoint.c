/* SPDX-License-Identifier: Apache-2.0
 * Opening, loading and closing, for memory checkers; what the numbers mean is tested in Python. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "breccia/breccia_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char old_file[] = "tests/dialect/python_package_0.1.safetensors";

/* A file of `header` and `bytes` zero bytes; its path. */
static const char *made(const char *header, size_t bytes) {
    static char path[64];
    uint64_t length = strlen(header);
    snprintf(path, sizeof path, "/tmp/breccia-test-%ld.safetensors", (long)getpid());
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fwrite(&length, sizeof length, 1, file);
    fputs(header, file);
    while (bytes-- > 0) fputc(0, file);
    assert_int_equal(fclose(file), 0);
    return path;
}

static void load_all(const brc_checkpoint *c, size_t *scaled) {
    for (size_t i = 0; i < brc_checkpoint_count(c); i++) {
        const brc_entry *entry = brc_checkpoint_at(c, i);
        brc_owned owned;
        assert_ptr_equal(brc_checkpoint_find(c, entry->name), entry);
        brc_status status = brc_checkpoint_load(c, entry, &owned, NULL);
        assert_int_equal(status == BRC_OK, entry->tensor.format != BRC_NONE);
        *scaled += status == BRC_OK;
        if (status == BRC_OK) brc_release(&owned);
    }
}

static void test_every_tensor_loads(void **state) {
    (void)state;
    for (uint32_t copy = 0; copy <= 1; copy++) {
        const brc_checkpoint_options options = {.size = sizeof options, .copy = copy};
        brc_checkpoint *c;
        brc_error err;
        size_t scaled = 0;
        if (brc_checkpoint_open(old_file, &options, &c, &err) != BRC_OK) fail_msg("%s", err.text);
        assert_int_equal(brc_checkpoint_usable(c, &err), BRC_OK);
        load_all(c, &scaled);
        assert_int_equal(scaled, 12);
        brc_checkpoint_close(c);
    }
}

static void test_faults_are_findings(void **state) {
    static const struct {
        const char *header;
        size_t bytes;
        brc_status status;
    } cases[] = {
        {"{\"w.data\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"__metadata__\":{\"w.config\":\"{"
         "\\\"recipe\\\": \\\"layout\\\"\"}}",
         4, BRC_MALFORMED},
        {"{\"w\":{\"dtype\":\"F8_E4M3\",\"shape\":[2,2],\"data_offsets\":[0,4]},\"w_scale_inv\":{\"dtype\":\"F32\","
         "\"shape\":[3],\"data_offsets\":[4,16]}}",
         16, BRC_SHAPE},
        {"{\"w.qweight\":{\"dtype\":\"I32\",\"shape\":[1,1],\"data_offsets\":[0,4]}}", 4, BRC_AMBIGUOUS},
        {"{\"w.weight\":{\"dtype\":\"F8_E4M3\",\"shape\":[1,1],\"data_offsets\":[0,1]},\"w.weight_scale\":{\"dtype\":"
         "\"U8\",\"shape\":[1],\"data_offsets\":[1,2]},"
         "\"w.weight_scale_inv\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}",
         3, BRC_AMBIGUOUS},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = made(cases[i].header, cases[i].bytes);
        brc_checkpoint *c;
        brc_error err;
        size_t scaled = 0;
        if (brc_checkpoint_open(path, NULL, &c, &err) != BRC_OK) fail_msg("%s", err.text);
        assert_int_equal(brc_checkpoint_usable(c, &err), cases[i].status);
        assert_true(brc_checkpoint_findings(c) > 0);
        load_all(c, &scaled);
        assert_int_equal(scaled, 0);
        brc_checkpoint_close(c);
        unlink(path);
    }
}

static void test_arguments(void **state) {
    const brc_checkpoint_options unknown = {.size = sizeof unknown, .dialect = 1 + BRC_DIALECT_COUNT};
    brc_checkpoint *c = (brc_checkpoint *)&c;
    (void)state;
    assert_int_equal(brc_checkpoint_open(NULL, NULL, &c, NULL), BRC_ARGUMENT);
    assert_int_equal(brc_checkpoint_open(old_file, NULL, NULL, NULL), BRC_ARGUMENT);
    assert_int_equal(brc_checkpoint_open(old_file, &unknown, &c, NULL), BRC_ARGUMENT);
    for (unsigned i = 0; i < BRC_DIALECT_COUNT; i++) { /* one that is not read yet, if there is any */
        const brc_checkpoint_options unread = {.size = sizeof unread, .dialect = 1 + i};
        if (!brc_dialect_get((brc_dialect)i)->reads)
            assert_int_equal(brc_checkpoint_open(old_file, &unread, &c, NULL), BRC_UNSUPPORTED);
    }
    assert_null(c);
    assert_int_equal(brc_checkpoint_open("/nonexistent", NULL, &c, NULL) != BRC_OK, 1);
    assert_null(c);
    brc_checkpoint_close(NULL);
    assert_int_equal(brc_dialect_find("deepseek"), BRC_DIALECT_DEEPSEEK);
    assert_int_equal(brc_dialect_find(NULL), BRC_DIALECT_COUNT);
    assert_null(brc_dialect_get(BRC_DIALECT_COUNT));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_tensor_loads),
        cmocka_unit_test(test_faults_are_findings),
        cmocka_unit_test(test_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
