/* SPDX-License-Identifier: Apache-2.0
 * Hostile and odd brc_tensor structs: each gives a clean error, and none makes a reader leave its buffers (the
 * sanitizers and valgrind run over this). */
#include "breccia/breccia.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A good tensor: E4M3 [2, 4, 64], F32 scales for each 1x16, on the heap to the byte. */
typedef struct fixture {
    brc_tensor t;
    void *data, *scale, *global, *zero;
    int32_t *index;
} fixture;

static void *bytes(size_t n) {
    void *memory = calloc(n, 1);
    assert_non_null(memory);
    return memory;
}

static fixture good(void) {
    fixture f = {.data = bytes(512),
                 .scale = bytes(128),
                 .global = bytes(4),
                 .zero = bytes(32),
                 .index = bytes(64 * sizeof(int32_t))};
    f.t = (brc_tensor){.size = sizeof f.t,
                       .format = BRC_E4M3,
                       .rank = 3,
                       .layout = BRC_PER_BLOCK_K,
                       .shape = {2, 4, 64},
                       .data = f.data,
                       .row_pitch = 64};
    f.t.scale = (brc_table){.data = f.scale, .format = BRC_F32, .kind = BRC_KIND_MULTIPLIER, .block = {1, 1, 16}};
    f.t.recipe = (brc_recipe){.size = sizeof(brc_recipe), .id = BRC_RECIPE_UNKNOWN};
    for (int i = 0; i < 64; i++) f.index[i] = i % 4;
    return f;
}

static void drop(fixture *f) {
    free(f->data);
    free(f->scale);
    free(f->global);
    free(f->zero);
    free(f->index);
}

/* Every public reader of a tensor refuses it alike, with a text. */
static void refused(const brc_tensor *t, brc_status want, const char *word) {
    brc_error err = {0};
    brc_sizes sizes;
    int equal;
    float out[512];
    const int64_t shape[3] = {2, 4, 64};
    brc_array y = brc_array_of(BRC_F32, 3, shape, out);
    brc_owned owned;
    brc_recipe recipe;
    fixture f = good();
    assert_int_equal(brc_recipe_parse("fp8", &recipe, NULL), BRC_OK);
    assert_int_equal(brc_tensor_check(t, &err), want);
    assert_int_equal(err.status, want);
    if (strstr(err.text, word) == NULL) fail_msg("'%s' does not say '%s'", err.text, word);
    assert_null(strchr(err.text, '\n'));
    assert_int_equal(brc_tensor_check(t, NULL), want);
    assert_int_equal(brc_tensor_sizes(t, &sizes, &err), want);
    assert_int_equal(brc_tensor_equal(t, &f.t, &equal, &err), want);
    assert_int_equal(brc_tensor_equal(&f.t, t, &equal, &err), want);
    assert_int_equal(brc_dequantize(t, NULL, &y, &err), want);
    assert_int_equal(brc_requantize_new(t, &recipe, NULL, &owned, NULL, &err), want);
    assert_null(owned.release);
    assert_int_equal(
        brc_matmul(&(brc_product){.size = sizeof(brc_product), .a = {.scaled = t}, .b = {.plain = &y}, .out = &y},
                   &err),
        want);
    assert_true(t == NULL || !(brc_tensor_bits(t) > 0));
    drop(&f);
}

#define REFUSED(change, status, word)                                                                                  \
    do {                                                                                                               \
        fixture f = good();                                                                                            \
        assert_int_equal(brc_tensor_check(&f.t, NULL), BRC_OK);                                                        \
        change;                                                                                                        \
        refused(&f.t, status, word);                                                                                   \
        drop(&f);                                                                                                      \
    } while (0)

static void shapes(void **state) {
    (void)state;
    REFUSED(f.t.size = 0, BRC_ARGUMENT, "another version");
    REFUSED(f.t.size = sizeof f.t - 1, BRC_ARGUMENT, "another version");
    REFUSED(f.t.rank = 0, BRC_SHAPE, "rank is 0");
    REFUSED(f.t.rank = 9, BRC_SHAPE, "rank is 9");
    REFUSED(f.t.rank = 255, BRC_SHAPE, "rank is 255");
    REFUSED(f.t.shape[0] = -1, BRC_SHAPE, "negative");
    REFUSED(f.t.shape[2] = INT64_MIN, BRC_SHAPE, "negative");
    REFUSED(f.t.shape[0] = INT64_MAX, BRC_OVERFLOW, "63 bits");
    REFUSED((f.t.shape[0] = INT64_MAX, f.t.shape[1] = 0), BRC_OVERFLOW, "63 bits");
    REFUSED((f.t.shape[0] = 0, f.t.shape[1] = INT64_MAX / 32, f.t.shape[2] = 1 << 20), BRC_OVERFLOW, "63 bits");
    REFUSED((f.t.shape[0] = (int64_t)1 << 31, f.t.shape[1] = (int64_t)1 << 31, f.t.shape[2] = 4), BRC_OVERFLOW,
            "63 bits");
}

static void data(void **state) {
    (void)state;
    REFUSED(f.t.data = NULL, BRC_ARGUMENT, "data is missing");
    REFUSED(f.t.row_pitch = 63, BRC_SHAPE, "row_pitch is 63");
    REFUSED(f.t.row_pitch = 0, BRC_SHAPE, "row_pitch is 0");
    REFUSED(f.t.row_pitch = -64, BRC_SHAPE, "row_pitch is -64");
    REFUSED(f.t.format = BRC_NONE, BRC_FORMAT, "none");
    REFUSED(f.t.format = BRC_F32, BRC_FORMAT, "f32 cannot be the data");
    REFUSED(f.t.format = BRC_INT32, BRC_FORMAT, "int32 cannot");
    REFUSED(f.t.format = BRC_FORMAT_COUNT, BRC_FORMAT, "unknown format");
    REFUSED(f.t.format = 255, BRC_FORMAT, "unknown format");
    refused(NULL, BRC_ARGUMENT, "missing");
}

static void pitch_overflow(void **state) {
    (void)state;
    fixture f = good();
    brc_sizes sizes;
    brc_error err;
    f.t.row_pitch = INT64_MAX;
    assert_int_equal(brc_tensor_sizes(&f.t, &sizes, &err), BRC_OVERFLOW);
    f.t.row_pitch = INT64_MAX / 8;
    assert_int_equal(brc_tensor_sizes(&f.t, &sizes, &err), BRC_OVERFLOW);
    drop(&f);
}

static void tables(void **state) {
    (void)state;
    static const uint8_t wrong[] = {BRC_NONE, BRC_F64,   BRC_E2M1, BRC_E3M2,         BRC_INT4, BRC_NF4,
                                    BRC_BOOL, BRC_INT64, BRC_C64,  BRC_FORMAT_COUNT, 255};
    for (size_t i = 0; i < sizeof wrong; i++) {
        REFUSED(f.t.scale.format = wrong[i], BRC_FORMAT, "scale");
        REFUSED((f.t.global = (brc_table){.data = f.global, .format = wrong[i]}), BRC_FORMAT, "global scale");
        REFUSED(
            (f.t.zero = (brc_table){.data = f.zero, .format = wrong[i], .kind = BRC_KIND_CODE, .block = {1, 1, 16}}),
            BRC_FORMAT, "zero point");
    }
    REFUSED(f.t.scale.data = NULL, BRC_ARGUMENT, "scale is missing");
    REFUSED(f.t.scale.kind = BRC_KIND_CODE, BRC_FORMAT, "kind");
    REFUSED(f.t.scale.kind = BRC_KIND_AMAX, BRC_ARGUMENT, "constant");
    REFUSED((f.t.scale.kind = BRC_KIND_AMAX, f.t.scale.constant = 2688), BRC_FORMAT, "block scales");
    REFUSED(f.t.scale.kind = BRC_KIND_COUNT, BRC_FORMAT, "kind");
    REFUSED(f.t.scale.kind = 255, BRC_FORMAT, "kind");
    REFUSED((f.t.global = (brc_table){.data = f.global, .format = BRC_F32, .kind = BRC_KIND_REAL}), BRC_FORMAT, "kind");
    REFUSED((f.t.global = (brc_table){.data = f.global, .format = BRC_F32, .kind = BRC_KIND_AMAX}), BRC_ARGUMENT,
            "constant");
    REFUSED((f.t.global = (brc_table){.data = f.global, .format = BRC_F32, .kind = BRC_KIND_AMAX, .constant = -1}),
            BRC_ARGUMENT, "constant");
    REFUSED((f.t.global = (brc_table){.data = f.global, .format = BRC_F32, .kind = BRC_KIND_AMAX, .constant = NAN}),
            BRC_ARGUMENT, "constant");
    REFUSED(
        (f.t.zero = (brc_table){.data = f.zero, .format = BRC_INT8, .kind = BRC_KIND_MULTIPLIER, .block = {1, 1, 16}}),
        BRC_FORMAT, "kind");
}

static void layouts(void **state) {
    (void)state;
    REFUSED(f.t.layout = BRC_LAYOUT_COUNT, BRC_ARGUMENT, "no layout");
    REFUSED(f.t.layout = BRC_PER_TENSOR, BRC_SHAPE, "per_tensor");
    REFUSED(f.t.layout = BRC_PER_CHANNEL, BRC_SHAPE, "per_channel");
    REFUSED(f.t.scale.block.rows = 2, BRC_SHAPE, "per_block_k");
    REFUSED(f.t.scale.block.batch = 0, BRC_SHAPE, "per_block_k");
    REFUSED(f.t.scale.block.cols = 0, BRC_SHAPE, "at least 1");
    REFUSED(f.t.scale.block.cols = BRC_FREE, BRC_SHAPE, "per_block_k");
    REFUSED((f.t.layout = BRC_PER_BLOCK_MN, f.t.scale.block.rows = 0), BRC_SHAPE, "at least 1");
}

static void group_indices(void **state) {
    (void)state;
    REFUSED((f.index[63] = 4, f.t.group_index = f.index), BRC_SHAPE, "group_index[63] is 4");
    REFUSED((f.index[0] = -1, f.t.group_index = f.index), BRC_SHAPE, "group_index[0] is -1");
    REFUSED((f.index[5] = INT32_MIN, f.t.group_index = f.index), BRC_SHAPE, "group_index[5]");
    REFUSED((f.index[5] = INT32_MAX, f.t.group_index = f.index), BRC_SHAPE, "group_index[5]");
    /* The index reaches into the zero points as well: they need as many columns as the scales. */
    REFUSED(
        (f.t.group_index = f.index, f.t.zero = (brc_table){.data = f.zero, .format = BRC_INT8, .kind = BRC_KIND_CODE}),
        BRC_SHAPE, "zero point");
    REFUSED((f.t.group_index = f.index,
             f.t.zero = (brc_table){.data = f.zero, .format = BRC_INT8, .kind = BRC_KIND_CODE, .block = {1, 1, 32}}),
            BRC_SHAPE, "zero point");
}

/* All tables of all kinds, read to the last number: nothing outside them is touched. */
static void whole_reads(void **state) {
    (void)state;
    static const brc_block blocks[] = {{0, 0, 0}, {1, 0, 0}, {1, 1, 0},        {1, 1, 16},
                                       {1, 3, 7}, {0, 1, 1}, {1, 1, BRC_FREE}, {2, BRC_FREE, 64}};
    const int64_t shape[3] = {2, 4, 64};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        fixture f = good();
        int64_t n[3];
        float *out = bytes(512 * sizeof *out);
        brc_array y = brc_array_of(BRC_F32, 3, shape, out);
        assert_int_equal(brc_block_counts(3, shape, blocks[i], n, NULL), BRC_OK);
        const size_t count = (size_t)(n[0] * n[1] * n[2]);
        void *global = bytes(4 * count), *zero = bytes(2 * count);
        f.t.global = (brc_table){.data = global, .format = BRC_F32, .kind = BRC_KIND_DIVISOR, .block = blocks[i]};
        f.t.zero = (brc_table){.data = zero, .format = BRC_BF16, .kind = BRC_KIND_REAL, .block = blocks[i]};
        assert_int_equal(brc_dequantize(&f.t, NULL, &y, NULL), BRC_OK);
        for (int64_t j = 0; j < n[0] * n[1] * n[2]; j++) assert_true(brc_table_number(&f.t.zero, j) >= 0);
        assert_int_equal(brc_table_index(&f.t, &f.t.global, 1, 3, 63), (int64_t)count - 1);
        if (blocks[i].cols == 16) f.t.group_index = f.index;
        assert_int_equal(brc_dequantize(&f.t, NULL, &y, NULL), BRC_OK);
        free(global);
        free(zero);
        free(out);
        drop(&f);
    }
}

/* No elements: no data is needed, and null pointers are not touched. */
static void empty(void **state) {
    (void)state;
    static const char *const recipes[] = {"fp8", "fp8-row", "fp8-block", "mxfp4", "nvfp4", "int4:rule=minmax"};
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++)
        for (int axis = 0; axis < 3; axis++) {
            int64_t shape[3] = {2, 3, 128};
            brc_recipe recipe, fp8;
            brc_tensor t;
            brc_sizes sizes;
            brc_error err;
            shape[axis] = 0;
            brc_array x = brc_array_of(BRC_F32, 3, shape, NULL);
            assert_int_equal(brc_recipe_parse(recipes[i], &recipe, NULL), BRC_OK);
            assert_int_equal(brc_recipe_parse("fp8:arith=div", &fp8, NULL), BRC_OK);
            assert_int_equal(brc_tensor_plan(&recipe, 3, shape, &t, &sizes, &err), BRC_OK);
            void *memory = aligned_alloc(64, (size_t)sizes.total + 64);
            assert_non_null(memory);
            brc_tensor_bind(&t, &sizes, memory);
            t.data = NULL;
            assert_int_equal(brc_cast(&x, &recipe, NULL, NULL, &t, NULL, &err), BRC_OK);
            assert_int_equal(brc_dequantize(&t, NULL, &x, &err), BRC_OK);
            brc_owned other;
            assert_int_equal(brc_requantize_new(&t, &fp8, NULL, &other, NULL, &err), BRC_OK);
            assert_true(brc_table_number(&other.tensor.scale, 0) > 0);
            brc_release(&other);
            brc_release(&other); /* once more does nothing */
            int equal = 0;
            assert_int_equal(brc_tensor_equal(&t, &t, &equal, &err), BRC_OK);
            assert_int_equal(equal, 1);
            assert_true(!(brc_tensor_bits(&t) > 0));
            free(memory);
        }
    brc_release(NULL);
}

static void null_arguments(void **state) {
    (void)state;
    fixture f = good();
    const int64_t shape[1] = {4};
    brc_recipe recipe;
    brc_sizes sizes;
    int64_t counts[3];
    assert_int_equal(brc_recipe_parse("fp8", &recipe, NULL), BRC_OK);
    assert_int_equal(brc_tensor_plan(&recipe, 1, NULL, &f.t, &sizes, NULL), BRC_ARGUMENT);
    assert_int_equal(brc_tensor_plan(&recipe, 1, shape, NULL, &sizes, NULL), BRC_ARGUMENT);
    assert_int_equal(brc_tensor_plan(NULL, 1, shape, &f.t, &sizes, NULL), BRC_RECIPE);
    assert_int_equal(brc_tensor_plan(&recipe, 0, shape, &f.t, &sizes, NULL), BRC_SHAPE);
    assert_int_equal(brc_tensor_plan(&recipe, 9, shape, &f.t, &sizes, NULL), BRC_SHAPE);
    assert_int_equal(brc_tensor_plan(&recipe, -1, shape, &f.t, &sizes, NULL), BRC_SHAPE);
    assert_int_equal(brc_tensor_sizes(&f.t, NULL, NULL), BRC_ARGUMENT);
    assert_int_equal(brc_tensor_equal(&f.t, &f.t, NULL, NULL), BRC_ARGUMENT);
    assert_int_equal(brc_block_counts(1, NULL, recipe.block, counts, NULL), BRC_ARGUMENT);
    assert_int_equal(brc_block_counts(1, shape, recipe.block, NULL, NULL), BRC_ARGUMENT);
    assert_true(isnan(brc_table_number(NULL, 0)));
    assert_true(isnan(brc_table_number(&f.t.zero, 0)));
    assert_true(isnan(brc_table_number(&f.t.scale, -1)));
    assert_int_equal(brc_array_of(BRC_F32, 9, shape, f.data).rank, 0);
    assert_null(brc_array_of(BRC_F32, 9, shape, f.data).data);
    assert_int_equal(brc_cast(NULL, &recipe, NULL, NULL, &f.t, NULL, NULL), BRC_ARGUMENT);
    assert_int_equal(brc_dequantize(&f.t, NULL, NULL, NULL), BRC_ARGUMENT);
    brc_array x = brc_array_of(BRC_F32, 1, shape, f.data);
    assert_int_equal(brc_cast(&x, &recipe, NULL, NULL, NULL, NULL, NULL), BRC_ARGUMENT);
    assert_int_equal(brc_cast(&x, NULL, NULL, NULL, &f.t, NULL, NULL), BRC_RECIPE);
    assert_int_equal(brc_cast_new(&x, &recipe, NULL, NULL, NULL, NULL, NULL), BRC_ARGUMENT);
    drop(&f);
}

/* Recipes of nonsense: text and check stay within their tables. */
static void hostile_recipes(void **state) {
    (void)state;
    uint32_t seed = 1;
    for (int i = 0; i < 20000; i++) {
        brc_recipe r;
        unsigned char raw[sizeof r];
        char text[256];
        if (i & 1) {
            brc_recipe_init((brc_recipe_id)(i % BRC_RECIPE_COUNT), &r, NULL);
            memcpy(raw, &r, sizeof r);
        } else {
            memset(raw, 0, sizeof raw);
        }
        for (size_t j = 0; j < sizeof raw; j++) {
            seed = seed * 1664525u + 1013904223u;
            if ((i & 1) == 0 || seed >> 28 == 0) raw[j] = (unsigned char)(seed >> 16);
        }
        memcpy(&r, raw, sizeof r);
        if (i % 4 < 2) r.size = sizeof r;
        const brc_status status = brc_recipe_check(&r, NULL);
        assert_true(status == BRC_OK || status == BRC_RECIPE);
        assert_true(brc_recipe_text(&r, text, sizeof text) < sizeof text);
        assert_true((strcmp(text, "unknown") == 0) == (status != BRC_OK));
        if (status == BRC_OK) {
            brc_recipe again;
            assert_int_equal(brc_recipe_parse(text, &again, NULL), BRC_OK);
        }
    }
    assert_int_equal(brc_recipe_check(NULL, NULL), BRC_RECIPE);
    assert_int_equal(brc_recipe_text(NULL, NULL, 0), strlen("unknown"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes),          cmocka_unit_test(data),    cmocka_unit_test(pitch_overflow),
        cmocka_unit_test(tables),          cmocka_unit_test(layouts), cmocka_unit_test(group_indices),
        cmocka_unit_test(whole_reads),     cmocka_unit_test(empty),   cmocka_unit_test(null_arguments),
        cmocka_unit_test(hostile_recipes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
