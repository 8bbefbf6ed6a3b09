/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/packed.h"
#include "ops/memory.h"
#include "ops/pack.h"
#include "ops/parallel.h"
#include "ops/side.h"

#include <stdatomic.h>

/* Leading dimensions are those of the output, or all 1 (or not there). */
static int batch_fits(const brci_side *s, const brc_array *out) {
    if (s->source.view.batch == 1) return 1;
    return s->rank == out->rank && memcmp(s->shape, out->shape, (size_t)(s->rank - 2) * sizeof *s->shape) == 0;
}

static void multiply_reference(void *argument, uint32_t part, int64_t first, int64_t last) {
    (void)part;
    brci_reference_matmul(argument, first, last);
}

/* A product by the vector kernels. */
typedef struct work {
    const brci_way *way;
    brci_job job;
    atomic_int refused;
} work;

static void prepare(void *argument, uint32_t part, int64_t first, int64_t last) {
    work *w = argument;
    if (!w->way->prepare(&w->job, part, first, last)) atomic_store(&w->refused, 1);
}

static void multiply(void *argument, uint32_t part, int64_t first, int64_t last) {
    const work *w = argument;
    w->way->multiply(&w->job, part, first, last);
}

/* The product of sizes may exceed 63 bits. */
static int64_t cost(double elements) { return elements < 1e18 ? (int64_t)elements : INT64_MAX; }

/* A round that is refused when others are done starts all again: not where that would add twice. */
static int serves(const brci_way *way, const brci_job *job, brci_needs *needs) {
    return way->serves(job, needs) && !(needs->refuses && needs->rounds > 1 && job->product->accumulate);
}

/* 0 where a way does not serve the product, -1 where there is no memory. */
static int multiply_by(const brci_way *way, const brci_kernels *kernels, const brci_multiplication *p,
                       const brc_packed *packed, const brc_options *options) {
    work w = {.way = way, .job = {.kernels = kernels, .product = p, .packed = packed}};
    brci_job *job = &w.job;
    if (!serves(way, job, &job->needs)) return 0;
    /* A number of b costs its multiplications, of which 16 are about a cast's, and its own reading. */
    const double rounds = (double)job->needs.rounds, k = (double)p->k,
                 multiplications = (double)p->batch * (double)p->m * (double)p->n * k / 16;
    const uint32_t parts =
                       brci_parts(options, job->needs.multiply, cost(multiplications / rounds + (double)p->n * k / 4)),
                   before = brci_parts(options, job->needs.prepare, cost((double)p->batch * (double)p->m * k / rounds));
    job->shared = brci_allocate(job->needs.shared_bytes + parts * job->needs.part_bytes);
    if (job->shared == NULL) return -1;
    job->parts = job->shared + job->needs.shared_bytes;
    for (job->round = 0; job->round < job->needs.rounds && !atomic_load(&w.refused); job->round++) {
        if (way->prepare != NULL) brci_parallel(before, job->needs.prepare, prepare, &w);
        if (!atomic_load(&w.refused)) brci_parallel(parts, job->needs.multiply, multiply, &w);
    }
    free(job->shared);
    return !atomic_load(&w.refused);
}

#define PACKED_ROWS 64 /* of a, from which on it pays to pack a weight for one product */

/* Where there are units for BF16: the weight is packed, multiplied, and given up. 0 = not served. */
static int multiply_once_packed(const brci_kernels *kernels, const brci_multiplication *p, const brc_options *options) {
    const brci_weight weight = {p->b, p->transpose_b, p->b_batch, p->n, p->k, BRC_BF16};
    brc_packed packed = {.kernels = kernels, .batch = p->b_batch, .n = p->n, .k = p->k};
    const brci_job job = {.kernels = kernels, .product = p, .packed = &packed};
    brci_needs needs;
    if (kernels->bf16_tile == NULL || p->m < PACKED_ROWS || p->b.tensor == NULL) return 0;
    packed.packing = &brci_packing_panels;
    if (!packed.packing->plan(&packed, &weight) || !serves(&brci_way_bf16, &job, &needs)) return 0;
    if (brci_pack_as(&brci_packing_panels, &weight, options, &packed) <= 0) return 0;
    const int done = multiply_by(&brci_way_bf16, kernels, p, &packed, options) > 0;
    free(packed.data);
    return done;
}

/* Without kernels, or memory for them, the reference does the work: it needs none. */
static int multiply_fast(const brci_multiplication *p, const brc_options *options) {
    const brci_kernels *kernels = brci_cpu();
    static const brci_way *const ways[] = {&brci_way_integer_rows, &brci_way_integers, &brci_way_narrow_rows,
                                           &brci_way_rows, &brci_way_tiles};
    if (kernels == NULL || p->m == 0 || p->n == 0) return 0;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        if (ways[i] == &brci_way_tiles && multiply_once_packed(kernels, p, options)) return 1;
        if (multiply_by(ways[i], kernels, p, NULL, options) > 0) return 1;
    }
    return 0;
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

static brc_status multiply_packed(const brc_packed *packed, const brci_multiplication *p, const brc_options *options,
                                  brc_error *err) {
    int done = p->m == 0 || p->n == 0;
    for (int i = 0; done == 0 && packed->packing->ways[i] != NULL; i++)
        done = multiply_by(packed->packing->ways[i], packed->kernels, p, packed, options);
    if (done < 0) return brci_fail(err, BRC_MEMORY, 0, "out of memory: working memory of a product");
    if (done > 0) return BRC_OK;
    return brci_fail(err, BRC_UNSUPPORTED, 0,
                     "the weight was packed as %s: not for a's activations, a transposed a, or this size",
                     packed->packing->name);
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
    if (packed != NULL && packed->packing->ways[0] != NULL) return multiply_packed(packed, &m, p->options, err);
    if (multiply_fast(&m, p->options)) return BRC_OK;
    tiles = brci_tiles(&m);
    /* A tile costs its multiplications, not its elements. */
    brci_parallel(brci_parts(p->options, tiles, tiles * BRCI_TILE * m.k), tiles, multiply_reference, &m);
    return BRC_OK;
}
