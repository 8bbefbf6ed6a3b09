/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/parallel.h"
#include "reference/reference.h"

/* An operand's shape after its transposition. */
typedef struct side {
    brci_source source;
    int64_t rows, cols;
    int rank;
    const int64_t *shape;
} side;

static brc_status resolve(const brc_operand *operand, const char *name, side *s, brc_error *err) {
    if ((operand->scaled == NULL) == (operand->plain == NULL))
        return brci_fail(err, BRC_ARGUMENT, 0, "%s: a scaled tensor or a plain array must be given, not both", name);
    if (operand->scaled != NULL) {
        TRY(brc_tensor_check(operand->scaled, err));
        s->source = brci_source_tensor(operand->scaled);
        s->rank = operand->scaled->rank;
        s->shape = operand->scaled->shape;
    } else {
        TRY(brci_array_check(operand->plain, name, err));
        s->source = brci_source_array(operand->plain);
        s->rank = operand->plain->rank;
        s->shape = operand->plain->shape;
    }
    if (s->rank < 2) return brci_fail(err, BRC_SHAPE, 0, "%s: a product needs at least 2 dimensions", name);
    s->rows = operand->transposed ? s->source.view.cols : s->source.view.rows;
    s->cols = operand->transposed ? s->source.view.rows : s->source.view.cols;
    return BRC_OK;
}

/* Leading dimensions are those of the output, or all 1 (or not there). */
static int batch_fits(const side *s, const brc_array *out) {
    if (s->source.view.batch == 1) return 1;
    return s->rank == out->rank && memcmp(s->shape, out->shape, (size_t)(s->rank - 2) * sizeof *s->shape) == 0;
}

static void multiply(void *argument, uint32_t part, int64_t first, int64_t last) {
    (void)part;
    brci_reference_matmul(argument, first, last);
}

static brc_status check_output(const brc_product *p, const side *a, const side *b, brc_error *err) {
    brci_view out = brci_view_of(p->out->rank, p->out->shape);
    if (p->out->format == BRC_F64) return brci_fail(err, BRC_FORMAT, 0, "out: f32, f16 or bf16 is needed");
    if (p->out->rank < 2 || out.rows != a->rows || out.cols != b->cols || a->cols != b->rows)
        return brci_fail(err, BRC_SHAPE, 0, "shape mismatch: [%lld, %lld] x [%lld, %lld] into [%lld, %lld]", (long long)a->rows,
                         (long long)a->cols, (long long)b->rows, (long long)b->cols, (long long)out.rows, (long long)out.cols);
    if (!batch_fits(a, p->out) || !batch_fits(b, p->out))
        return brci_fail(err, BRC_SHAPE, 0, "shape mismatch: leading dimensions must equal the output's or be 1");
    if (p->bias == NULL) return BRC_OK;
    TRY(brci_array_check(p->bias, "bias", err));
    if (p->bias->rank != 1 || p->bias->shape[0] != out.cols)
        return brci_fail(err, BRC_SHAPE, 0, "shape mismatch: bias must be [%lld]", (long long)out.cols);
    return BRC_OK;
}

brc_status brc_matmul(const brc_product *p, brc_error *err) {
    brci_multiplication m = {0};
    side a = {0}, b = {0};
    int64_t tiles;
    if (p == NULL || p->size < sizeof *p) return brci_fail(err, BRC_ARGUMENT, 0, "the product is missing or of another version");
    TRY(resolve(&p->a, "a", &a, err));
    TRY(resolve(&p->b, "b", &b, err));
    TRY(brci_array_check(p->out, "out", err));
    TRY(check_output(p, &a, &b, err));
    m = (brci_multiplication){
        .a = a.source,
        .b = b.source,
        .transpose_a = p->a.transposed != 0,
        .transpose_b = p->b.transposed != 0,
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
    tiles = brci_tiles(&m);
    /* A tile costs its multiplications, not its elements. */
    brci_parallel(brci_parts(p->options, tiles, tiles * BRCI_TILE * m.k), tiles, multiply, &m);
    return BRC_OK;
}
