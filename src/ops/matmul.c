/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/matmul.h"
#include "cpu/packed.h"
#include "ops/integer.h"
#include "ops/parallel.h"
#include "ops/side.h"

#include <stdlib.h>

/* Leading dimensions are those of the output, or all 1 (or not there). */
static int batch_fits(const brci_side *s, const brc_array *out) {
    if (s->source.view.batch == 1) return 1;
    return s->rank == out->rank && memcmp(s->shape, out->shape, (size_t)(s->rank - 2) * sizeof *s->shape) == 0;
}

static void multiply(void *argument, uint32_t part, int64_t first, int64_t last) {
    (void)part;
    brci_reference_matmul(argument, first, last);
}

/* A product by the vector kernels: one slab of b after the other is packed and multiplied. */
typedef struct slab {
    const brci_kernels *kernels;
    const brci_multiplication *product;
    brci_slab packing;
    int64_t batch, column, columns;
    float *b, *a; /* a: one part for each thread */
} slab;

static void pack(void *argument, uint32_t part, int64_t first, int64_t last) {
    const slab *s = argument;
    (void)part;
    brci_cpu_pack(s->kernels, s->product, s->batch, s->column, first, last, s->b);
}

/* Items are tiles of rows, so that no thread cuts one. */
static void fill(void *argument, uint32_t part, int64_t first, int64_t last) {
    const slab *s = argument;
    const int64_t step = s->kernels->tile_m, end = last * step < s->product->m ? last * step : s->product->m;
    brci_cpu_multiply(s->kernels, s->product, s->batch, s->column, s->column + s->columns, first * step, end, s->b,
                      (float *)(void *)((char *)s->a + part * s->packing.a_bytes), s->packing.rows);
}

static void stream(void *argument, uint32_t part, int64_t first, int64_t last) {
    const slab *s = argument;
    (void)part;
    brci_cpu_stream(s->kernels, s->product, s->batch, first, last);
}

static int64_t tiles_of(int64_t n, int64_t step) { return (n + step - 1) / step; }

/* 0 where there is no memory for the packing, or k is too long for it: then the reference, which needs none, does the
 * work. */
static int multiply_packed(slab *s, const brc_options *options) {
    const brci_multiplication *p = s->product;
    /* 16 multiplications cost about as much as casting an element; the product of three sizes may exceed 63 bits. */
    const double multiplications = (double)p->m * (double)p->n * (double)p->k / 16;
    const int64_t tiles = tiles_of(p->m, s->kernels->tile_m),
                  work = multiplications < 1e18 ? (int64_t)multiplications : INT64_MAX;
    const uint32_t parts = brci_parts(options, tiles, work);
    if (!brci_cpu_slab(s->kernels, p, &s->packing)) return 0;
    const size_t b_bytes = ((size_t)s->packing.b_bytes + 63) / 64 * 64;
    s->b = aligned_alloc(64, b_bytes + parts * (size_t)s->packing.a_bytes);
    if (s->b == NULL) return 0;
    s->a = (float *)(void *)((char *)s->b + b_bytes);
    for (s->batch = 0; s->batch < p->batch; s->batch++)
        for (s->column = 0; s->column < p->n; s->column += s->packing.columns) {
            const int64_t rest = p->n - s->column,
                          panels = tiles_of(rest < s->packing.columns ? rest : s->packing.columns, s->kernels->tile_n);
            s->columns = rest < s->packing.columns ? rest : s->packing.columns;
            brci_parallel(brci_parts(options, panels, panels * s->kernels->tile_n * p->k), panels, pack, s);
            brci_parallel(parts, tiles, fill, s);
        }
    free(s->b);
    return 1;
}

static int multiply_fast(const brci_multiplication *p, const brc_options *options) {
    slab s = {.kernels = brci_cpu(), .product = p};
    if (s.kernels == NULL || !brci_cpu_matmul_fits(p) || p->m == 0 || p->n == 0) return 0;
    if (brci_integer_multiply(s.kernels, p, options)) return 1;
    if (p->m > BRCI_STREAM_ROWS || !p->transpose_b || p->transpose_a) return multiply_packed(&s, options);
    for (s.batch = 0; s.batch < p->batch; s.batch++)
        brci_parallel(brci_parts(options, p->n, p->n * p->k), p->n, stream, &s);
    return 1;
}

static brc_status check_output(const brc_product *p, const brci_side *a, const brci_side *b, brc_error *err) {
    brci_view out = brci_view_of(p->out->rank, p->out->shape);
    if (p->out->format == BRC_F64) return brci_fail(err, BRC_FORMAT, 0, "out: f32, f16 or bf16 is needed");
    if (p->out->rank < 2 || out.rows != a->rows || out.cols != b->cols || a->cols != b->rows)
        return brci_fail(err, BRC_SHAPE, 0, "shape mismatch: [%lld, %lld] x [%lld, %lld] into [%lld, %lld]",
                         (long long)a->rows, (long long)a->cols, (long long)b->rows, (long long)b->cols,
                         (long long)out.rows, (long long)out.cols);
    if (!batch_fits(a, p->out) || !batch_fits(b, p->out))
        return brci_fail(err, BRC_SHAPE, 0, "shape mismatch: leading dimensions must equal the output's or be 1");
    if (p->bias == NULL) return BRC_OK;
    TRY(brci_array_check(p->bias, "bias", err));
    if (p->bias->rank != 1 || p->bias->shape[0] != out.cols)
        return brci_fail(err, BRC_SHAPE, 0, "shape mismatch: bias must be [%lld]", (long long)out.cols);
    return BRC_OK;
}

/* A product with a packed weight whose order has kernels of its own. */
static void prepare(void *argument, uint32_t part, int64_t first, int64_t last) {
    const brci_packed_product *job = argument;
    job->packed->packing->prepare(job, part, first, last);
}

static void multiply_by_packed(void *argument, uint32_t part, int64_t first, int64_t last) {
    const brci_packed_product *job = argument;
    job->packed->packing->multiply(job, part, first, last);
}

static brc_status multiply_packing(const brc_packed *packed, const brci_multiplication *p, const brc_options *options,
                                   brc_error *err) {
    brci_packed_product job = {.packed = packed, .product = p};
    if (!packed->packing->serves(packed, p, &job.needs))
        return brci_fail(err, BRC_UNSUPPORTED, 0, "the weight was packed as %s, for other activations than a's",
                         packed->packing->name);
    const int64_t prepare_work = p->m * p->k * p->a_batch, work = p->n * p->k * p->batch;
    const uint32_t parts = brci_parts(options, job.needs.multiply, work);
    const size_t bytes = (size_t)job.needs.shared_bytes + parts * (size_t)job.needs.part_bytes;
    job.shared = aligned_alloc(64, bytes > 0 ? bytes : 64);
    if (job.shared == NULL) return brci_fail(err, BRC_MEMORY, 0, "out of memory: %zu bytes for a product", bytes);
    job.parts = job.shared + job.needs.shared_bytes;
    if (packed->packing->prepare != NULL)
        brci_parallel(brci_parts(options, job.needs.prepare, prepare_work), job.needs.prepare, prepare, &job);
    brci_parallel(parts, job.needs.multiply, multiply_by_packed, &job);
    free(job.shared);
    return BRC_OK;
}

/* The right side: an operand, or a packed weight in its place, seen as its values [.., n, k]. */
static brc_status right_side(const brc_product *p, const brc_packed *packed, brci_side *b, brc_error *err) {
    if (packed == NULL) return brci_side_of(&p->b, "b", b, err);
    if (p->b.scaled != NULL || p->b.plain != NULL)
        return brci_fail(err, BRC_ARGUMENT, 0, "b and a packed weight are given: one of the two is needed");
    *b = (brci_side){.source = brci_source_array(&packed->values),
                     .rows = packed->k,
                     .cols = packed->n,
                     .rank = packed->rank,
                     .shape = packed->shape};
    b->source.view = brci_view_of(packed->rank, packed->shape);
    return BRC_OK;
}

/* The struct of releases before packed weights ends where theirs begins. */
#define SIZE_BEFORE_PACKED offsetof(brc_product, packed)

brc_status brc_matmul(const brc_product *p, brc_error *err) {
    brci_multiplication m = {0};
    brci_side a = {0}, b = {0};
    int64_t tiles;
    if (p == NULL || (p->size < sizeof *p && p->size != SIZE_BEFORE_PACKED))
        return brci_fail(err, BRC_ARGUMENT, 0, "the product is missing or of another version");
    const brc_packed *packed = p->size == SIZE_BEFORE_PACKED ? NULL : p->packed;
    TRY(brci_options_check(p->options, err));
    TRY(brci_side_of(&p->a, "a", &a, err));
    TRY(right_side(p, packed, &b, err));
    TRY(brci_array_check(p->out, "out", err));
    TRY(check_output(p, &a, &b, err));
    m = (brci_multiplication){
        .a = a.source,
        .b = b.source,
        .transpose_a = p->a.transposed != 0,
        .transpose_b = packed != NULL || p->b.transposed != 0,
        .accumulate = p->accumulate != 0,
        .batch = brci_view_of(p->out->rank, p->out->shape).batch,
        .m = a.rows,
        .n = b.cols,
        .k = a.cols,
        .a_batch = a.source.view.batch,
        .b_batch = b.source.view.batch,
        .bias = p->bias,
        .out = p->out,
    };
    if (packed != NULL && packed->packing->serves != NULL) return multiply_packing(packed, &m, p->options, err);
    if (multiply_fast(&m, p->options)) return BRC_OK;
    tiles = brci_tiles(&m);
    /* A tile costs its multiplications, not its elements. */
    brci_parallel(brci_parts(p->options, tiles, tiles * BRCI_TILE * m.k), tiles, multiply, &m);
    return BRC_OK;
}
