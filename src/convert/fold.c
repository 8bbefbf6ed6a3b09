/* SPDX-License-Identifier: Apache-2.0 */
#include "convert/fold.h"

#include <stdlib.h>

const brc_named_array *brci_folded(const brc_entry *entry) { return brci_part(entry, "pre_quant_scale"); }

brc_status brci_fold_columns(const brc_entry *entry, int64_t cols, float **numbers, brc_error *err) {
    const brc_named_array *scale = brci_folded(entry);
    const brc_format_info *f = brc_format_get((brc_format)scale->array.format);
    int64_t n = 1;
    *numbers = NULL;
    for (uint32_t i = 0; i < scale->rank; i++) n *= scale->shape[i];
    if (f == NULL || f->role != BRC_HIGH || n != cols || scale->rank == 0 || scale->shape[scale->rank - 1] != cols)
        return brci_fail(err, BRC_UNSUPPORTED, 0,
                         "%s is %s with %lld numbers; to be multiplied into the weight it must have one for each of "
                         "its %lld columns",
                         brci_clip(scale->name).text, scale->dtype, (long long)n, (long long)cols);
    *numbers = malloc((size_t)cols * sizeof **numbers + 1);
    if (*numbers == NULL) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    TRY(brc_decode((brc_format)scale->array.format, scale->array.data, cols, *numbers, err));
    for (int64_t k = 0; k < cols; k++)
        if (!((*numbers)[k] - (*numbers)[k] == 0))
            return brci_fail(err, BRC_NONFINITE, (uint64_t)k, "%s is NaN or infinite for column %lld",
                             brci_clip(scale->name).text, (long long)k);
    return BRC_OK;
}

static brc_status fold(const brc_tensor *t, const float *numbers, const brc_options *options, float *wide,
                       brc_array *out, int64_t rows, brc_error *err) {
    const int64_t cols = t->shape[t->rank - 1];
    brc_array array = brc_array_of(BRC_F32, t->rank, t->shape, wide);
    TRY(brc_dequantize(t, options, &array, err));
    for (int64_t i = 0; i < rows * cols; i++) wide[i] *= numbers[i % cols];
    return brc_encode((brc_format)out->format, wide, rows * cols, out->data, err);
}

brc_status brci_dequantize_folded(const brc_entry *entry, const brc_tensor *t, const brc_options *options,
                                  brc_array *out, brc_error *err) {
    const int64_t cols = t->shape[t->rank - 1];
    int64_t rows = 1;
    float *numbers = NULL, *wide = NULL;
    for (int i = 0; i + 1 < t->rank; i++) rows *= t->shape[i];
    brc_status status = brci_fold_columns(entry, cols, &numbers, err);
    if (status == BRC_OK) {
        wide = malloc((size_t)(rows * cols) * sizeof *wide + 1);
        status = wide == NULL ? brci_fail(err, BRC_MEMORY, 0, "out of memory: %lld numbers", (long long)(rows * cols))
                              : fold(t, numbers, options, wide, out, rows, err);
    }
    free(wide);
    free(numbers);
    return status;
}
