/* SPDX-License-Identifier: Apache-2.0
 *
 * Packed narrow weights without a GPU: what can be packed, every plan's rules, and the calls down to the stub driver.
 */
#define _GNU_SOURCE
#include <breccia/breccia_cuda.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/arguments.h"
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

/* Of every row of the table, the warpgroups that share stages; 0: a row that frees a stage before it waits for the
 * next. */
static const struct {
    int mw, wgs;
} rows[] = {
#define NARROW_FEW(codes, scales, group, a, nb) {0, 0},
#define NARROW_MANY(codes, scales, group, a, nb, mw, wgs) {mw, wgs},
#include "cuda/narrow.def"
};
static int fewest_stages(const brc_cuda_packed_plan *q) {
    const int mw = rows[q->kernel].mw, wgs = rows[q->kernel].wgs;
    return mw ? 2 * wgs / brci_many_sides(wgs, mw, q->rows / 16) : 1;
}

static const char *const recipes[] = {"mxfp4",
                                      "nvfp4",
                                      "mxfp8",
                                      "int4",
                                      "int4:group=32,scale=bf16",
                                      "int4:group=64,scale=f32",
                                      "int4:group=256",
                                      "fp8",
                                      "fp8-row",
                                      "fp8-block",
                                      "fp8-block128"};

static brc_tensor weights(const char *text, int64_t n, int64_t k) {
    const int64_t shape[2] = {n, k};
    brc_recipe recipe;
    brc_tensor t;
    brc_sizes sizes;
    brc_error err;
    CHECK(brc_recipe_parse(text, &recipe, &err) == BRC_OK, "%s: %s", text, err.text);
    recipe.partial = 1;
    CHECK(brc_tensor_plan(&recipe, 2, shape, &t, &sizes, &err) == BRC_OK, "%s %lld x %lld: %s", text, (long long)n,
          (long long)k, err.text);
    t.data = (void *)0x200000;
    t.scale.data = (void *)0x300000;
    if (sizes.global) t.global.data = (void *)0x400000;
    return t;
}

static brc_cuda_packed_product product(const brc_cuda_packed *b, int64_t m) {
    brc_cuda_packed_product p;
    memset(&p, 0, sizeof p);
    p.size = sizeof p;
    p.a_format = b->activations;
    p.d_format = BRC_BF16;
    p.m = m;
    p.a = (void *)0x100000;
    p.a_pitch = (b->k + 15) / 16 * 16;
    p.a_scale = (void *)0x700000;
    p.b = b;
    p.d = (void *)0x500000;
    return p;
}

static void planner(void) {
    brc_error err;
    for (int i = 0; i < 3000; i++) {
        const char *text = recipes[i % (int)(sizeof recipes / sizeof *recipes)];
        const int64_t m = 1 + below(i % 2 ? 64 : 5000), n = 1 + below(40000), k = 1 + below(20000);
        const brc_tensor t = weights(text, n, k);
        brc_cuda_packed b;
        brc_cuda_packed_plan q, again;
        CHECK(brc_cuda_pack_plan(&t, i % 3 ? BRC_BF16 : BRC_F16, &b, &err) == BRC_OK, "%s: %s", text, err.text);
        CHECK(b.chunk_bytes % 16 == 0 && b.bytes >= brc_row_bytes((brc_format)t.format, k) * n, "%s: %lld bytes", text,
              (long long)b.bytes);
        b.data = (void *)0x600000;
        const brc_cuda_packed_product p = product(&b, m);
        CHECK(brc_cuda_plan_packed(&p, 132, &q, &err) == BRC_OK, "%s %lld %lld %lld: %s", text, (long long)m,
              (long long)n, (long long)k, err.text);
        CHECK(q.shared_bytes <= BRCI_SHARED_BYTES && q.stages >= fewest_stages(&q) && q.grid > 0 &&
                  q.grid % q.cluster == 0 && q.rows % 16 == 0,
              "%s %lld %lld %lld: shared %d, %d stages, grid %d, cluster %d, %d rows", text, (long long)m, (long long)n,
              (long long)k, q.shared_bytes, q.stages, q.grid, q.cluster, q.rows);
        /* A cluster has one tile: together they cover the product. */
        const int64_t tiles = (n + q.rows - 1) / q.rows * ((m + q.tokens - 1) / q.tokens);
        CHECK(q.cluster == 1 || q.share || q.grid / q.cluster == tiles, "%d clusters for %lld tiles",
              q.grid / q.cluster, (long long)tiles);
        brc_cuda_plan_packed(&p, 132, &again, &err);
        CHECK(!memcmp(&q, &again, sizeof q), "not a function of its arguments");
    }

    /* Chunks: every one in a place of its own, those of a group that share K side by side. */
    for (int tiles = 1; tiles < 40; tiles += 3) {
        char seen[40 * 7] = {0};
        for (int tile = 0; tile < tiles; tile++)
            for (int k = 0; k < 7; k++) {
                const long long at = brci_chunk_at(tile, k, tiles, 7);
                CHECK(at >= 0 && at < tiles * 7 && !seen[at], "tile %d of %d, block %d: %lld", tile, tiles, k, at);
                CHECK(tile % 16 == 0 || at == brci_chunk_at(tile - 1, k, tiles, 7) + 1, "tile %d of %d", tile, tiles);
                seen[at] = 1;
            }
    }

    brc_cuda_packed b;
    brc_tensor t = weights("mxfp4", 64, 256);
    CHECK(brc_cuda_pack_plan(&t, BRC_F32, &b, &err) == BRC_FORMAT, "%s", err.text);
    t.zero.data = (void *)16;
    CHECK(brc_cuda_pack_plan(&t, BRC_BF16, &b, &err) == BRC_UNSUPPORTED, "%s", err.text);
    t = weights("int8", 64, 256);
    CHECK(brc_cuda_pack_plan(&t, BRC_BF16, &b, &err) == BRC_UNSUPPORTED, "%s", err.text);
    t = weights("mxfp4", 64, 256);
    t.rank = 3;
    CHECK(brc_cuda_pack_plan(&t, BRC_BF16, &b, &err) == BRC_SHAPE, "%s", err.text);
    t = weights("mxfp4", 64, 260);
    CHECK(brc_cuda_pack_plan(&t, BRC_BF16, &b, &err) == BRC_OK, "%s", err.text);
    brc_cuda_packed_plan q;
    brc_cuda_packed_product p = product(&b, 8);
    p.a_pitch = 0;
    CHECK(brc_cuda_plan_packed(&p, 0, &q, &err) == BRC_UNSUPPORTED, "%s", err.text);
    p = product(&b, 8);
    p.a_format = BRC_F16;
    CHECK(brc_cuda_plan_packed(&p, 0, &q, &err) == BRC_FORMAT, "%s", err.text);
    p = product(&b, -1);
    CHECK(brc_cuda_plan_packed(&p, 0, &q, &err) == BRC_SHAPE, "%s", err.text);
}

static void calls(void) {
    brc_error err;
    const stub_seen *seen = dlsym(dlopen("libcuda.so.1", RTLD_NOW), "stub_seen");
    int stream = 0;
    CHECK(seen != NULL, "the stub is not in use");
    if (!seen) return;
    CHECK(brc_cuda_prepare(&err) == BRC_OK, "%s", err.text);
    for (int i = 0; i < 2000; i++) {
        const char *text = recipes[i % (int)(sizeof recipes / sizeof *recipes)];
        const int64_t m = 1 + below(i % 2 ? 64 : 5000), n = 1 + below(9000), k = 1 + below(9000);
        const brc_tensor t = weights(text, n, k);
        brc_cuda_packed b;
        CHECK(brc_cuda_pack_plan(&t, i % 3 ? BRC_BF16 : BRC_F16, &b, &err) == BRC_OK, "%s", err.text);
        CHECK(brc_cuda_pack(&t, &b, &stream, &err) == BRC_ARGUMENT, "no memory");
        b.data = (void *)0x600000;
        int before = seen->launches;
        CHECK(brc_cuda_pack(&t, &b, &stream, &err) == BRC_OK && seen->launches == before + 2, "%s: %s", text, err.text);
        brc_cuda_packed_product p = product(&b, m);
        p.flags = (uint32_t)below(16) & (BRC_CUDA_ACCUMULATE | BRC_CUDA_B_UNCHANGED | BRC_CUDA_NO_OVERLAP);
        p.d_format = (uint8_t)(i % 5 ? BRC_BF16 : BRC_F32);
        before = seen->launches;
        CHECK(brc_cuda_matmul_packed(&p, &stream, &err) == BRC_OK, "%s %lld x %lld x %lld: %s", text, (long long)m,
              (long long)n, (long long)k, err.text);
        CHECK(seen->launches == before + 1 && seen->stream == &stream && !strncmp(seen->kernel, "narrow_", 7), "%s",
              seen->kernel);
        CHECK(seen->overlap == !(p.flags & BRC_CUDA_NO_OVERLAP), "%s", seen->kernel);
    }
    const brc_tensor t = weights("nvfp4", 64, 256);
    brc_cuda_packed b;
    brc_cuda_pack_plan(&t, BRC_BF16, &b, &err);
    b.data = (void *)0x600000;
    brc_cuda_packed_product p = product(&b, 0);
    const int launches = seen->launches;
    CHECK(brc_cuda_matmul_packed(&p, NULL, &err) == BRC_OK && seen->launches == launches, "nothing to do");
    p = product(&b, 4);
    brc_cuda_packed_plan plan;
    CHECK(brc_cuda_plan_packed(&p, 132, &plan, &err) == BRC_OK, "%s", err.text);
    const brc_cuda_packed_plan good = plan;
    const struct {
        int32_t *part, value;
    } bad[] = {{&plan.kernel, -1}, {&plan.rows, 0},   {&plan.rows, 100000}, {&plan.cluster, 3},
               {&plan.stages, 0},  {&plan.tokens, 9}, {&plan.grid, 0},      {&plan.shared_bytes, 1 << 20}};
    p.plan = &plan;
    for (int i = 0; i < 8; i++) {
        plan = good;
        *bad[i].part = bad[i].value;
        CHECK(brc_cuda_matmul_packed(&p, NULL, &err) == BRC_ARGUMENT, "a plan that does not fit, %d", i);
    }
    plan = good;
    plan.size = 0;
    CHECK(brc_cuda_matmul_packed(&p, NULL, &err) == BRC_ARGUMENT, "a plan of another version");
    plan = good;
    CHECK(brc_cuda_matmul_packed(&p, NULL, &err) == BRC_OK, "%s", err.text);
    p.m = 64;
    CHECK(brc_cuda_matmul_packed(&p, NULL, &err) == BRC_ARGUMENT, "a plan for fewer tokens");
    p.plan = NULL;
    CHECK(brc_cuda_matmul_packed(&p, NULL, &err) == BRC_OK, "%s", err.text);
    const brc_cuda_packed_product whole = p;
    p.flags = BRC_CUDA_FAST_ACCUM;
    CHECK(brc_cuda_matmul_packed(&p, NULL, &err) == BRC_ARGUMENT, "a flag that has no meaning here");
    p = whole;
    p.d = (char *)p.d + 1;
    CHECK(brc_cuda_matmul_packed(&p, NULL, &err) == BRC_ARGUMENT, "a result at an odd address");
    p = whole;
    p.bias = (char *)p.d + 2;
    p.bias_format = BRC_F32;
    CHECK(brc_cuda_matmul_packed(&p, NULL, &err) == BRC_ARGUMENT, "a bias in the middle of a number");
    p = whole;
    CHECK(brc_cuda_matmul_packed(NULL, NULL, &err) == BRC_ARGUMENT, "%s", err.text);
    CHECK(brc_cuda_pack_plan(NULL, BRC_BF16, &b, &err) == BRC_ARGUMENT, "%s", err.text);
    CHECK(brc_cuda_pack(&t, NULL, NULL, &err) == BRC_ARGUMENT, "%s", err.text);
    b.data = (void *)0x600010;
    CHECK(brc_cuda_matmul_packed(&p, NULL, &err) == BRC_ARGUMENT, "%s", err.text);
    b.data = (void *)0x600000;
    p.plan = NULL;
    p.d = NULL;
    CHECK(brc_cuda_matmul_packed(&p, NULL, &err) == BRC_ARGUMENT, "%s", err.text);
    b.k = 128;
    CHECK(brc_cuda_pack(&t, &b, NULL, &err) == BRC_ARGUMENT, "%s", err.text);
}

int main(int count, char **arguments) {
    const char *mode = count > 1 ? arguments[1] : "";
    if (!strcmp(mode, "planner")) planner();
    else if (!strcmp(mode, "calls")) calls();
    else return 2;
    printf("narrow weights, %s: %s\n", mode, failures ? "WRONG" : "right");
    return failures != 0;
}
