/* SPDX-License-Identifier: Apache-2.0
 * Rows of numbers, no scale. */
#include "core/codec.h"
#include "core/environment.h"
#include "core/status.h"

static brc_status check(brc_format format, const void *row, int64_t n, const float *x, brc_error *err) {
    const brc_format_info *f = brc_format_get(format);
    if (f == NULL || f->family == BRC_OPAQUE)
        return brci_fail(err, BRC_FORMAT, 0, "numbers of this format cannot be encoded or decoded");
    if (n < 0 || (n > 0 && (row == NULL || x == NULL)))
        return brci_fail(err, BRC_ARGUMENT, 0, "a row or its count is missing");
    if (brc_row_bytes(format, n) < 0) return brci_fail(err, BRC_OVERFLOW, 0, "the row exceeds 63 bits");
    return BRC_OK;
}

brc_status brc_encode(brc_format format, const float *x, int64_t n, void *row, brc_error *err) {
    const brc_format_info *f = brc_format_get(format);
    uint64_t saved;
    TRY(check(format, row, n, x, err));
    saved = brci_environment_enter();
    if (n > 0 && f->bits < 8) memset(row, 0, (size_t)brc_row_bytes(format, n));
    for (int64_t i = 0; i < n; i++) brci_code_put(row, f->bits, i, brci_encode(f, x[i]));
    brci_environment_leave(saved);
    return BRC_OK;
}

brc_status brc_decode(brc_format format, const void *row, int64_t n, float *x, brc_error *err) {
    const brc_format_info *f = brc_format_get(format);
    uint64_t saved;
    TRY(check(format, row, n, x, err));
    saved = brci_environment_enter();
    for (int64_t i = 0; i < n; i++) x[i] = (float)brci_decode(f, brci_code_at(row, f->bits, i));
    brci_environment_leave(saved);
    return BRC_OK;
}
