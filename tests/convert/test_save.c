/* SPDX-License-Identifier: Apache-2.0
 * Tensors in memory as the arrays of a dialect and as checkpoints: every recipe in every dialect comes back or is
 * refused, and what a caller may get wrong is refused and leaves nothing behind. */
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

enum { ROWS = 32, COLS = 256 };

static char folder[] = "/tmp/breccia-save-XXXXXX";
static float numbers[ROWS * COLS];

static void check(brc_status status, const brc_error *err) {
    if (status != BRC_OK) fail_msg("%s", err->text);
}

static void path_of(char path[96], const char *name) { snprintf(path, 96, "%s/%s", folder, name); }

static void cast(const char *recipe_text, brc_owned *owned) {
    const int64_t shape[] = {ROWS, COLS};
    const brc_array array = brc_array_of(BRC_F32, 2, shape, numbers);
    brc_recipe recipe;
    brc_error err;
    check(brc_recipe_parse(recipe_text, &recipe, &err), &err);
    recipe.partial = 1;
    check(brc_cast_new(&array, &recipe, NULL, NULL, owned, NULL, &err), &err);
}

static void values_of(const brc_tensor *tensor, float *values) {
    brc_array array = brc_array_of(BRC_F32, 2, tensor->shape, values);
    brc_error err;
    check(brc_dequantize(tensor, NULL, &array, &err), &err);
}

/* What saving may leave in a folder. */
static void clean(const char *path) {
    static const char *const names[] = {"model.safetensors",    "config.json",       "hf_quant_config.json",
                                        "quantize_config.json", "quant_config.json", NULL};
    char name[128];
    for (int i = 0; names[i] != NULL; i++) {
        snprintf(name, sizeof name, "%s/%s", path, names[i]);
        unlink(name);
    }
    unlink(path);
    rmdir(path);
    assert_int_not_equal(access(path, F_OK), 0);
}

/* ----------------------------------------------------------------------------------------------- there and back */

typedef struct seen {
    size_t arrays, texts;
    unsigned sum;
} seen;

static brc_status see_array(void *user, size_t item, const brc_named_array *array) {
    seen *s = user;
    assert_int_equal(item, 0);
    assert_true(array->name[0] != '\0' && array->dtype != NULL && array->bytes >= 0);
    for (int64_t i = 0; i < array->bytes; i++) s->sum += ((const uint8_t *)array->array.data)[i];
    s->arrays++;
    return BRC_OK;
}

static brc_status see_text(void *user, const char *file, const char *member, const char *text) {
    seen *s = user;
    assert_true((file != NULL || member != NULL) && text[0] != '\0');
    s->texts++;
    return BRC_OK;
}

static void read_again(const char *path, const brc_tensor *tensor) {
    static float before[ROWS * COLS], after[ROWS * COLS];
    brc_checkpoint *c;
    brc_owned again;
    brc_error err;
    check(brc_checkpoint_open(path, NULL, &c, &err), &err);
    check(brc_checkpoint_usable(c, &err), &err);
    check(brc_checkpoint_load(c, brc_checkpoint_find(c, "w.weight"), &again, &err), &err);
    values_of(tensor, before);
    values_of(&again.tensor, after);
    for (int i = 0; i < ROWS * COLS; i++) /* the reciprocal of a divisor is rounded */
        assert_true(before[i] - after[i] <= 0x5p-24f * (before[i] < 0 ? -before[i] : before[i]) &&
                    after[i] - before[i] <= 0x5p-24f * (before[i] < 0 ? -before[i] : before[i]));
    brc_release(&again);
    brc_checkpoint_close(c);
}

/* Whether it is stored. */
static int there_and_back(brc_dialect dialect, const char *recipe) {
    const brc_sink sink = {.size = sizeof sink, .array = see_array, .text = see_text, .user = &(seen){0}};
    const seen *s = sink.user;
    brc_owned owned;
    brc_error err;
    char path[96];
    cast(recipe, &owned);
    const brc_item item = {.name = "w.weight", .scaled = &owned.tensor};
    const brc_status status = brc_checkpoint_arrays(dialect, &item, 1, &sink, &err);
    path_of(path, dialect == BRC_DIALECT_GGUF ? "model.gguf" : "model");
    assert_int_equal(brc_checkpoint_save(path, dialect, &item, 1, NULL, &err), status);
    if (status == BRC_OK) {
        assert_true(s->arrays > 0);
        read_again(path, &owned.tensor);
        assert_int_equal(brc_checkpoint_save(path, dialect, &item, 1, NULL, &err), BRC_EXISTS);
        clean(path);
    } else {
        assert_int_equal(status, BRC_UNSUPPORTED);
        assert_non_null(strstr(err.text, "w.weight"));
        assert_int_not_equal(access(path, F_OK), 0);
    }
    brc_release(&owned);
    return status == BRC_OK;
}

static void test_every_recipe_in_every_dialect(void **state) {
    (void)state;
    for (unsigned d = BRC_DIALECT_BRECCIA; d < BRC_DIALECT_COUNT; d++) {
        if (!brc_dialect_get((brc_dialect)d)->writes) continue;
        int stored = 0;
        for (unsigned i = 0; i < BRC_RECIPE_COUNT; i++)
            stored += there_and_back((brc_dialect)d, brc_recipe_get((brc_recipe_id)i)->name);
        for (size_t i = 0; brc_dialect_recipe((brc_dialect)d, i) != NULL; i++)
            stored += there_and_back((brc_dialect)d, brc_dialect_recipe((brc_dialect)d, i));
        assert_true(stored > 0);
    }
}

/* ------------------------------------------------------------------------------------------------------ refusals */

/* It must leave nothing behind where it fails. */
static brc_status save(const char *name, brc_dialect dialect, const brc_item *items, size_t n,
                       const brc_save_options *options) {
    brc_error err = {BRC_OK, 0, ""};
    char path[96];
    path_of(path, name);
    const brc_status status = brc_checkpoint_save(path, dialect, items, n, options, &err);
    if (status != BRC_OK) {
        assert_true(err.status == status && err.text[0] != '\0' && strchr(err.text, '\n') == NULL);
        assert_int_not_equal(access(path, F_OK), 0);
    }
    return status;
}

static void test_arguments(void **state) {
    const int64_t shape[] = {ROWS, COLS};
    const brc_array plain = brc_array_of(BRC_F32, 2, shape, numbers);
    const brc_save_options old = {.size = 4}, pairs = {.size = sizeof pairs, .n_metadata = 1},
                           text = {.size = sizeof text, .config = "[1]"};
    brc_owned owned;
    brc_error err;
    (void)state;
    cast("fp8-block128", &owned);
    brc_item both[2] = {{.name = "w.weight", .scaled = &owned.tensor}, {.name = "norm", .plain = &plain}},
             item = both[0];
    assert_int_equal(brc_checkpoint_save(NULL, BRC_DIALECT_BRECCIA, &item, 1, NULL, &err), BRC_ARGUMENT);
    assert_int_equal(save("a", BRC_DIALECT_BRECCIA, &item, 1, &old), BRC_ARGUMENT);
    assert_int_equal(save("a", BRC_DIALECT_BRECCIA, &item, 1, &pairs), BRC_ARGUMENT);
    assert_int_equal(save("a", BRC_DIALECT_BRECCIA, NULL, 1, NULL), BRC_ARGUMENT);
    assert_int_equal(save("a", BRC_DIALECT_DEEPSEEK, &item, 1, &text), BRC_MALFORMED);
    assert_int_equal(save("a.gguf", BRC_DIALECT_DEEPSEEK, &item, 1, NULL), BRC_ARGUMENT);
    assert_int_equal(save("a", BRC_DIALECT_GGUF, &item, 1, NULL), BRC_ARGUMENT);
    assert_int_equal(save("a", BRC_DIALECT_BNB, &item, 1, NULL), BRC_UNSUPPORTED);
    assert_int_equal(save("a", BRC_DIALECT_COUNT, &item, 1, NULL), BRC_UNSUPPORTED);
    assert_int_equal(save("a", (brc_dialect)1000, &item, 1, NULL), BRC_UNSUPPORTED);
    assert_int_equal(save("a", BRC_DIALECT_PLAIN, &item, 1, NULL), BRC_UNSUPPORTED);
    assert_int_equal(save("no/such/folder/a.safetensors", BRC_DIALECT_BRECCIA, &item, 1, NULL), BRC_IO);
    item.plain = &plain;
    assert_int_equal(save("a", BRC_DIALECT_BRECCIA, &item, 1, NULL), BRC_ARGUMENT);
    item.scaled = NULL, item.plain = NULL;
    assert_int_equal(save("a", BRC_DIALECT_BRECCIA, &item, 1, NULL), BRC_ARGUMENT);
    item = both[0], item.name = NULL;
    assert_int_equal(save("a", BRC_DIALECT_BRECCIA, &item, 1, NULL), BRC_ARGUMENT);
    item.name = "";
    assert_int_equal(save("a", BRC_DIALECT_BRECCIA, &item, 1, NULL), BRC_ARGUMENT);
    item = both[0], item.shard = 7; /* shards are consecutive, from 0 */
    assert_int_equal(save("a", BRC_DIALECT_BRECCIA, &item, 1, NULL), BRC_ARGUMENT);
    both[1].name = "w.weight_scale_inv"; /* an array that the first has */
    assert_int_not_equal(save("a", BRC_DIALECT_DEEPSEEK, both, 2, NULL), BRC_OK);
    both[1].name = "w.\xff";
    assert_int_not_equal(save("a", BRC_DIALECT_DEEPSEEK, both, 2, NULL), BRC_OK);
    assert_int_equal(brc_checkpoint_arrays(BRC_DIALECT_BRECCIA, both, 1, NULL, &err), BRC_ARGUMENT);
    brc_release(&owned);
}

static void test_tensors_that_are_none(void **state) {
    brc_owned owned;
    (void)state;
    cast("nvfp4", &owned);
    const brc_tensor good = owned.tensor;
    brc_tensor bad;
    const brc_item item = {.name = "w.weight", .scaled = &bad};
#define REFUSED(change)                                                                                                \
    do {                                                                                                               \
        bad = good;                                                                                                    \
        change;                                                                                                        \
        for (unsigned d = BRC_DIALECT_BRECCIA; d < BRC_DIALECT_COUNT; d++)                                             \
            if (save(d == BRC_DIALECT_GGUF ? "a.gguf" : "a", (brc_dialect)d, &item, 1, NULL) == BRC_OK)                \
                fail_msg("%s: %s", brc_dialect_get((brc_dialect)d)->name, #change);                                    \
    } while (0)
    REFUSED(bad.size = 0);
    REFUSED(bad.format = BRC_FORMAT_COUNT);
    REFUSED(bad.format = BRC_F32);
    REFUSED(bad.rank = 0);
    REFUSED(bad.rank = 9);
    REFUSED(bad.rank = 255);
    REFUSED(bad.shape[0] = -1);
    REFUSED(bad.shape[0] = INT64_MAX);
    REFUSED(bad.shape[1] = INT64_MAX);
    REFUSED(bad.data = NULL);
    REFUSED(bad.row_pitch = COLS / 2 - 1);
    REFUSED(bad.row_pitch = -COLS);
    REFUSED(bad.scale.data = NULL);
    REFUSED(bad.scale.format = BRC_FORMAT_COUNT);
    REFUSED(bad.scale.kind = BRC_KIND_COUNT);
    REFUSED(bad.scale.block.cols = UINT32_MAX);
    REFUSED(bad.global.format = BRC_FORMAT_COUNT);
    REFUSED(bad.global.format = BRC_NF4);
    REFUSED((bad.zero = good.scale, bad.zero.format = BRC_FORMAT_COUNT));
#undef REFUSED
    brc_release(&owned);
}

static void test_plain_arrays_that_are_none(void **state) {
    const int64_t shape[] = {ROWS, COLS};
    brc_array array;
    const brc_item item = {.name = "w.weight", .plain = &array};
    (void)state;
#define REFUSED(change)                                                                                                \
    do {                                                                                                               \
        array = brc_array_of(BRC_F32, 2, shape, numbers);                                                              \
        change;                                                                                                        \
        if (save("a", BRC_DIALECT_DEEPSEEK, &item, 1, NULL) == BRC_OK ||                                               \
            save("a", BRC_DIALECT_PLAIN, &item, 1, NULL) == BRC_OK)                                                    \
            fail_msg("%s", #change);                                                                                   \
    } while (0)
    REFUSED(array.format = BRC_FORMAT_COUNT);
    REFUSED(array.format = BRC_NONE);
    REFUSED(array.format = BRC_INT4);
    REFUSED(array.rank = BRC_MAX_RANK + 1);
    REFUSED(array.rank = 255);
    REFUSED(array.shape[0] = -1);
    REFUSED(array.shape[0] = INT64_MAX);
    REFUSED((array.stride[0] = 1, array.stride[1] = ROWS));
    REFUSED(array.stride[1] = 2);
    REFUSED(array.data = NULL);
#undef REFUSED
}

static brc_status stop_array(void *user, size_t item, const brc_named_array *array) {
    (void)item, (void)array;
    return --*(int *)user < 0 ? BRC_CANCELLED : BRC_OK;
}

static brc_status stop_text(void *user, const char *file, const char *member, const char *text) {
    (void)file, (void)member, (void)text;
    return --*(int *)user < 0 ? BRC_CANCELLED : BRC_OK;
}

static void test_a_sink_that_stops(void **state) {
    brc_owned owned;
    int left = 0, n = 0;
    const brc_sink sink = {.size = sizeof sink, .array = stop_array, .text = stop_text, .user = &left},
                   old = {.size = 8}, nothing = {.size = sizeof nothing};
    brc_error err;
    (void)state;
    cast("nvfp4", &owned);
    const brc_item item = {.name = "w.weight", .scaled = &owned.tensor};
    for (left = 0; brc_checkpoint_arrays(BRC_DIALECT_MODELOPT, &item, 1, &sink, &err) != BRC_OK; left = n) {
        assert_int_equal(err.status, BRC_CANCELLED);
        n++;
    }
    assert_int_equal(n, 5); /* codes, two scales, two texts */
    assert_int_equal(brc_checkpoint_arrays(BRC_DIALECT_MODELOPT, &item, 1, &old, &err), BRC_ARGUMENT);
    check(brc_checkpoint_arrays(BRC_DIALECT_MODELOPT, &item, 1, &nothing, &err), &err);
    check(brc_checkpoint_arrays(BRC_DIALECT_MODELOPT, NULL, 0, &nothing, &err), &err);
    brc_release(&owned);
}

static int begin(void **state) {
    (void)state;
    for (int i = 0; i < ROWS * COLS; i++) numbers[i] = (float)(i % 29 - 14) * (i % 3 == 0 ? 0.01f : 0.002f);
    return mkdtemp(folder) == NULL ? -1 : 0;
}

/* The folder must be empty: nothing temporary is left behind. */
static int end(void **state) {
    (void)state;
    return rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_recipe_in_every_dialect),
                                       cmocka_unit_test(test_arguments), cmocka_unit_test(test_tensors_that_are_none),
                                       cmocka_unit_test(test_plain_arrays_that_are_none),
                                       cmocka_unit_test(test_a_sink_that_stops)};
    return cmocka_run_group_tests(tests, begin, end);
}
