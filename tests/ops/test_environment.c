/* SPDX-License-Identifier: Apache-2.0
 * A host that rounds another way, or flushes subnormals, gets the same bits, and its settings back. */
#include "breccia/breccia.h"

#include <fenv.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
#define FLUSH 0x8040u /* FTZ and DAZ */
static unsigned flags(void) { return _mm_getcsr(); }
static void set_flags(unsigned f) { _mm_setcsr(f); }
#define UNMASKED(f) ((f) & ~0x0E80u & ~0x003Fu) /* invalid, zero-divide, overflow, underflow */
#elif defined(__aarch64__)
#define FLUSH (1u << 24)            /* FZ (Arm ARM, C5.2.8) */
static unsigned flags(void) {
    uint64_t f;
    __asm__ volatile("mrs %0, fpcr" : "=r"(f));
    return (unsigned)f;
}
static void set_flags(unsigned f) { __asm__ volatile("msr fpcr, %0" ::"r"((uint64_t)f)); }
#define UNMASKED(f) ((f) | 0x0F00u) /* the same; processors without traps ignore it */
#else
#define FLUSH 0u
static unsigned flags(void) { return 0; }
static void set_flags(unsigned f) { (void)f; }
#define UNMASKED(f) (f)
#endif

enum { MANY = 132, FEW = 8, COLS = 1000, SIZE = MANY * COLS }; /* many rows: enough for two threads */

static const char *const recipes[] = {"fp8",
                                      "fp8-delayed",
                                      "fp8:pow2=1,epsilon=1e-3",
                                      "fp8-row",
                                      "fp8-row:scale=bf16",
                                      "fp8-block:partial=1",
                                      "fp8-block:arith=te,partial=1",
                                      "fp8-block:arith=deepgemm,partial=1",
                                      "mxfp8:partial=1",
                                      "mxfp8:rule=floor,partial=1",
                                      "mxfp6-e3m2:rule=ceil,partial=1",
                                      "mxfp4:rule=even,partial=1",
                                      "mxint8:partial=1",
                                      "nvfp4:partial=1",
                                      "nvfp4:arith=div,partial=1",
                                      "int8",
                                      "int8:rule=minmax",
                                      "int4:partial=1",
                                      "int4:group=40,rule=minmax,arith=recip",
                                      "custom:format=nf4,scale=f16,block=1x40",
                                      "custom:format=e4m3,scale=f32,block=3x5,partial=1"};
#define RECIPES (sizeof recipes / sizeof *recipes)

/* Everything the library computes of one input and recipe, as bytes. */
typedef struct results {
    uint8_t data[SIZE], scale[SIZE], global[64], zero[SIZE];
    brc_sizes sizes;
    uint8_t f32[4 * SIZE], f16[2 * SIZE], f64[8 * SIZE], product[4 * MANY * FEW], half_product[2 * MANY * FEW];
    uint8_t again[SIZE], again_scale[SIZE], row[2 * COLS], decoded[4 * COLS];
    brc_delayed_state state;
    brc_report report;
    float history[16];
} results;

static float source[SIZE];

static void fill(void) {
    uint32_t seed = 7;
    for (int i = 0; i < SIZE; i++) {
        seed = seed * 1664525u + 1013904223u;
        uint32_t bits = seed >> 9 | (seed & 0x80000000u) | 0x3F800000u;
        /* Ordinary rows, rows of subnormals and their neighbours, rows of everything. */
        int kind = i / COLS % 4;
        if (kind == 1) bits = seed & 0x80FFFFFFu;
        if (kind == 2) bits = (seed & 0x807FFFFFu) | ((seed >> 5) % 250 + 1) << 23;
        memcpy(&source[i], &bits, sizeof bits);
    }
}

static void run(const char *text, int64_t rows, uint32_t threads, results *r) {
    const int64_t shape[2] = {rows, COLS}, right[2] = {FEW, COLS}, product_shape[2] = {rows, FEW};
    brc_array x = brc_array_of(BRC_F32, 2, shape, source), w = brc_array_of(BRC_F32, 2, right, source);
    brc_options options = {.size = sizeof options, .threads = threads};
    brc_recipe recipe, other;
    brc_owned t, u;
    memset(r, 0, sizeof *r);
    r->report.size = sizeof r->report;
    assert_int_equal(brc_recipe_parse(text, &recipe, NULL), BRC_OK);
    assert_int_equal(brc_recipe_parse("int8:rule=minmax,group=40", &other, NULL), BRC_OK);
    r->state = (brc_delayed_state){.size = sizeof r->state, .scale = 3.3f, .history = r->history, .length = 16};
    assert_int_equal(
        brc_cast_new(&x, &recipe, &options, recipe.history_length > 0 ? &r->state : NULL, &t, &r->report, NULL),
        BRC_OK);
    if (recipe.history_length > 0) assert_int_equal(brc_delayed_update(&r->state, &recipe, NULL), BRC_OK);
    assert_int_equal(brc_tensor_sizes(&t.tensor, &r->sizes, NULL), BRC_OK);
    memcpy(r->data, t.tensor.data, (size_t)r->sizes.data);
    memcpy(r->scale, t.tensor.scale.data, (size_t)r->sizes.scale);
    if (r->sizes.global > 0) memcpy(r->global, t.tensor.global.data, (size_t)r->sizes.global);
    if (r->sizes.zero > 0) memcpy(r->zero, t.tensor.zero.data, (size_t)r->sizes.zero);
    brc_array y = brc_array_of(BRC_F32, 2, shape, r->f32), h = brc_array_of(BRC_F16, 2, shape, r->f16),
              d = brc_array_of(BRC_F64, 2, shape, r->f64);
    assert_int_equal(brc_dequantize(&t.tensor, &options, &y, NULL), BRC_OK);
    assert_int_equal(brc_dequantize(&t.tensor, &options, &h, NULL), BRC_OK);
    assert_int_equal(brc_dequantize(&t.tensor, &options, &d, NULL), BRC_OK);
    brc_array p = brc_array_of(BRC_F32, 2, product_shape, r->product),
              q = brc_array_of(BRC_BF16, 2, product_shape, r->half_product);
    brc_product product = {.size = sizeof product,
                           .a = {.scaled = &t.tensor},
                           .b = {.plain = &w, .transposed = 1},
                           .out = &p,
                           .options = &options};
    assert_int_equal(brc_matmul(&product, NULL), BRC_OK);
    product.out = &q;
    assert_int_equal(brc_matmul(&product, NULL), BRC_OK);
    assert_int_equal(brc_requantize_new(&t.tensor, &other, &options, &u, NULL, NULL), BRC_OK);
    memcpy(r->again, u.tensor.data, (size_t)(rows * COLS));
    memcpy(r->again_scale, u.tensor.scale.data, (size_t)(rows * COLS / 40 * 4));
    assert_int_equal(brc_encode(BRC_F16, source + COLS, COLS, r->row, NULL), BRC_OK);
    assert_int_equal(brc_decode(BRC_BF16, r->row, COLS, (float *)(void *)r->decoded, NULL), BRC_OK);
    brc_release(&t);
    brc_release(&u);
    r->state.history = NULL;
}

static void same(const char *text, const char *mode, const results *a, const results *b) {
    if (memcmp(a, b, sizeof *a) != 0) fail_msg("%s: other bits in a host with %s", text, mode);
}

static void every_mode(const char *const *some, size_t count, int64_t rows) {
    static const struct {
        const char *name;
        int rounding;
        unsigned flush;
    } modes[] = {{"flush-to-zero", FE_TONEAREST, FLUSH},
                 {"rounding upward", FE_UPWARD, 0},
                 {"rounding downward", FE_DOWNWARD, 0},
                 {"rounding toward zero and flush-to-zero", FE_TOWARDZERO, FLUSH}};
    results *plain = malloc(sizeof *plain), *other = malloc(sizeof *other);
    assert_non_null(plain);
    assert_non_null(other);
    fill();
    for (size_t i = 0; i < count; i++) {
        run(some[i], rows, 1, plain);
        for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
            fesetround(modes[m].rounding);
            set_flags(flags() | modes[m].flush);
            const unsigned before = flags();
            run(some[i], rows, 1 + (uint32_t)m % 3, other);
            const unsigned after = flags();
            const int rounding = fegetround();
            fesetround(FE_TONEAREST);
            set_flags(flags() & ~FLUSH);
            assert_int_equal(before, after); /* also the exception flags are as they were */
            assert_int_equal(rounding, modes[m].rounding);
            same(some[i], modes[m].name, plain, other);
        }
    }
    free(plain);
    free(other);
}

static void one_thread(void **state) {
    (void)state;
    every_mode(recipes, RECIPES, FEW);
}

static void more_threads(void **state) {
    static const char *const some[] = {"fp8", "mxfp8:rule=floor,partial=1", "nvfp4:partial=1", "int8:rule=minmax"};
    (void)state;
    every_mode(some, 4, MANY);
}

/* With unmasked exceptions a division by zero or an overflow inside would raise a signal. */
static void unmasked_exceptions(void **state) {
    results *r = malloc(sizeof *r);
    (void)state;
    assert_non_null(r);
    fill();
    const unsigned before = flags();
    set_flags(UNMASKED(before));
    for (size_t i = 0; i < RECIPES; i++) run(recipes[i], FEW, 1, r);
    set_flags(before);
    free(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_thread), cmocka_unit_test(more_threads),
                                       cmocka_unit_test(unmasked_exceptions)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
