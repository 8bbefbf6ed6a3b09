/* SPDX-License-Identifier: Apache-2.0 */
#include "core/array.h"

#include "core/format.h"

brc_array brc_array_of(brc_format format, int rank, const int64_t *shape, void *data) {
    brc_array a = {.size = sizeof a, .format = (uint8_t)format};
    int64_t stride = 1;
    if (rank < 0 || rank > BRC_MAX_RANK || (rank > 0 && shape == NULL)) return a;
    a.rank = (uint8_t)rank;
    a.data = data;
    for (int i = rank - 1; i >= 0; i--) {
        a.shape[i] = shape[i];
        a.stride[i] = stride;
        /* A shape too large for 63 bits is found by brci_shape_check before any stride is used. */
        if (__builtin_mul_overflow(stride, shape[i] > 0 ? shape[i] : 1, &stride)) stride = INT64_MAX;
    }
    return a;
}

brci_view brci_view_of(int rank, const int64_t *shape) {
    brci_view v = {1, 1, 1};
    if (rank >= 1) v.cols = shape[rank - 1];
    if (rank >= 2) v.rows = shape[rank - 2];
    for (int i = 0; i + 2 < rank; i++) v.batch *= shape[i];
    return v;
}

brc_status brci_shape_check(int rank, const int64_t *shape, brc_error *err) {
    int64_t elements = 1;
    int empty = 0;
    if (rank < 1 || rank > BRC_MAX_RANK)
        return brci_fail(err, BRC_SHAPE, 0, "rank is %d; from 1 to %d dimensions are possible", rank, BRC_MAX_RANK);
    for (int i = 0; i < rank; i++) {
        if (shape[i] < 0)
            return brci_fail(err, BRC_SHAPE, (uint64_t)i, "dimension %d is negative (%lld)", i, (long long)shape[i]);
        empty |= shape[i] == 0;
    }
    for (int i = 0; i < rank && !empty; i++)
        if (__builtin_mul_overflow(elements, shape[i], &elements) || elements > INT64_MAX / 16)
            return brci_fail(err, BRC_OVERFLOW, (uint64_t)i, "the shape has more elements than 63 bits can address");
    if (empty) /* the batch product must not overflow either */
        for (int i = 0; i < rank; i++)
            if (shape[i] > INT64_MAX / 16 || (shape[i] > 0 && __builtin_mul_overflow(elements, shape[i], &elements)))
                return brci_fail(err, BRC_OVERFLOW, (uint64_t)i, "the shape exceeds 63 bits");
    return BRC_OK;
}

int64_t brci_elements(int rank, const int64_t *shape) {
    int64_t n = 1;
    for (int i = 0; i < rank; i++) n *= shape[i];
    return n;
}

brc_status brci_array_check(const brc_array *a, const char *what, brc_error *err) {
    if (a == NULL || a->size < sizeof *a)
        return brci_fail(err, BRC_ARGUMENT, 0, "%s is missing or of another version", what);
    TRY(brci_shape_check(a->rank, a->shape, err));
    if (a->format >= BRC_FORMAT_COUNT || a->format == BRC_NONE)
        return brci_fail(err, BRC_FORMAT, 0, "%s has no known format", what);
    if (!brci_is_high(a->format))
        return brci_fail(err, BRC_FORMAT, 0, "%s is %s; f64, f32, f16 or bf16 is needed", what,
                         brci_format(a->format)->name);
    if (a->data == NULL && brci_elements(a->rank, a->shape) > 0)
        return brci_fail(err, BRC_ARGUMENT, 0, "%s has no data", what);
    return BRC_OK;
}
