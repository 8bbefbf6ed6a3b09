/* SPDX-License-Identifier: Apache-2.0 */
#include "convert/values.h"

#include "dialect/words.h"

#include <math.h> /* INFINITY */
#include <string.h>

#define CHUNK 4096 /* elements decoded at a time; a multiple of 8, so that they end on a byte */
#define LANES 4    /* sums side by side, which the compiler keeps in vectors */

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

/* Which codes of at most 8 bits are at an end of their format's range. */
static brc_status find_ends(brc_format format, uint8_t ends[256], brc_error *err) {
    const brc_format_info *f = brc_format_get(format);
    for (unsigned code = 0; code < 1u << f->bits; code++) {
        const uint8_t byte = (uint8_t)code;
        float value;
        TRY(brc_decode(format, &byte, 1, &value, err));
        ends[code] = (double)value >= f->max || (double)value <= f->min;
    }
    return BRC_OK;
}

/* Whether the codes of a scaled tensor are at an end of their format's range. CHUNK columns end on a byte. */
static void read_ends(const brc_tensor *t, const uint8_t ends[256], int64_t row, int64_t col, int64_t n,
                      uint8_t *at_end) {
    const unsigned bits = brc_format_get((brc_format)t->format)->bits;
    const uint8_t *codes = (const uint8_t *)t->data + row * t->row_pitch + col * bits / 8;
    for (int64_t i = 0; i < n; i++) at_end[i] = ends[bits == 8 ? codes[i] : brci_code_get(codes, i, bits)];
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

static int all_finite(const double *x, int64_t n) {
    double sum[LANES] = {0}, all = 0; /* of zeros, and of NaN where one is not */
    const int64_t whole = n - n % LANES;
    for (int64_t i = 0; i < whole; i += LANES)
        for (int j = 0; j < LANES; j++) sum[j] += x[i + j] - x[i + j];
    for (int64_t i = whole; i < n; i++) all += x[i] - x[i];
    for (int j = 0; j < LANES; j++) all += sum[j];
    return is_finite(all);
}

static double max_of(double a, double b) { return a > b ? a : b; }

/* Element i of all goes to lane i % LANES, whatever pieces the elements come in. */
typedef struct lanes {
    double signal[LANES], noise[LANES], other[LANES], product[LANES];
    double largest[LANES], absolute[LANES], relative[LANES];
} lanes;

static void add_sums(lanes *l, const double *a, const double *b, int64_t first, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const int64_t j = (first + i) % LANES;
        l->signal[j] += a[i] * a[i];
        l->noise[j] += (a[i] - b[i]) * (a[i] - b[i]);
        l->other[j] += b[i] * b[i];
        l->product[j] += a[i] * b[i];
    }
}

static void add_extremes(lanes *l, const double *a, const double *b, int64_t first, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const int64_t j = (first + i) % LANES;
        const double size = __builtin_fabs(a[i]), error = __builtin_fabs(a[i] - b[i]);
        l->largest[j] = max_of(l->largest[j], size);
        l->absolute[j] = max_of(l->absolute[j], error);
        l->relative[j] = max_of(l->relative[j], error / (size > 0 ? size : (double)INFINITY));
    }
}

/* Finite numbers of F32 and narrower types: no product of two leaves the range of double. Groups of LANES are a loop of
 * their own, for the compiler. */
static void add_floats(brci_sums *s, lanes *all, const double *a, const double *b, const uint8_t *at_end, int64_t first,
                       int64_t n) {
    int64_t head = (LANES - first % LANES) % LANES, saturated = 0, flushed = 0;
    if (head > n) head = n;
    const int64_t whole = head + (n - head) / LANES * LANES;
    lanes l = *all;
    add_sums(&l, a, b, first, head);
    add_extremes(&l, a, b, first, head);
    for (int64_t i = head; i < whole; i += LANES) add_sums(&l, a + i, b + i, 0, LANES);
    for (int64_t i = head; i < whole; i += LANES) add_extremes(&l, a + i, b + i, 0, LANES);
    add_sums(&l, a + whole, b + whole, 0, n - whole);
    add_extremes(&l, a + whole, b + whole, 0, n - whole);
    for (int64_t i = 0; i < n; i++) {
        const double size = __builtin_fabs(a[i]), left = __builtin_fabs(b[i]);
        saturated += at_end[i] & (size > left);
        flushed += (size > 0) & !(left > 0);
    }
    *all = l;
    s->saturated += saturated;
    s->flushed += flushed;
}

static void add_lanes(brci_sums *s, const lanes *l) {
    for (int j = 0; j < LANES; j++) {
        s->signal.ordinary += l->signal[j];
        s->noise.ordinary += l->noise[j];
        s->other.ordinary += l->other[j];
        s->product.ordinary += l->product[j];
        s->largest = max_of(s->largest, l->largest[j]);
        s->max_absolute = max_of(s->max_absolute, l->absolute[j]);
        s->max_relative = max_of(s->max_relative, l->relative[j]);
    }
}

static int is_double(const brci_values *v) { return v->tensor == NULL && v->array->format == BRC_F64; }

/* Row by row where one side is scaled; plain arrays are one row. */
brc_status brci_sums_of(brci_values *a, brci_values *b, brci_sums *s, brc_error *err) {
    const brci_values *scaled = b->tensor != NULL ? b : a->tensor != NULL ? a : NULL;
    const int64_t cols = scaled != NULL ? scaled->slabs.cols : s->elements;
    double x[CHUNK], y[CHUNK];
    uint8_t at_end[CHUNK] = {0}, ends[256];
    const int wide = is_double(a) || is_double(b);
    lanes all = {0};
    if (b->tensor != NULL) TRY(find_ends((brc_format)b->tensor->format, ends, err));
    for (int64_t done = 0, n; done < s->elements; done += n) {
        const int64_t row = done / cols, col = done - row * cols;
        n = cols - col < CHUNK ? cols - col : CHUNK;
        TRY(read_values(a, row, cols, col, n, x, err));
        TRY(read_values(b, row, cols, col, n, y, err));
        if (b->tensor != NULL) read_ends(b->tensor, ends, row, col, n, at_end);
        if (!wide && all_finite(x, n) && all_finite(y, n)) add_floats(s, &all, x, y, at_end, done, n);
        else
            for (int64_t i = 0; i < n; i++) add_pair(s, x[i], y[i], at_end[i]);
    }
    add_lanes(s, &all);
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
