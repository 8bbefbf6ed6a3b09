/* SPDX-License-Identifier: Apache-2.0
 *
 * The host side of the GPU part without a GPU: the planner's rules for thousands of shapes, and every call down to a
 * driver that only checks (stub_driver.c). tests/cuda/run builds it and runs each mode. */
#define _GNU_SOURCE
#include <breccia/breccia_cuda.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cuda/arguments.h"
#include "cuda/plan.h"
#include "cuda/shape.h"

static int failures;
#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            failures++;                                                                                                \
            printf("%s:%d: %s: ", __FILE__, __LINE__, #condition);                                                     \
            printf(__VA_ARGS__);                                                                                       \
            printf("\n");                                                                                              \
        }                                                                                                              \
    } while (0)

typedef struct stub_seen {
    char kernel[96];
    uint32_t grid[3], block[3], shared, cluster;
    int cooperative, overlap, launches, maps, libraries;
    void *stream;
    unsigned char arguments[1024];
} stub_seen;

static uint64_t state = 1;
static int64_t below(int64_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)(state >> 33) % n;
}

static brc_cuda_product product(int64_t m, int64_t n, int64_t k, int scaling, uint32_t flags) {
    brc_cuda_product p;
    memset(&p, 0, sizeof p);
    p.size = sizeof p;
    p.flags = flags;
    p.a_format = p.b_format = BRC_E4M3;
    p.d_format = BRC_BF16;
    p.scaling = scaling;
    p.m = m;
    p.n = n;
    p.k = k;
    p.a_pitch = p.b_pitch = (k + 15) / 16 * 16;
    p.a = (void *)0x100000;
    p.b = (void *)0x200000;
    p.d = (void *)0x300000;
    p.a_scale = (void *)0x400000;
    p.b_scale = (void *)0x500000;
    p.a_scale_pitch = (m + 3) / 4 * 4;
    if (scaling == BRC_CUDA_BLOCK_ROWS) p.b_scale_pitch = (n + 3) / 4 * 4;
    return p;
}

static brc_cuda_product grouped(int grouping, int groups, int64_t m, int64_t n, int64_t k, int scaling) {
    brc_cuda_product p = product(m, n, k, scaling, 0);
    p.grouping = grouping;
    p.groups = groups;
    p.group_rows = grouping == BRC_CUDA_BATCH ? NULL : (const int32_t *)0x600000;
    return p;
}

/* What must hold for any plan. */
static void check_plan(const brc_cuda_product *p, const brc_cuda_plan *q) {
    char text[200];
    const size_t length = brc_cuda_plan_text(q, text, sizeof text);
    CHECK(length > 0 && length < sizeof text, "length %zu", length);
    if (q->kernel < 0) return;
    const brci_row *r = &brci_rows[q->kernel];
    CHECK(brci_plan_fits(p, q), "a plan of ours is refused: %s", text);
    CHECK(q->shared_bytes <= BRCI_SHARED_BYTES, "%s", text);
    CHECK(q->stages >= 2, "%s", text);
    CHECK(q->grid > 0 && q->cluster > 0 && q->grid % q->cluster == 0, "%s", text);
    CHECK(r->a == p->a_format && r->b == p->b_format, "%s", text);
    if (r->units) {
        const int64_t split = q->share ? 1 : q->cluster;
        CHECK(p->m <= r->bn && p->scaling != BRC_CUDA_BLOCK_ROWS && !p->grouping, "%s", text);
        CHECK(q->rows % 8 == 0 && q->rows >= 8 && q->rows <= 64 && q->tile_n == r->units * q->rows, "%s", text);
        const int64_t stage = (q->tile_n + r->bn) * 128 + BRCI_SMALL_SCALES,
                      ring = BRCI_SMALL_HEAD + 64 * 128 + q->stages * stage,
                      sums = brci_small_sum_bytes(q->tile_n, r->bn);
        const int once = q->grid / split * q->tile_n >= p->n;
        CHECK(once || q->cluster == 1, "blocks of a cluster do one height of rows: %s", text);
        CHECK(once ? sums <= q->stages * stage : ring + sums <= q->shared_bytes, "the sums do not fit: %s", text);
        CHECK(ring <= q->shared_bytes, "%s", text);
        CHECK(split <= (p->k + 127) / 128, "an empty part of K: %s", text);
        CHECK(!q->share || r->bn / q->cluster % 8 == 0, "%s", text);
        CHECK(q->stages <= BRCI_SMALL_STAGES && BRCI_SMALL_HEAD >= 16 * BRCI_SMALL_STAGES, "%s", text);
    } else {
        CHECK(r->mode == brci_product_mode(p) ||
                  ((r->share == BRCI_GROUPS || r->share == BRCI_K) && r->mode == BRCI_PROMOTED),
              "%s", text);
        CHECK((r->share == BRCI_GROUPS) == (p->grouping != BRC_CUDA_ONE), "%s", text);
        CHECK(p->grouping != BRC_CUDA_INDEXED || 128 % q->tile_m == 0, "two products in a tile: %s", text);
        CHECK(!p->grouping || q->grid > 131, "fewer blocks than the rows on the device may need: %s", text);
        CHECK(q->tile_m == brci_tile_rows(r->team, r->mw) && q->tile_n == r->bn, "%s", text);
        CHECK((q->grid <= 132 || r->share == BRCI_K) && q->group >= 1, "%s", text);
        CHECK(r->share != BRCI_K || p->k > 128, "an empty part of K: %s", text);
    }
}

static void planner(void) {
    static const int scalings[] = {BRC_CUDA_PER_TENSOR, BRC_CUDA_PER_ROW, BRC_CUDA_BLOCK, BRC_CUDA_BLOCK_ROWS};
    int plain = 0;
    for (int i = 0; i < 4000; i++) {
        const int64_t m = 1 + below(i % 3 ? 200 : 20000), n = 1 + below(40000), k = 1 + below(20000);
        brc_cuda_product p = product(m, n, k, scalings[i % 4], (uint32_t)(i / 4 % 2 ? BRC_CUDA_FAST_ACCUM : 0));
        brc_cuda_plan q, again;
        p.a_format = i % 5 ? BRC_E4M3 : BRC_E5M2;
        p.b_format = i % 7 ? BRC_E4M3 : BRC_E5M2;
        CHECK(brc_cuda_plan_product(&p, 132, &q, NULL) == BRC_OK, "%lld %lld %lld", (long long)m, (long long)n,
              (long long)k);
        check_plan(&p, &q);
        plain += q.kernel < 0;
        brc_cuda_plan_product(&p, 132, &again, NULL);
        CHECK(!memcmp(&q, &again, sizeof q), "not a function of its arguments");
        for (int row = 0; row < brci_row_count; row++)
            if (brc_cuda_plan_row(&p, 132, row, &q, NULL) == BRC_OK) check_plan(&p, &q);
    }
    for (int i = 0; i < 2000; i++) {
        brc_cuda_product p = grouped(BRC_CUDA_BATCH + i % 4, 1 + (int)below(300), 1 + below(9000), 1 + below(9000),
                                     1 + below(9000), scalings[i / 4 % 4]);
        brc_cuda_plan q;
        p.flags = (uint32_t)(i % 3 ? 0 : BRC_CUDA_FAST_ACCUM);
        p.a_format = i % 5 ? BRC_E4M3 : BRC_E5M2;
        p.expected_rows = i % 2 ? 0 : 1 + below(200);
        CHECK(brc_cuda_plan_product(&p, 132, &q, NULL) == BRC_OK, "grouping %d", (int)p.grouping);
        check_plan(&p, &q);
        plain += q.kernel < 0;
        for (int row = 0; row < brci_row_count; row++)
            if (brc_cuda_plan_row(&p, 132, row, &q, NULL) == BRC_OK) check_plan(&p, &q);
    }
    CHECK(plain < 500, "%d of 6000 shapes run on the plain kernel", plain);
    brc_cuda_plan q;
    brc_error err;
    brc_cuda_product p = product(64, 64, 64, 0, 0);
    p.a_pitch = 65;
    CHECK(brc_cuda_plan_product(&p, 0, &q, NULL) == BRC_OK && q.kernel == -1, "a pitch of 65 bytes");
    p = product(-1, 64, 64, 0, 0);
    CHECK(brc_cuda_plan_product(&p, 0, &q, &err) == BRC_SHAPE, "%s", err.text);
    p = product(64, 64, 64, 9, 0);
    CHECK(brc_cuda_plan_product(&p, 0, &q, &err) == BRC_ARGUMENT, "%s", err.text);
    p = grouped(BRC_CUDA_INDEXED + 1, 2, 64, 64, 64, 0);
    CHECK(brc_cuda_plan_product(&p, 0, &q, &err) == BRC_ARGUMENT, "%s", err.text);
    p = grouped(BRC_CUDA_MASKED, 65536, 64, 64, 64, 0);
    CHECK(brc_cuda_plan_product(&p, 0, &q, &err) == BRC_LIMIT, "%s", err.text);
    p = product(64, 64, 64, 0, 0);
    p.size = 100;
    CHECK(brc_cuda_plan_product(&p, 0, &q, &err) == BRC_ARGUMENT, "%s", err.text);
    CHECK(brc_cuda_plan_product(NULL, 0, &q, &err) == BRC_ARGUMENT, "%s", err.text);
    /* A device of one multiprocessor holds no cluster. */
    for (int64_t m = 4; m < 5000; m *= 10) {
        p = product(m, 4096, 4096, 0, 0);
        CHECK(brc_cuda_plan_product(&p, 1, &q, &err) == BRC_OK && q.cluster == 1 && q.grid >= 1, "grid %d", q.grid);
    }
    /* One tile of the plain kernel has one multiprocessor's rate, not the device's. */
    p = product(64, 64, 1024, BRC_CUDA_BLOCK, 0);
    CHECK(brc_cuda_plan_product(&p, 132, &q, &err) == BRC_OK && q.kernel >= 0, "the plain kernel");
    /* Few rows for each of few experts: narrow tiles, so that all multiprocessors read weights. */
    p = grouped(BRC_CUDA_MASKED, 2, 128, 4096, 7168, BRC_CUDA_BLOCK);
    p.expected_rows = 8;
    CHECK(brc_cuda_plan_product(&p, 132, &q, &err) == BRC_OK && q.tile_n == 64, "tile_n %d", q.tile_n);
    p = product(64, 64, 64, 0, 0);
    p.b_format = BRC_E2M1;
    CHECK(brc_cuda_plan_product(&p, 0, &q, &err) == BRC_FORMAT, "%s", err.text);
    CHECK(brc_cuda_plan_row(&p, 0, brci_row_count, &q, &err) == BRC_FORMAT, "%s", err.text);
    /* Decode: all multiprocessors get equal shares of B, none waits for a second round. */
    p = product(16, 28672, 8192, BRC_CUDA_BLOCK, 0);
    brc_cuda_plan_product(&p, 132, &q, NULL);
    CHECK(brci_rows[q.kernel].units && q.grid <= 132 && q.grid >= 120, "grid %d", q.grid);
    /* 2112 columns are twelve tiles of 176, or eleven of 192: less than three rounds. */
    p = product(4096, 2112, 7168, BRC_CUDA_PER_TENSOR, BRC_CUDA_FAST_ACCUM);
    brc_cuda_plan_product(&p, 132, &q, NULL);
    CHECK(q.tile_n == 176, "tile_n %d", q.tile_n);
}

static void *many(void *seen) {
    (void)seen;
    for (int i = 0; i < 200; i++) {
        brc_cuda_product p = product(1 + i, 128 + 8 * i, 256, i % 4, 0);
        if (brc_cuda_matmul(&p, NULL, NULL) != BRC_OK) return (void *)1;
    }
    return NULL;
}

static int refused(const brc_cuda_product *p) { return brc_cuda_matmul(p, NULL, NULL) == BRC_ARGUMENT; }

/* Plans that were kept for another product, or changed so that their kernel would hang or read what is not there. */
static void plans(void) {
    brc_error err;
    brc_cuda_plan plan;
    brc_cuda_product p;
    for (int64_t m = 4; m < 5000; m *= 10) {
        p = product(m, 2112, 4096, 0, 0);
        CHECK(brc_cuda_plan_product(&p, 132, &plan, &err) == BRC_OK, "%s", err.text);
        const brc_cuda_plan good = plan;
        p.plan = &plan;
        CHECK(brc_cuda_matmul(&p, NULL, &err) == BRC_OK, "%s", err.text);
        const struct {
            int32_t *part, value;
        } bad[] = {{&plan.kernel, 1 << 20}, {&plan.grid, 0},   {&plan.grid, -2},         {&plan.cluster, 3},
                   {&plan.tile_m, 0},       {&plan.tile_n, 0}, {&plan.shared_bytes, 64}, {&plan.shared_bytes, 1 << 20}};
        for (int i = 0; i < 8; i++) {
            plan = good;
            *bad[i].part = bad[i].value;
            CHECK(refused(&p), "m %d: a plan that does not fit, %d", (int)m, i);
        }
        plan = good;
        plan.size = 0;
        CHECK(refused(&p), "a plan of another version");
        plan = good;
        p.a_format = BRC_E5M2;
        CHECK(refused(&p), "m %d: a plan for another format", (int)m);
        p.a_format = BRC_E4M3;
        p.scaling = BRC_CUDA_BLOCK_ROWS;
        CHECK(refused(&p), "m %d: a plan for other scales", (int)m);
    }
    p = product(4, 2112, 4096, 0, 0);
    brc_cuda_plan_product(&p, 132, &plan, &err);
    p = product(200, 2112, 4096, 0, 0);
    p.plan = &plan;
    CHECK(refused(&p), "more rows than the kernel has tokens");
    p = product(32, 2112, 4096, 0, 0);
    brc_cuda_plan_product(&p, 132, &plan, &err);
    CHECK(brci_rows[plan.kernel].share == BRCI_K, "a plan that splits K is wanted here");
    p = product(32, 8192, 4096, 0, 0);
    p.plan = &plan;
    CHECK(refused(&p), "fewer blocks than tiles, in a kernel whose blocks do one each");
}

/* Flags of no meaning, and addresses in the middle of a number. */
static void no_products(void) {
    const brc_cuda_product good = product(300, 2112, 4096, 0, 0);
    brc_error err;
    char text[16];
    brc_cuda_product p = good;
    CHECK(brc_cuda_matmul(&p, NULL, &err) == BRC_OK, "%s", err.text);
    p.flags = 16;
    CHECK(refused(&p), "flags 16");
    p = good;
    p.d = (char *)p.d + 1;
    CHECK(refused(&p), "a result at an odd address");
    p = good;
    p.d_format = BRC_F32;
    p.d = (char *)p.d + 2;
    CHECK(refused(&p), "a result in F32 at an address that is no multiple of 4");
    p = good;
    p.a_scale = (const float *)((const char *)p.a_scale + 2);
    CHECK(refused(&p), "scales of a in the middle of a number");
    p = good;
    p.b_scale = (const float *)((const char *)p.b_scale + 1);
    CHECK(refused(&p), "scales of b in the middle of a number");
    p = good;
    p.bias = (const char *)p.d + 1;
    p.bias_format = BRC_BF16;
    CHECK(refused(&p), "a bias at an odd address");
    CHECK(brc_cuda_plan_text(NULL, text, sizeof text) == 7 && !strcmp(text, "no plan"), "%s", text);
}

/* What the GPU must not be handed. */
static void no_casts(void) {
    const int64_t shape[2] = {64, 256}, other[2] = {32, 256};
    const brc_array x = brc_array_of(BRC_BF16, 2, shape, (void *)0x100000);
    brc_array a = x;
    brc_recipe recipe, garbage;
    brc_tensor t, u;
    brc_error err;
    CHECK(brc_recipe_parse("mxfp8", &recipe, &err) == BRC_OK, "%s", err.text);
    CHECK(brc_tensor_plan(&recipe, 2, shape, &t, NULL, &err) == BRC_OK, "%s", err.text);
    CHECK(brc_tensor_plan(&recipe, 2, other, &u, NULL, &err) == BRC_OK, "%s", err.text);
    t.data = u.data = (void *)0x200000;
    t.scale.data = u.scale.data = (void *)0x300000;
    memset(&garbage, 0xEE, sizeof garbage);
    CHECK(brc_cuda_cast(NULL, &recipe, NULL, &t, NULL, &err) == BRC_ARGUMENT, "%s", err.text);
    CHECK(brc_cuda_cast(&x, NULL, NULL, &t, NULL, &err) == BRC_RECIPE, "%s", err.text);
    CHECK(brc_cuda_cast(&x, &garbage, NULL, &t, NULL, &err) == BRC_RECIPE, "%s", err.text);
    CHECK(brc_cuda_cast(&x, &recipe, NULL, NULL, NULL, &err) == BRC_ARGUMENT, "%s", err.text);
    CHECK(brc_cuda_cast(&x, &recipe, NULL, &u, NULL, &err) == BRC_SHAPE, "a destination of half the rows: %s",
          err.text);
    CHECK(brc_cuda_cast(&x, &recipe, NULL, &t, NULL, &err) == BRC_OK, "%s", err.text);
    a.data = (void *)0x100001;
    CHECK(brc_cuda_cast(&a, &recipe, NULL, &t, NULL, &err) == BRC_ARGUMENT, "%s", err.text);
    CHECK(brc_cuda_dequantize(&t, &a, NULL, &err) == BRC_ARGUMENT, "%s", err.text);
    a = x;
    t.scale.format = BRC_F32;
    CHECK(brc_cuda_cast(&x, &recipe, NULL, &t, NULL, &err) == BRC_SHAPE, "scales of another format: %s", err.text);
    t.scale.data = (void *)0x300002;
    CHECK(brc_cuda_dequantize(&t, &a, NULL, &err) == BRC_ARGUMENT, "%s", err.text);
    t.scale.data = (void *)0x300000;
    t.scale.format = BRC_E8M0;
    t.scale.block.cols = 64;
    CHECK(brc_cuda_cast(&x, &recipe, NULL, &t, NULL, &err) == BRC_SHAPE, "scales of other blocks: %s", err.text);
    t.scale.block.cols = 32;
    CHECK(brc_cuda_dequantize(NULL, &a, NULL, &err) == BRC_ARGUMENT, "%s", err.text);
    CHECK(brc_cuda_dequantize(&t, NULL, NULL, &err) == BRC_ARGUMENT, "%s", err.text);
    CHECK(brc_cuda_requantize(NULL, &recipe, NULL, &t, NULL, &err) == BRC_ARGUMENT, "%s", err.text);
    a.data = NULL;
    CHECK(brc_cuda_cast(&a, &recipe, NULL, &t, NULL, &err) == BRC_ARGUMENT, "%s", err.text);
    CHECK(brc_cuda_dequantize(&t, &a, NULL, &err) == BRC_ARGUMENT, "%s", err.text);
    a = x;
    a.shape[0] = -64;
    CHECK(brc_cuda_cast(&a, &recipe, NULL, &t, NULL, &err) == BRC_SHAPE, "%s", err.text);
    a.rank = 200;
    t.rank = 200;
    CHECK(brc_cuda_dequantize(&t, &a, NULL, &err) == BRC_SHAPE, "%s", err.text);
    CHECK(brc_cuda_requantize(&t, &recipe, NULL, &t, NULL, &err) == BRC_SHAPE, "%s", err.text);
    const int64_t row[2] = {1, INT64_C(1) << 36};
    const brc_array wide = brc_array_of(BRC_BF16, 2, row, (void *)0x100000);
    CHECK(brc_tensor_plan(&recipe, 2, row, &u, NULL, &err) == BRC_OK, "%s", err.text);
    CHECK(brc_cuda_cast(&wide, &recipe, NULL, &u, NULL, &err) == BRC_LIMIT, "%s", err.text);
    a = x;
    t.rank = 2;
    t.scale.data = NULL;
    CHECK(brc_cuda_cast(&x, &recipe, NULL, &t, NULL, &err) == BRC_ARGUMENT, "%s", err.text);
    CHECK(brc_cuda_dequantize(&t, &a, NULL, &err) == BRC_ARGUMENT, "%s", err.text);
    CHECK(brc_cuda_devices(NULL, &err) == BRC_ARGUMENT, "%s", err.text);
}

static void calls(void) {
    brc_error err;
    const stub_seen *seen = dlsym(dlopen("libcuda.so.1", RTLD_NOW), "stub_seen");
    int devices = 0, stream = 0;
    CHECK(seen != NULL, "the stub is not in use");
    if (!seen) return;
    CHECK(brc_cuda_devices(&devices, &err) == BRC_OK && devices == 2, "%d", devices);
    CHECK(brc_cuda_use(1, &err) == BRC_OK, "%s", err.text);
    CHECK(brc_cuda_use(2, &err) == BRC_NO_DEVICE, "device 2 of 2");
    CHECK(brc_cuda_prepare(&err) == BRC_OK, "%s", err.text);
    for (int i = 0; i < 3000; i++) {
        const int64_t m = 1 + below(i % 2 ? 128 : 5000), n = 1 + below(9000), k = 1 + below(9000);
        brc_cuda_product p = product(m, n, k, i % 4, (uint32_t)below(16));
        p.d_format = (uint8_t)(i % 3 ? BRC_BF16 : BRC_F32);
        if (i % 11 == 0) p.b = (void *)0x200001; /* the plain kernel */
        const int before = seen->launches;
        CHECK(brc_cuda_matmul(&p, &stream, &err) == BRC_OK, "%lld x %lld x %lld: %s", (long long)m, (long long)n,
              (long long)k, err.text);
        CHECK(seen->launches == before + 1 && seen->stream == &stream, "one launch on the caller's stream");
        CHECK(seen->shared <= 232448 && (i % 11 || !strcmp(seen->kernel, "gemm_plain")), "%s", seen->kernel);
        CHECK(!strcmp(seen->kernel, "gemm_plain") || seen->overlap == !(p.flags & BRC_CUDA_NO_OVERLAP), "%s",
              seen->kernel);
    }
    for (int i = 0; i < 1000; i++) {
        const int64_t m = 1 + below(3000), n = 1 + below(5000), k = 1 + below(5000);
        brc_cuda_product p = grouped(BRC_CUDA_BATCH + i % 4, 1 + (int)below(200), m, n, k, i / 4 % 4);
        brci_gemm_args g;
        p.d_format = (uint8_t)(i % 3 ? BRC_BF16 : BRC_F32);
        if (i % 11 == 0) p.b = (void *)0x200001;
        CHECK(brc_cuda_matmul(&p, &stream, &err) == BRC_OK, "%d x %lld x %lld x %lld: %s", p.groups, (long long)m,
              (long long)n, (long long)k, err.text);
        CHECK(i % 11 ? strstr(seen->kernel, "_GROUPS") != NULL : !strcmp(seen->kernel, "gemm_plain"), "%s",
              seen->kernel);
        if (i % 11 == 0) continue;
        memcpy(&g, seen->arguments, sizeof g);
        CHECK(g.groups == p.groups && g.group_rows == p.group_rows && g.grouping == p.grouping - BRC_CUDA_BATCH &&
                  g.d_step == m * n && g.col_step > 0,
              "%d groups, grouping %d", g.groups, g.grouping);
    }
    {
        brc_cuda_product p = grouped(BRC_CUDA_RAGGED, 4, 512, 512, 512, BRC_CUDA_BLOCK);
        const int launches = seen->launches;
        p.group_rows = NULL;
        CHECK(brc_cuda_matmul(&p, NULL, &err) == BRC_ARGUMENT, "%s", err.text);
        p = grouped(BRC_CUDA_RAGGED, 0, 512, 512, 512, BRC_CUDA_BLOCK);
        CHECK(brc_cuda_matmul(&p, NULL, &err) == BRC_OK && seen->launches == launches, "no products, nothing to do");
    }
    /* A second call of the same product encodes nothing. */
    brc_cuda_product p = product(512, 512, 512, BRC_CUDA_BLOCK, 0);
    brc_cuda_matmul(&p, NULL, &err);
    const int maps = seen->maps;
    CHECK(brc_cuda_matmul(&p, NULL, &err) == BRC_OK && seen->maps == maps, "%d maps", seen->maps - maps);
    struct timespec t0, t1;
    clock_gettime(CLOCK_MONOTONIC, &t0);
    for (int i = 0; i < 20000; i++) brc_cuda_matmul(&p, NULL, NULL);
    clock_gettime(CLOCK_MONOTONIC, &t1);
    printf("host time of a product, driver's own apart: %.2f us\n",
           ((double)(t1.tv_sec - t0.tv_sec) * 1e9 + (double)(t1.tv_nsec - t0.tv_nsec)) / 20000e3);

    p.m = 0;
    int launches = seen->launches;
    CHECK(brc_cuda_matmul(&p, NULL, &err) == BRC_OK && seen->launches == launches, "nothing to do");
    p = product(8, 8, 0, 0, 0);
    CHECK(brc_cuda_matmul(&p, NULL, &err) == BRC_OK && !strcmp(seen->kernel, "gemm_plain"), "K = 0 writes zeros: %s",
          seen->kernel);
    plans();
    CHECK(brc_cuda_matmul(NULL, NULL, &err) == BRC_ARGUMENT, "%s", err.text);
    p = product(0, 8, 16, 0, 0);
    p.a_format = BRC_F32;
    CHECK(brc_cuda_matmul(&p, NULL, &err) == BRC_FORMAT, "no elements are checked all the same: %s", err.text);
    p = product(64, 8, 256, BRC_CUDA_BLOCK, 0);
    p.a_scale_pitch = 60;
    CHECK(brc_cuda_matmul(&p, NULL, &err) == BRC_SHAPE, "%s", err.text);
    p = grouped(BRC_CUDA_BATCH, 2, 64, 64, 128, 0);
    p.a_step = -8192;
    CHECK(brc_cuda_matmul(&p, NULL, &err) == BRC_SHAPE, "%s", err.text);
    p = product(8, 8, 16, 0, 0);
    p.d = NULL;
    CHECK(brc_cuda_matmul(&p, NULL, &err) == BRC_ARGUMENT, "%s", err.text);
    p = product(8, 8, 16, 0, 0);
    p.d_format = BRC_F64;
    CHECK(brc_cuda_matmul(&p, NULL, &err) == BRC_FORMAT, "%s", err.text);
    p = product(8, 8, 160, 0, 0);
    p.a_pitch = 16;
    CHECK(brc_cuda_matmul(&p, NULL, &err) == BRC_SHAPE, "%s", err.text);

    static const char *const recipes[] = {"fp8",        "fp8-row", "fp8-block", "fp8-block128", "mxfp8", "mxfp6-e3m2",
                                          "mxfp6-e2m3", "mxfp4",   "nvfp4",     "int8",         "int4"};
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++)
        for (int format = BRC_F32; format <= BRC_BF16; format++) {
            const int64_t shape[2] = {384, 1024};
            brc_array x = brc_array_of((brc_format)format, 2, shape, (void *)0x100000);
            brc_recipe recipe;
            brc_tensor t;
            brc_sizes sizes;
            const brc_cuda_cast_options o = {.size = sizeof o, .scratch = (void *)0x900000};
            CHECK(brc_recipe_parse(recipes[i], &recipe, &err) == BRC_OK, "%s", err.text);
            CHECK(brc_tensor_plan(&recipe, 2, shape, &t, &sizes, &err) == BRC_OK, "%s", err.text);
            t.data = (void *)0x200000;
            t.scale.data = (void *)0x300000;
            if (sizes.global) t.global.data = (void *)0x400000;
            launches = seen->launches;
            CHECK(brc_cuda_cast(&x, &recipe, &o, &t, &stream, &err) == BRC_OK, "%s: %s", recipes[i], err.text);
            CHECK(seen->launches == launches + 1 + !strcmp(recipes[i], "nvfp4"), "%s: %d launches", recipes[i],
                  seen->launches - launches);
            CHECK(seen->cooperative == !strcmp(recipes[i], "fp8"), "%s", seen->kernel);
            CHECK(brc_cuda_dequantize(&t, &x, &stream, &err) == BRC_OK, "%s: %s", recipes[i], err.text);
            CHECK(strstr(seen->kernel, "dequantize_") == seen->kernel, "%s", seen->kernel);
        }
    brc_recipe affine;
    brc_tensor t;
    brc_sizes sizes;
    const int64_t shape[2] = {128, 256};
    brc_array x = brc_array_of(BRC_BF16, 2, shape, (void *)0x100000);
    if (brc_recipe_parse("int4:zero=int8,rule=minmax", &affine, &err) == BRC_OK &&
        brc_tensor_plan(&affine, 2, shape, &t, &sizes, &err) == BRC_OK)
        CHECK(brc_cuda_cast(&x, &affine, NULL, &t, NULL, &err) == BRC_UNSUPPORTED, "%s", err.text);

    no_casts();
    no_products();
    /* A cast with its transpose; options of other versions. */
    brc_recipe block;
    brc_tensor turned;
    const int64_t across[2] = {256, 128};
    brc_cuda_cast_options o = {.size = sizeof o, .transposed = &turned};
    CHECK(brc_recipe_parse("fp8-block", &block, &err) == BRC_OK, "%s", err.text);
    CHECK(brc_tensor_plan(&block, 2, shape, &t, &sizes, &err) == BRC_OK, "%s", err.text);
    CHECK(brc_tensor_plan(&block, 2, across, &turned, &sizes, &err) == BRC_OK, "%s", err.text);
    t.data = (void *)0x200000;
    t.scale.data = (void *)0x300000;
    CHECK(brc_cuda_cast(&x, &block, &o, &t, NULL, &err) == BRC_ARGUMENT, "%s", err.text);
    turned.data = (void *)0x500000;
    turned.scale.data = (void *)0x600000;
    CHECK(brc_cuda_cast(&x, &block, &o, &t, NULL, &err) == BRC_OK, "%s", err.text);
    CHECK(!strcmp(seen->kernel, "cast_both_blocks_BF16_E4M3"), "%s", seen->kernel);
    turned.scale.block.cols = 64;
    CHECK(brc_cuda_cast(&x, &block, &o, &t, NULL, &err) == BRC_SHAPE, "transposed scales of other blocks");
    turned.scale.block.cols = 128;
    turned.scale.data = (void *)0x600002;
    CHECK(brc_cuda_cast(&x, &block, &o, &t, NULL, &err) == BRC_ARGUMENT, "transposed scales in the middle of a number");
    turned.scale.data = (void *)0x600000;
    o.transposed = &t;
    CHECK(brc_cuda_cast(&x, &block, &o, &t, NULL, &err) == BRC_SHAPE, "%s", err.text);
    o = (brc_cuda_cast_options){.size = offsetof(brc_cuda_cast_options, transposed)};
    CHECK(brc_cuda_cast(&x, &block, &o, &t, NULL, &err) == BRC_OK, "%s", err.text);
    o.size = 8;
    CHECK(brc_cuda_cast(&x, &block, &o, &t, NULL, &err) == BRC_ARGUMENT, "%s", err.text);
    o = (brc_cuda_cast_options){.size = sizeof o, .transposed = &turned};
    CHECK(brc_recipe_parse("nvfp4", &block, &err) == BRC_OK, "%s", err.text);
    CHECK(brc_tensor_plan(&block, 2, shape, &t, &sizes, &err) == BRC_OK, "%s", err.text);
    t.data = (void *)0x200000;
    t.scale.data = (void *)0x300000;
    CHECK(brc_cuda_cast(&x, &block, &o, &t, NULL, &err) == BRC_UNSUPPORTED, "%s", err.text);

    pthread_t threads[8];
    for (int i = 0; i < 8; i++) pthread_create(&threads[i], NULL, many, NULL);
    for (int i = 0; i < 8; i++) {
        void *wrong = NULL;
        pthread_join(threads[i], &wrong);
        CHECK(!wrong, "thread %d", i);
    }
}

/* The statuses of a machine that lacks something. */
static void refusal(brc_status expected) {
    brc_error err = {BRC_OK, 0, ""};
    int devices = 7;
    brc_cuda_product p = product(16, 16, 16, 0, 0);
    CHECK(brc_cuda_devices(&devices, &err) == expected && devices == 0, "status %d, text %s", err.status, err.text);
    CHECK(brc_cuda_matmul(&p, NULL, &err) == expected && err.status == expected && err.text[0], "status %d, text %s",
          err.status, err.text);
    printf("%s\n", err.text);
}

/* A device before Hopper: casts run, from PTX and without overlapping launches, products say why not. */
static void casts_only(void) {
    brc_error err;
    const stub_seen *seen = dlsym(dlopen("libcuda.so.1", RTLD_NOW), "stub_seen");
    const int64_t shape[2] = {384, 1024};
    brc_array x = brc_array_of(BRC_BF16, 2, shape, (void *)0x100000);
    brc_cuda_product p = product(16, 16, 16, 0, 0);
    brc_recipe recipe;
    brc_tensor t;
    int devices = 0;
    CHECK(seen && brc_cuda_devices(&devices, &err) == BRC_OK && devices == 2, "%d", devices);
    CHECK(brc_cuda_prepare(&err) == BRC_OK, "%s", err.text);
    brc_recipe_parse("mxfp8", &recipe, &err);
    brc_tensor_plan(&recipe, 2, shape, &t, NULL, &err);
    t.data = (void *)0x200000;
    t.scale.data = (void *)0x300000;
    CHECK(brc_cuda_cast(&x, &recipe, NULL, &t, NULL, &err) == BRC_OK && seen->launches == 1 && !seen->overlap, "%s",
          err.text);
    CHECK(brc_cuda_matmul(&p, NULL, &err) == BRC_UNSUPPORTED && strstr(err.text, "sm_90a"), "%s", err.text);
    printf("%s\n", err.text);
}

int main(int count, char **arguments) {
    const char *mode = count > 1 ? arguments[1] : "";
    brc_error err;
    if (!strcmp(mode, "planner")) planner();
    else if (!strcmp(mode, "calls")) calls();
    else if (!strcmp(mode, "no driver")) refusal(BRC_NO_DRIVER);
    else if (!strcmp(mode, "no device")) refusal(BRC_NO_DEVICE);
    else if (!strcmp(mode, "older device")) refusal(BRC_UNSUPPORTED);
    else if (!strcmp(mode, "other device")) casts_only();
    else if (!strcmp(mode, "no context") || !strcmp(mode, "full")) {
        brc_cuda_product p = product(16, 16, 16, 0, 0);
        CHECK(brc_cuda_matmul(&p, NULL, &err) == BRC_DEVICE, "status %d", err.status);
        printf("%s\n", err.text);
    } else return 2;
    printf("%s: %s\n", mode, failures ? "WRONG" : "right");
    return failures != 0;
}
