/* SPDX-License-Identifier: Apache-2.0 */
#include "convert/values.h"

#include <string.h>

#define CHUNK 4096 /* elements decoded at a time; a multiple of 8, so that they end on a byte */

brc_status brci_values_begin(brci_values *v, const brc_tensor *tensor, const brc_array *array, uint32_t threads,
                             brc_error *err) {
    *v = (brci_values){.tensor = tensor, .array = array};
    return tensor == NULL ? BRC_OK : brci_slabs_begin(&v->slabs, tensor, threads, err);
}

void brci_values_end(brci_values *v) { brci_slabs_end(&v->slabs); }

/* n values from column `col` of a row on; rows come in ascending order. */
static brc_status read_values(brci_values *v, int64_t row, int64_t cols, int64_t col, int64_t n, double *x,
                              brc_error *err) {
    float chunk[CHUNK];
    const float *from = chunk;
    if (v->tensor != NULL) {
        while (row >= v->slabs.first + v->slabs.rows) TRY(brci_slabs_next(&v->slabs, err));
        from = v->slabs.x + (row - v->slabs.first) * cols + col;
    } else {
        const brc_format format = (brc_format)v->array->format;
        const uint8_t *at = (const uint8_t *)v->array->data + (row * cols + col) * (brc_format_get(format)->bits / 8);
        if (format == BRC_F64) {
            memcpy(x, at, (size_t)n * sizeof *x);
            return BRC_OK;
        }
        if (format == BRC_F32) memcpy(chunk, at, (size_t)n * sizeof *chunk);
        else TRY(brc_decode(format, at, n, chunk, err));
    }
    for (int64_t i = 0; i < n; i++) x[i] = (double)(v->columns == NULL ? from[i] : from[i] * v->columns[col + i]);
    return BRC_OK;
}

/* Whether the codes of a scaled tensor are at an end of their format's range. CHUNK columns end on a byte. */
static brc_status read_ends(const brc_tensor *t, int64_t row, int64_t col, int64_t n, uint8_t *at_end, brc_error *err) {
    const brc_format_info *f = brc_format_get((brc_format)t->format);
    float codes[CHUNK];
    TRY(brc_decode((brc_format)t->format, (const uint8_t *)t->data + row * t->row_pitch + col * f->bits / 8, n, codes,
                   err));
    for (int64_t i = 0; i < n; i++) at_end[i] = (double)codes[i] >= f->max || (double)codes[i] <= f->min;
    return BRC_OK;
}

static int is_finite(double x) { return x - x == 0; } /* infinity - infinity is NaN */

static void add_pair(brci_sums *s, double a, double b, int at_end) {
    double difference = a - b, size = a < 0 ? -a : a, error;
    if (!is_finite(a) || !is_finite(b)) {
        s->nonfinite += !(a >= b && a <= b) && !(a != a && b != b);
        return;
    }
    error = difference < 0 ? -difference : difference;
    brci_sum_product(&s->signal, a, a);
    brci_sum_product(&s->noise, difference, difference);
    brci_sum_product(&s->other, b, b);
    brci_sum_product(&s->product, a, b);
    if (size > s->largest) s->largest = size;
    if (error > s->max_absolute) s->max_absolute = error;
    if (size > 0 && error > s->max_relative * size) s->max_relative = error / size;
    s->saturated += at_end && size > (b < 0 ? -b : b);
    s->flushed += size > 0 && !(b > 0) && !(b < 0);
}

/* Row by row where one side is scaled; plain arrays are one row. */
brc_status brci_sums_of(brci_values *a, brci_values *b, brci_sums *s, brc_error *err) {
    const brci_values *scaled = b->tensor != NULL ? b : a->tensor != NULL ? a : NULL;
    const int64_t cols = scaled != NULL ? scaled->slabs.cols : s->elements;
    double x[CHUNK], y[CHUNK];
    uint8_t at_end[CHUNK] = {0};
    for (int64_t done = 0, n; done < s->elements; done += n) {
        const int64_t row = done / cols, col = done - row * cols;
        n = cols - col < CHUNK ? cols - col : CHUNK;
        TRY(read_values(a, row, cols, col, n, x, err));
        TRY(read_values(b, row, cols, col, n, y, err));
        if (b->tensor != NULL) TRY(read_ends(b->tensor, row, col, n, at_end, err));
        for (int64_t i = 0; i < n; i++) add_pair(s, x[i], y[i], at_end[i]);
    }
    return BRC_OK;
}

void brci_sums_add(brci_sums *total, const brci_sums *s) {
    total->elements += s->elements;
    total->saturated += s->saturated;
    total->flushed += s->flushed;
    total->nonfinite += s->nonfinite;
    brci_sum_add(&total->signal, &s->signal);
    brci_sum_add(&total->noise, &s->noise);
    brci_sum_add(&total->other, &s->other);
    brci_sum_add(&total->product, &s->product);
    if (s->max_absolute > total->max_absolute) total->max_absolute = s->max_absolute;
    if (s->max_relative > total->max_relative) total->max_relative = s->max_relative;
    if (s->largest > total->largest) total->largest = s->largest;
}
