/* SPDX-License-Identifier: Apache-2.0
 * Products on each instruction set against sums in double: within K * 2^-24 * sum(|a||b|) and half an ulp, and exactly
 * where all partial sums are small integers. The widest tests of products are Python's (tests/ops); this one also runs
 * where there is no Python, and finds what reads beyond codes or scales. */
#include "levels.h"

#include <math.h>

/* Whole tiles and edges of every tile; k beyond a block, of one alone, and longer than a piece that is packed. */
static const struct {
    int64_t m, n, k;
} sizes[] = {{1, 1, 1},     {1, 37, 200},  {3, 16, 64}, {7, 33, 257}, {13, 25, 96},
             {26, 66, 288}, {67, 70, 257}, {6, 35, 32}, {2, 5, 1100}, {17, 34, 16}};
#define SIZES (sizeof sizes / sizeof *sizes)
enum { MOST_A = 26 * 1100, MOST_B = 66 * 1100, MOST_C = 67 * 70 };

/* "f32", "f16", "bf16": plain. */
static const char *const lefts[] = {"f32", "bf16", "int8", "mxfp8:partial=1", "int8:group=32,partial=1"};
static const char *const rights[] = {"f32",
                                     "f16",
                                     "fp8",
                                     "fp8-block128:partial=1",
                                     "mxfp8:partial=1",
                                     "mxfp4:partial=1",
                                     "nvfp4:partial=1",
                                     "nvfp4:levels=1,partial=1",
                                     "int8",
                                     "int4:group=32,partial=1",
                                     "int4:format=uint4,rule=minmax,group=32,partial=1",
                                     "q4_0:partial=1",
                                     "q8_0:partial=1"};
#define LEFTS (sizeof lefts / sizeof *lefts)
#define RIGHTS (sizeof rights / sizeof *rights)

/* One side: what is multiplied, and its values. */
typedef struct side {
    brc_operand operand;
    brc_array plain;
    brc_owned scaled;
    brc_tensor fenced; /* the same as scaled, its codes and scales just before pages that may not be touched */
    uint8_t *codes, *scales;
    float numbers[MOST_B], values[MOST_B];
    uint8_t halves[2 * MOST_B];
} side;

static side a, b;

/* Numbers below 1; small integers; the smallest normal floats, for one side, and small ones for the other. */
typedef enum kind { ORDINARY, INTEGERS, TINY, SMALL } kind;

static float number(uint32_t random, kind of) {
    if (of == INTEGERS) return (float)(random >> 29) - 3.0f;
    if (of == TINY) return ((float)(random >> 1) * 0x1p-31f + 1) * (random & 1 ? -0x1p-126f : 0x1p-126f);
    return (float)(int32_t)random * (of == SMALL ? 0x1p-35f : 0x1p-31f);
}

enum { ROOM = 1 << 19 }; /* a multiple of every system's pages */

static uint8_t *room(void) {
    uint8_t *all = mmap(NULL, 2 * ROOM, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED || mprotect(all, ROOM, PROT_READ | PROT_WRITE) != 0) abort();
    return all;
}

/* Codes and scales up to the end of their rooms, as far as the numbers' alignment lets them. */
static void fence(side *s) {
    brc_sizes bytes;
    if (s->codes == NULL) s->codes = room(), s->scales = room();
    s->fenced = s->scaled.tensor;
    if (brc_tensor_sizes(&s->fenced, &bytes, NULL) != BRC_OK || bytes.data > ROOM || bytes.scale > ROOM) abort();
    s->fenced.data = memcpy(s->codes + ROOM - bytes.data, s->fenced.data, (size_t)bytes.data);
    s->fenced.scale.data = memcpy(s->scales + ROOM - bytes.scale, s->fenced.scale.data, (size_t)bytes.scale);
}

static void make(side *s, const char *text, int64_t rows, int64_t cols, kind of, uint32_t *seed) {
    const int64_t shape[2] = {rows, cols};
    const brc_array numbers = brc_array_of(BRC_F32, 2, shape, s->numbers);
    brc_array values = brc_array_of(BRC_F32, 2, shape, s->values);
    brc_recipe recipe;
    for (int64_t i = 0; i < rows * cols; i++) {
        *seed = *seed * 1664525u + 1013904223u;
        s->numbers[i] = number(*seed, of);
    }
    s->scaled = (brc_owned){0};
    s->operand = (brc_operand){0};
    const brc_format format = brc_format_find(text);
    if (format == BRC_F32) {
        s->plain = numbers;
        memcpy(s->values, s->numbers, (size_t)(rows * cols) * sizeof *s->values);
    } else if (format != BRC_NONE && format != BRC_INT8) {
        s->plain = brc_array_of(format, 2, shape, s->halves);
        if (brc_encode(format, s->numbers, rows * cols, s->halves, NULL) != BRC_OK) abort();
        if (brc_decode(format, s->halves, rows * cols, s->values, NULL) != BRC_OK) abort();
    } else {
        if (brc_recipe_parse(text, &recipe, NULL) != BRC_OK) abort();
        if (brc_cast_new(&numbers, &recipe, NULL, NULL, &s->scaled, NULL, NULL) != BRC_OK) abort();
        if (brc_dequantize(&s->scaled.tensor, NULL, &values, NULL) != BRC_OK) abort();
        fence(s);
        s->operand.scaled = &s->fenced;
        return;
    }
    s->operand.plain = &s->plain;
}

/* a is [m, k]; b [n, k], used as [k, n], or [k, n]. */
static void check(const char *what, int64_t m, int64_t n, int64_t k, const float *found, int exact, int *faults) {
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0, size = 0;
            for (int64_t l = 0; l < k; l++) {
                const double x = (double)a.values[i * k + l],
                             y = (double)b.values[b.operand.transposed ? j * k + l : l * n + j];
                sum += x * y;
                size += fabs(x * y);
            }
            const double bound = exact ? 0 : (double)k * 0x1p-24 * size + fmax(fabs(sum), 0x1p-126) * 0x1p-24;
            const double error = fabs((double)found[i * n + j] - sum);
            if (!(error <= bound)) {
                wrong(faults, "%s, %lld x %lld x %lld: [%lld, %lld] is %a, not %a (error %g, bound %g)", what,
                      (long long)m, (long long)n, (long long)k, (long long)i, (long long)j, (double)found[i * n + j],
                      sum, error, bound);
                return;
            }
        }
}

static void multiply(size_t left, size_t right, size_t size, kind of, int *faults) {
    static float out[MOST_C];
    const int64_t m = sizes[size].m, n = sizes[size].n, k = sizes[size].k, shape[2] = {m, n};
    const int transposed = (left + right + size) % 3 != 0;
    uint32_t seed = (uint32_t)(left * 131 + right * 17 + size + 1);
    char what[160];
    brc_packed *packed = NULL;
    make(&a, lefts[left], m, k, of, &seed);
    make(&b, rights[right], transposed ? n : k, transposed ? k : n, of == TINY ? SMALL : of, &seed);
    b.operand.transposed = (uint32_t)transposed;
    snprintf(what, sizeof what, "%s * %s%s%s", lefts[left], rights[right], transposed ? " transposed" : "",
             of == INTEGERS ? " of integers"
             : of == TINY   ? " of tiny numbers"
                            : "");
    snprintf(whereabouts, 4096, "%s, %lld x %lld x %lld", what, (long long)m, (long long)n, (long long)k);
    brc_array c = brc_array_of(BRC_F32, 2, shape, out);
    brc_product p = {.size = sizeof p, .a = a.operand, .b = b.operand, .out = &c};
    memset(out, 0xFF, sizeof out);
    if (brc_matmul(&p, NULL) != BRC_OK) abort();
    check(what, m, n, k, out, of == INTEGERS, faults);
    p.b = (brc_operand){0};
    if (brc_pack_new(&b.operand,
                     a.operand.scaled != NULL ? (brc_format)a.operand.scaled->format : (brc_format)a.plain.format, NULL,
                     &packed, NULL) == BRC_OK) {
        p.packed = packed;
        memset(out, 0xFF, sizeof out);
        if (brc_matmul(&p, NULL) != BRC_OK) abort();
        strncat(what, ", packed", sizeof what - strlen(what) - 1);
        check(what, m, n, k, out, of == INTEGERS, faults);
        brc_packed_free(packed);
    }
    brc_release(&a.scaled);
    brc_release(&b.scaled);
}

/* Without k results are zeros; arrays of no elements may have no data. */
static void multiply_nothing(int *faults) {
    float out[6];
    const int64_t left[2] = {2, 0}, right[2] = {3, 0}, shape[2] = {2, 3};
    const brc_array x = brc_array_of(BRC_F32, 2, left, NULL), w = brc_array_of(BRC_F32, 2, right, NULL);
    brc_array c = brc_array_of(BRC_F32, 2, shape, out);
    const brc_operand weight = {.plain = &w, .transposed = 1};
    brc_packed *packed = NULL;
    brc_product p = {.size = sizeof p, .a = {.plain = &x}, .out = &c};
    if (brc_pack_new(&weight, BRC_F32, NULL, &packed, NULL) != BRC_OK) abort();
    p.packed = packed;
    memset(out, 0xFF, sizeof out);
    if (brc_matmul(&p, NULL) != BRC_OK) abort();
    for (int i = 0; i < 6; i++)
        if (out[i] != 0) wrong(faults, "k = 0: %a, not 0", (double)out[i]);
    brc_packed_free(packed);
}

/* Accumulated on, batches whose last one has a number too large for the quickest way: each is added once. */
static void multiply_some_large(int *faults) {
    enum { K = 64, N = 33 };
    float numbers[N * K], x[2 * K], out[2 * N];
    const int64_t left[3] = {2, 1, K}, right[2] = {N, K}, shape[3] = {2, 1, N};
    const brc_array w = brc_array_of(BRC_F32, 2, right, numbers), many = brc_array_of(BRC_F32, 3, left, x);
    brc_array c = brc_array_of(BRC_F32, 3, shape, out);
    brc_owned scaled;
    brc_recipe recipe;
    brc_packed *packed = NULL;
    brc_product p = {.size = sizeof p, .accumulate = 1, .a = {.plain = &many}, .out = &c};
    for (int i = 0; i < N * K; i++) numbers[i] = 1;
    for (int i = 0; i < 2 * K; i++) x[i] = i == 2 * K - 1 ? 0x1p101f : 1;
    for (int i = 0; i < 2 * N; i++) out[i] = 5;
    if (brc_recipe_parse("mxfp8", &recipe, NULL) != BRC_OK) abort();
    if (brc_cast_new(&w, &recipe, NULL, NULL, &scaled, NULL, NULL) != BRC_OK) abort();
    const brc_operand weight = {.scaled = &scaled.tensor, .transposed = 1};
    if (brc_pack_new(&weight, BRC_F32, NULL, &packed, NULL) != BRC_OK) abort();
    p.packed = packed;
    if (brc_matmul(&p, NULL) != BRC_OK) abort();
    for (int i = 0; i < 2 * N; i++) {
        const float want = i < N ? 5 + K : 0x1p101f;
        if (out[i] != want) wrong(faults, "accumulated on, [%d]: %a, not %a", i, (double)out[i], (double)want);
    }
    brc_packed_free(packed);
    brc_release(&scaled);
}

static int every_product(void) {
    const size_t some = share();
    int faults = 0;
    for (size_t size = 0; size < SIZES; size++)
        for (size_t right = 0; right < RIGHTS; right++)
            for (size_t left = 0; left < LEFTS; left++)
                if ((size * 7 + right * 3 + left) % some == 0) multiply(left, right, size, ORDINARY, &faults);
    for (size_t size = 0; size < SIZES; size++) /* -3 to 4, K up to 257: sums below 2^12, no rounding in any order */
        if (sizes[size].k <= 257)
            for (size_t right = 0; right < 2; right++)
                for (size_t left = 0; left < 2; left++) multiply(left, right, size, INTEGERS, &faults);
    for (size_t size = 1; size < SIZES; size++) /* K such that sum(|a||b|) is a normal float */
        for (size_t right = 0; right < RIGHTS; right++)
            for (size_t left = 0; left < 2; left++)
                if ((size * 7 + right * 3 + left) % some == 0) multiply(left, right, size, TINY, &faults);
    multiply_nothing(&faults);
    multiply_some_large(&faults);
    return faults;
}

int main(void) { return on_every_level(PRODUCTS, every_product, every_product); }
