/* SPDX-License-Identifier: Apache-2.0
 * A checkpoint of one tensor through every recipe and back, for memory checkers; the numbers are tested in Python. */
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

enum { ROWS = 9, COLS = 70 };

static char folder[] = "/tmp/breccia-convert-XXXXXX";
static char paths[3][64]; /* plain, low precision, back */
enum { PLAIN, LOW, BACK };

static void check(brc_status status, const brc_error *err) {
    if (status != BRC_OK) fail_msg("%s", err->text);
}

static void write_source(float first) {
    const int64_t shape[] = {ROWS, COLS};
    const brc_write_options options = {.size = sizeof options, .overwrite = 1};
    float x[ROWS * COLS];
    brc_writer *writer;
    brc_error err;
    size_t weight, norm;
    for (int i = 0; i < ROWS * COLS; i++) x[i] = (float)(i % 13 - 6) * 0.01f;
    x[0] = first;
    check(brc_writer_new(paths[PLAIN], &options, &writer, &err), &err);
    check(brc_writer_add(writer, "w.weight", BRC_F32, 2, shape, 0, &weight, &err), &err);
    check(brc_writer_add(writer, "norm", BRC_F32, 1, shape, 0, &norm, &err), &err);
    check(brc_writer_metadata(writer, "format", "pt", &err), &err);
    check(brc_writer_begin(writer, &err), &err);
    check(brc_writer_write(writer, weight, 0, x, sizeof x, &err), &err);
    check(brc_writer_write(writer, norm, 0, x, ROWS * sizeof *x, &err), &err);
    check(brc_writer_finish(writer, &err), &err);
}

static brc_checkpoint *opened(int which) {
    brc_checkpoint *c;
    brc_error err;
    check(brc_checkpoint_open(paths[which], NULL, &c, &err), &err);
    return c;
}

static brc_status quantize(const brc_recipe *recipe, brc_dialect dialect, brc_progress progress, uint32_t overwrite,
                           brc_error *err) {
    const brc_quantize_options options = {
        .size = sizeof options, .recipe = recipe, .dialect = dialect, .overwrite = overwrite, .progress = progress};
    brc_checkpoint *c = opened(PLAIN);
    brc_status status = brc_quantize_checkpoint(c, paths[LOW], &options, err);
    brc_checkpoint_close(c);
    return status;
}

static void dequantize(void) {
    const brc_dequantize_options options = {.size = sizeof options, .format = BRC_F32, .overwrite = 1};
    brc_checkpoint *c = opened(LOW);
    brc_error err;
    check(brc_dequantize_checkpoint(c, paths[BACK], &options, &err), &err);
    brc_checkpoint_close(c);
}

static void count(void *user, const brc_finding *finding) { *(int *)user += finding->severity > BRC_NOTE; }

static void compare_and_verify(void) {
    brc_checkpoint *plain = opened(PLAIN), *low = opened(LOW), *back = opened(BACK);
    brc_difference direct, through;
    brc_error err;
    int findings = 0;
    check(brc_compare_checkpoints(plain, low, 1, NULL, NULL, NULL, &direct, &err), &err);
    check(brc_compare_checkpoints(plain, back, 1, NULL, NULL, NULL, &through, &err), &err);
    check(brc_verify_checkpoint(low, 1, count, &findings, &err), &err);
    assert_int_equal(findings, 0);
    assert_true(direct.quantized && !through.quantized && direct.sqnr > 10);
    assert_true(direct.noise >= through.noise && direct.noise <= through.noise); /* what is kept adds nothing */
    brc_checkpoint_close(plain);
    brc_checkpoint_close(low);
    brc_checkpoint_close(back);
}

static void test_every_recipe(void **state) {
    (void)state;
    write_source(0.05f);
    for (unsigned i = 0; i < BRC_RECIPE_COUNT; i++) {
        brc_error err;
        check(quantize(&brc_recipe_get((brc_recipe_id)i)->recipe, BRC_DIALECT_BRECCIA, NULL, 1, &err), &err);
        dequantize();
        compare_and_verify();
    }
}

static int stop(void *user, int64_t done, int64_t total, const char *tensor) {
    (void)user;
    (void)done;
    (void)total;
    return tensor != NULL;
}

static void test_failures_leave_nothing(void **state) {
    const brc_recipe *fp8 = &brc_recipe_get(BRC_RECIPE_FP8)->recipe, *int4 = &brc_recipe_get(BRC_RECIPE_INT4)->recipe;
    brc_error err;
    (void)state;
    unlink(paths[LOW]);
    write_source(0.05f);
    assert_int_equal(quantize(fp8, BRC_DIALECT_BRECCIA, stop, 0, &err), BRC_CANCELLED);
    assert_int_equal(quantize(int4, BRC_DIALECT_DEEPSEEK, NULL, 0, &err), BRC_UNSUPPORTED);
    assert_int_equal(quantize(fp8, BRC_DIALECT_GPTQ, NULL, 0, &err), BRC_UNSUPPORTED);
    assert_int_equal(quantize(NULL, BRC_DIALECT_BRECCIA, NULL, 0, &err), BRC_ARGUMENT);
    write_source(__builtin_nanf(""));
    assert_int_equal(quantize(fp8, BRC_DIALECT_BRECCIA, NULL, 0, &err), BRC_NONFINITE);
    assert_non_null(strstr(err.text, "w.weight"));
    assert_int_not_equal(access(paths[LOW], F_OK), 0);
}

static int begin(void **state) {
    static const char *const names[] = {"plain", "low", "back"};
    (void)state;
    if (mkdtemp(folder) == NULL) return -1;
    for (int i = 0; i < 3; i++) snprintf(paths[i], sizeof paths[i], "%s/%s.safetensors", folder, names[i]);
    return 0;
}

/* The folder must be empty but for the three files: nothing temporary is left behind. */
static int end(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) unlink(paths[i]);
    return rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_recipe),
                                       cmocka_unit_test(test_failures_leave_nothing)};
    return cmocka_run_group_tests(tests, begin, end);
}
