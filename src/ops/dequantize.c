/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/cast.h"
#include "ops/parallel.h"
#include "reference/reference.h"

typedef struct job {
    brci_source source;
    brc_array *dst;
    const brci_kernels *kernels; /* NULL = the reference */
} job;

static void store(void *argument, uint32_t part, int64_t first, int64_t last) {
    job *j = argument;
    (void)part;
    if (j->kernels == NULL) brci_reference_store(&j->source, j->dst, first, last);
    else brci_cpu_store(j->kernels, j->source.tensor, j->dst, first, last);
}

brc_status brc_dequantize(const brc_tensor *src, const brc_options *options, brc_array *dst, brc_error *err) {
    job j = {.dst = dst};
    int64_t rows;
    TRY(brc_tensor_check(src, err));
    TRY(brci_options_check(options, err));
    TRY(brci_array_check(dst, "the destination", err));
    if (dst->rank != src->rank || memcmp(dst->shape, src->shape, src->rank * sizeof *src->shape) != 0)
        return brci_fail(err, BRC_SHAPE, 0, "the destination's shape is not the tensor's");
    j.source = brci_source_tensor(src);
    if (brci_cpu_store_fits(src, dst)) j.kernels = brci_cpu();
    rows = j.source.view.batch * j.source.view.rows;
    brci_parallel(brci_parts(options, rows, rows * j.source.view.cols), rows, store, &j);
    return BRC_OK;
}
