/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/finish.h"

/* n of BRCI_TILE_N sums to where the output holds them, once rounded. */
static void put(const brci_kernels *k, const brc_array *out, int64_t batch, int64_t row, int64_t col, float *sums,
                int64_t n) {
    const brc_format_info *f = brci_format(out->format);
    uint8_t *to = (uint8_t *)out->data + brci_offset(out, batch, row, col) * (f->bits / 8);
    const int64_t step = out->stride[out->rank - 1] * (f->bits / 8);
    if (step == f->bits / 8 && brci_is_little_endian()) {
        for (int64_t j = 0; j < BRCI_TILE_N; j += 8) /* a number known beforehand: vectors */
            for (int64_t i = 0; i < 8; i++)
                sums[j + i] = sums[j + i] == sums[j + i] ? sums[j + i] : brci_float(0x7FC00000u);
        if (out->format == BRC_F32 && n == BRCI_TILE_N) memcpy(to, sums, BRCI_TILE_N * sizeof *sums);
        else if (out->format == BRC_F32) memcpy(to, sums, (size_t)n * sizeof *sums);
        else (out->format == BRC_F16 ? k->narrow_f16 : k->narrow_bf16)(sums, n, to, 0);
    } else {
        for (int64_t j = 0; j < n; j++) brci_code_put(to + j * step, f->bits, 0, brci_encode(f, sums[j]));
    }
}

/* Sums to an F32 output whose rows have no gaps, with nothing to add: the usual case. `cols` is a constant. */
static inline void copy_rows(const brc_array *out, int64_t batch, int64_t m, int64_t n, int64_t rows, int64_t cols,
                             const float *sums, int64_t width) {
    float *to = (float *)out->data + brci_offset(out, batch, m, n);
    const int64_t pitch = out->stride[out->rank - 2];
    for (int64_t i = 0; i < rows; i++, to += pitch, sums += width)
        for (int64_t j = 0; j < cols; j++) to[j] = sums[j] == sums[j] ? sums[j] : brci_float(0x7FC00000u);
}

void brci_cpu_finish(const brci_kernels *k, const brci_multiplication *p, int64_t batch, int64_t m, int64_t n,
                     int64_t rows, int64_t cols, const float *sums, int64_t width) {
    const int plain = p->bias == NULL && !p->accumulate && p->out->format == BRC_F32 &&
                      p->out->stride[p->out->rank - 1] == 1 && (uintptr_t)p->out->data % sizeof(float) == 0;
    if (plain && cols == BRCI_TILE_N) {
        copy_rows(p->out, batch, m, n, rows, BRCI_TILE_N, sums, width);
        return;
    }
    if (plain && cols == BRCI_COLUMNS) {
        copy_rows(p->out, batch, m, n, rows, BRCI_COLUMNS, sums, width);
        return;
    }
    const brci_source bias = p->bias == NULL ? (brci_source){0} : brci_source_array(p->bias),
                      out = brci_source_array(p->out);
    float add[BRCI_TILE_N], old[BRCI_TILE_N], result[BRCI_TILE_N] = {0};
    if (p->bias != NULL) brci_read(&bias, 0, 0, n, cols, add);
    for (int64_t i = 0; i < rows; i++) {
        memcpy(result, sums + i * width, (size_t)cols * sizeof *result);
        if (p->accumulate) brci_read(&out, batch, m + i, n, cols, old);
        if (p->bias != NULL || p->accumulate)
            for (int64_t j = 0; j < cols; j++) { /* what is added is rounded once, with the sum */
                double sum = (double)result[j];
                if (p->bias != NULL) sum += (double)add[j];
                if (p->accumulate) sum += (double)old[j];
                result[j] = (float)sum;
            }
        put(k, p->out, batch, m + i, n, result, cols);
    }
}
