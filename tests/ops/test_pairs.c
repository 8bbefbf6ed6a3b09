/* SPDX-License-Identifier: Apache-2.0
 * Every recipe into every other, at awkward shapes, into buffers of exactly the right size: what the sanitizers and
 * valgrind watch. */
#include "breccia/breccia.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const recipes[] = {"fp8-delayed",
                                      "fp8",
                                      "fp8-row",
                                      "fp8-block",
                                      "fp8-block128",
                                      "mxfp8",
                                      "mxfp6-e3m2",
                                      "mxfp6-e2m3",
                                      "mxfp4",
                                      "mxint8",
                                      "nvfp4",
                                      "int8",
                                      "int4",
                                      "int4:format=int3,group=5,rule=minmax",
                                      "nvfp4:block=16x16",
                                      "fp8:block=expert",
                                      "custom:format=int7,scale=bf16,block=2x3",
                                      "custom:format=iq4_nl,scale=e4m3,block=1x9"};
#define RECIPES (sizeof recipes / sizeof *recipes)

static const struct {
    int rank;
    int64_t shape[BRC_MAX_RANK];
} shapes[] = {{1, {1}},
              {1, {37}},
              {2, {3, 33}},
              {2, {17, 1}},
              {3, {2, 5, 7}},
              {3, {2, 1, 131}},
              {8, {1, 2, 1, 1, 2, 1, 3, 19}},
              {2, {0, 32}},
              {2, {3, 0}},
              {3, {0, 3, 32}},
              {1, {0}}};
#define SHAPES (sizeof shapes / sizeof *shapes)

/* A cast's destination, each buffer its own allocation without a spare byte. */
static void plan(const brc_recipe *recipe, int rank, const int64_t *shape, brc_tensor *t, void *parts[4]) {
    brc_sizes sizes;
    assert_int_equal(brc_tensor_plan(recipe, rank, shape, t, &sizes, NULL), BRC_OK);
    const int64_t n[4] = {sizes.data, sizes.scale, sizes.global, sizes.zero};
    void **at[4] = {&t->data, &t->scale.data, &t->global.data, &t->zero.data};
    for (int i = 0; i < 4; i++) {
        const int wanted = i < 2 || (i == 2 ? recipe->levels == 2 : recipe->zero != BRC_NONE);
        parts[i] = malloc((size_t)n[i] + (n[i] == 0));
        assert_non_null(parts[i]);
        memset(parts[i], 0xA5, (size_t)n[i]);
        *at[i] = wanted ? parts[i] : NULL;
    }
}

static void drop(void *parts[4]) {
    for (int i = 0; i < 4; i++) free(parts[i]);
}

static void parse(const char *text, brc_recipe *recipe) {
    char all[128];
    snprintf(all, sizeof all, "%s%cpartial=1", text, strchr(text, ':') ? ',' : ':');
    assert_int_equal(brc_recipe_parse(all, recipe, NULL), BRC_OK);
}

static int64_t elements(int rank, const int64_t *shape) {
    int64_t n = 1;
    for (int i = 0; i < rank; i++) n *= shape[i];
    return n;
}

static void all_pairs(void **state) {
    (void)state;
    for (size_t s = 0; s < SHAPES; s++) {
        const int rank = shapes[s].rank;
        const int64_t *shape = shapes[s].shape, n = elements(rank, shape);
        float *x = malloc((size_t)n * sizeof *x + 1), *y = malloc((size_t)n * sizeof *y + 1);
        assert_non_null(x);
        assert_non_null(y);
        for (int64_t i = 0; i < n; i++) x[i] = (float)(i * 37 % 101 - 50) / 7.0f;
        brc_array source = brc_array_of(BRC_F32, rank, shape, x), values = brc_array_of(BRC_F32, rank, shape, y);
        for (size_t i = 0; i < RECIPES; i++) {
            brc_recipe from, to;
            brc_tensor t, u;
            void *parts[4], *others[4];
            parse(recipes[i], &from);
            plan(&from, rank, shape, &t, parts);
            assert_int_equal(brc_cast(&source, &from, NULL, NULL, &t, NULL, NULL), BRC_OK);
            assert_int_equal(brc_dequantize(&t, NULL, &values, NULL), BRC_OK);
            for (size_t j = 0; j < RECIPES; j++) {
                brc_path path;
                int equal = 0;
                parse(recipes[j], &to);
                plan(&to, rank, shape, &u, others);
                assert_int_equal(brc_requantize(&t, &to, NULL, &u, &path, NULL), BRC_OK);
                assert_int_equal(path == BRC_PATH_SAME, i == j);
                assert_int_equal(brc_tensor_equal(&t, &u, &equal, NULL), BRC_OK);
                assert_int_equal(equal, i == j);
                assert_int_equal(brc_dequantize(&u, NULL, &values, NULL), BRC_OK);
                drop(others);
            }
            drop(parts);
        }
        free(x);
        free(y);
    }
}

static void products(void **state) {
    enum { M = 5, N = 3, K = 37 };
    const int64_t a_shape[2] = {M, K}, b_shape[2] = {N, K}, out_shape[2] = {M, N};
    float *a = malloc(sizeof *a * M * K), *b = malloc(sizeof *b * N * K), *out = malloc(sizeof *out * M * N);
    (void)state;
    assert_non_null(a);
    assert_non_null(b);
    assert_non_null(out);
    for (int i = 0; i < M * K; i++) a[i] = (float)(i % 13 - 6);
    for (int i = 0; i < N * K; i++) b[i] = (float)(i % 7 - 3);
    brc_array x = brc_array_of(BRC_F32, 2, a_shape, a), w = brc_array_of(BRC_F32, 2, b_shape, b),
              y = brc_array_of(BRC_F32, 2, out_shape, out);
    for (size_t i = 0; i < RECIPES; i++)
        for (size_t j = 0; j < RECIPES; j++) {
            brc_recipe left, right;
            brc_tensor t, u;
            void *parts[4], *others[4];
            parse(recipes[i], &left);
            parse(recipes[j], &right);
            plan(&left, 2, a_shape, &t, parts);
            plan(&right, 2, b_shape, &u, others);
            assert_int_equal(brc_cast(&x, &left, NULL, NULL, &t, NULL, NULL), BRC_OK);
            assert_int_equal(brc_cast(&w, &right, NULL, NULL, &u, NULL, NULL), BRC_OK);
            assert_int_equal(brc_matmul(&(brc_product){.size = sizeof(brc_product),
                                                       .a = {.scaled = &t},
                                                       .b = {.scaled = &u, .transposed = 1},
                                                       .out = &y},
                                        NULL),
                             BRC_OK);
            assert_int_equal(brc_matmul(&(brc_product){.size = sizeof(brc_product),
                                                       .a = {.plain = &x},
                                                       .b = {.scaled = &u, .transposed = 1},
                                                       .out = &y},
                                        NULL),
                             BRC_OK);
            drop(parts);
            drop(others);
        }
    free(a);
    free(b);
    free(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_pairs), cmocka_unit_test(products)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
