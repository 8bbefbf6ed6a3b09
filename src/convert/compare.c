/* SPDX-License-Identifier: Apache-2.0
 * What two checkpoints differ by. Sums are in double, one tensor after the other and one element after the other, so
 * that the figures do not depend on the number of threads. */
#include "convert/measure.h"
#include "convert/transfer.h"
#include "dialect/order.h"

#include <math.h> /* INFINITY */
#include <stdlib.h>
#include <string.h>

#define CHUNK 4096 /* elements decoded at a time */

/* Sums of a difference, before the logarithms. */
typedef struct sums {
    int64_t elements, saturated, flushed, nonfinite;
    double signal, noise, other, product, max_absolute, max_relative; /* other: of b*b; product: of a*b */
} sums;

/* An array's values as F32, whatever stores them; plain arrays are decoded where they lie. */
typedef struct values {
    const brc_entry *entry;
    brc_owned owned;    /* of a scaled tensor */
    float *dequantized; /* all of it */
} values;

static int is_scaled(const brc_entry *entry) { return entry->tensor.format != BRC_NONE; }

static brc_status values_begin(values *v, const brc_checkpoint *c, const brc_entry *entry, uint32_t threads,
                               brc_error *err) {
    const brc_options options = {.size = sizeof options, .threads = threads};
    *v = (values){.entry = entry};
    if (!is_scaled(entry)) return BRC_OK;
    v->dequantized = malloc((size_t)brci_entry_elements(entry) * sizeof(float) + 1);
    if (v->dequantized == NULL) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    TRY(brc_checkpoint_load(c, entry, &v->owned, err));
    brc_array array = brc_array_of(BRC_F32, entry->tensor.rank, entry->tensor.shape, v->dequantized);
    return brc_dequantize(&v->owned.tensor, &options, &array, err);
}

static void values_end(values *v) {
    brc_release(&v->owned);
    free(v->dequantized);
}

static brc_status values_read(const values *v, int64_t first, int64_t n, double *x, brc_error *err) {
    const brc_array *array = &v->entry->parts[0].array->array;
    const brc_format format = (brc_format)array->format;
    float chunk[CHUNK];
    const float *from = chunk;
    if (is_scaled(v->entry)) {
        from = v->dequantized + first;
    } else {
        const uint8_t *at = (const uint8_t *)array->data + first * (brc_format_get(format)->bits / 8);
        if (format == BRC_F64) {
            memcpy(x, at, (size_t)n * sizeof *x);
            return BRC_OK;
        }
        if (format == BRC_F32) memcpy(chunk, at, (size_t)n * sizeof *chunk);
        else TRY(brc_decode(format, at, n, chunk, err));
    }
    for (int64_t i = 0; i < n; i++) x[i] = (double)from[i];
    return BRC_OK;
}

/* Which codes of a format are at an end of its range. */
static brc_status find_ends(brc_format format, uint8_t ends[256], brc_error *err) {
    const brc_format_info *f = brc_format_get(format);
    for (unsigned code = 0; code < 1u << f->bits; code++) {
        const uint8_t row = (uint8_t)code;
        float x;
        TRY(brc_decode(format, &row, 1, &x, err));
        ends[code] = (double)x >= f->max || (double)x <= f->min;
    }
    return BRC_OK;
}

/* Element i of a packed row, low bits first. */
static unsigned code_at(const uint8_t *row, unsigned bits, int64_t i) {
    int64_t bit = i * bits;
    unsigned shift = (unsigned)(bit % 8), two = row[bit / 8];
    if (shift + bits > 8) two |= (unsigned)row[bit / 8 + 1] << 8;
    return two >> shift & ((1u << bits) - 1);
}

/* Whether the codes of elements first .. first + n of a scaled tensor are at an end. */
static void read_ends(const values *v, const uint8_t ends[256], int64_t first, int64_t n, uint8_t *at_end) {
    const brc_tensor *t = &v->owned.tensor;
    const unsigned bits = brc_format_get((brc_format)t->format)->bits;
    int64_t cols = t->shape[t->rank - 1], row = first / cols, col = first % cols;
    for (int64_t i = 0; i < n; i++) {
        at_end[i] = ends[code_at((const uint8_t *)t->data + row * t->row_pitch, bits, col)];
        if (++col == cols) {
            col = 0;
            row++;
        }
    }
}

static int is_finite(double x) { return x - x == 0; } /* infinity - infinity is NaN */

static void add_pair(sums *s, double a, double b, int at_end) {
    double difference = a - b, size = a < 0 ? -a : a, error;
    if (!is_finite(a) || !is_finite(b)) {
        s->nonfinite += !(a >= b && a <= b) && !(a != a && b != b);
        return;
    }
    error = difference < 0 ? -difference : difference;
    s->signal += a * a;
    s->noise += difference * difference;
    s->other += b * b;
    s->product += a * b;
    if (error > s->max_absolute) s->max_absolute = error;
    if (size > 0 && error > s->max_relative * size) s->max_relative = error / size;
    s->saturated += at_end && size > (b < 0 ? -b : b);
    s->flushed += size > 0 && !(b > 0) && !(b < 0);
}

static brc_status add_values(const values *a, const values *b, sums *s, brc_error *err) {
    double x[CHUNK], y[CHUNK];
    uint8_t ends[256], at_end[CHUNK] = {0};
    if (is_scaled(b->entry)) TRY(find_ends((brc_format)b->owned.tensor.format, ends, err));
    for (int64_t first = 0; first < s->elements; first += CHUNK) {
        int64_t n = s->elements - first < CHUNK ? s->elements - first : CHUNK;
        TRY(values_read(a, first, n, x, err));
        TRY(values_read(b, first, n, y, err));
        if (is_scaled(b->entry)) read_ends(b, ends, first, n, at_end);
        for (int64_t i = 0; i < n; i++) add_pair(s, x[i], y[i], at_end[i]);
    }
    return BRC_OK;
}

static void add_sums(sums *total, const sums *s) {
    total->elements += s->elements;
    total->saturated += s->saturated;
    total->flushed += s->flushed;
    total->nonfinite += s->nonfinite;
    total->signal += s->signal;
    total->noise += s->noise;
    total->other += s->other;
    total->product += s->product;
    if (s->max_absolute > total->max_absolute) total->max_absolute = s->max_absolute;
    if (s->max_relative > total->max_relative) total->max_relative = s->max_relative;
}

static brc_difference difference_of(const char *name, const sums *s, int quantized) {
    double norms = brci_sqrt(s->signal) * brci_sqrt(s->other);
    brc_difference d = {.name = name,
                        .elements = s->elements,
                        .signal = s->signal,
                        .noise = s->noise,
                        .max_absolute = s->max_absolute,
                        .max_relative = s->max_relative,
                        .saturated = s->saturated,
                        .flushed = s->flushed,
                        .nonfinite = s->nonfinite,
                        .quantized = quantized};
    d.sqnr = s->noise > 0 ? 10 * (brci_log10(s->signal) - brci_log10(s->noise)) : (double)INFINITY;
    d.cosine = norms > 0 ? s->product / norms : s->noise > 0 ? 0 : 1;
    return d;
}

/* Numbers that F32 holds exactly enough to subtract; others (indices, masks) are compared as bytes. */
static int is_number(const brc_entry *entry) {
    const brc_format_info *f = brc_format_get((brc_format)entry->parts[0].array->array.format);
    return is_scaled(entry) || (f != NULL && f->role != BRC_CARRIED && f->bits >= 8);
}

static int same_bytes(const brc_entry *a, const brc_entry *b) {
    const brc_named_array *x = a->parts[0].array, *y = b->parts[0].array;
    return x->array.format == y->array.format && x->bytes == y->bytes &&
           memcmp(x->array.data, y->array.data, (size_t)x->bytes) == 0;
}

static int same_shape(const brc_entry *a, const brc_entry *b) {
    const brc_named_array *x = a->parts[0].array, *y = b->parts[0].array;
    return brci_same_shape(is_scaled(a) ? a->tensor.rank : x->rank, is_scaled(a) ? a->tensor.shape : x->shape,
                           is_scaled(b) ? b->tensor.rank : y->rank, is_scaled(b) ? b->tensor.shape : y->shape);
}

typedef struct comparison {
    const brc_checkpoint *a, *b;
    uint32_t threads;
    void (*each)(void *, const brc_difference *);
    void (*missing)(void *, const char *, const char *);
    void *user;
    sums quantized, all;
    int any_quantized;
} comparison;

static void report_missing(const comparison *c, const char *name, const char *what) {
    if (c->missing != NULL) c->missing(c->user, name, what);
}

static brc_status add_numbers(comparison *c, const brc_entry *a, const brc_entry *b, sums *s, brc_error *err) {
    values x, y = {0};
    brc_status status = values_begin(&x, c->a, a, c->threads, err);
    if (status == BRC_OK) status = values_begin(&y, c->b, b, c->threads, err);
    if (status == BRC_OK) status = add_values(&x, &y, s, err);
    values_end(&x);
    values_end(&y);
    return brci_about(err, status, c->a, a);
}

static brc_status compare_pair(comparison *c, const brc_entry *a, const brc_entry *b, brc_error *err) {
    sums s = {.elements = brci_entry_elements(a)};
    int numbers = is_number(a) && is_number(b);
    if (!same_shape(a, b) || (!numbers && !same_bytes(a, b))) {
        report_missing(c, a->name, same_shape(a, b) ? "the bytes differ" : "the shapes differ");
        return BRC_OK;
    }
    if (numbers) TRY(add_numbers(c, a, b, &s, err));
    add_sums(&c->all, &s);
    if (is_scaled(b)) {
        add_sums(&c->quantized, &s);
        c->any_quantized = 1;
    }
    const brc_difference d = difference_of(a->name, &s, is_scaled(b));
    if (c->each != NULL) c->each(c->user, &d);
    return BRC_OK;
}

brc_status brc_compare_checkpoints(const brc_checkpoint *a, const brc_checkpoint *b, uint32_t threads,
                                   void (*each)(void *user, const brc_difference *difference),
                                   void (*missing)(void *user, const char *name, const char *what), void *user,
                                   brc_difference *total, brc_error *err) {
    comparison c = {.a = a, .b = b, .threads = threads, .each = each, .missing = missing, .user = user};
    if (a == NULL || b == NULL) return brci_fail(err, BRC_ARGUMENT, 0, "two checkpoints must be given");
    TRY(brc_checkpoint_usable(a, err));
    TRY(brc_checkpoint_usable(b, err));
    for (size_t i = 0, j = 0; i < brc_checkpoint_count(a) || j < brc_checkpoint_count(b);) {
        const brc_entry *x = brc_checkpoint_at(a, i), *y = brc_checkpoint_at(b, j);
        int order = x == NULL ? 1 : y == NULL ? -1 : brci_natural_order(x->name, y->name);
        if (order < 0) report_missing(&c, x->name, "only in the first");
        else if (order > 0) report_missing(&c, y->name, "only in the second");
        else TRY(compare_pair(&c, x, y, err));
        i += order <= 0;
        j += order >= 0;
    }
    if (total != NULL) *total = difference_of("", c.any_quantized ? &c.quantized : &c.all, c.any_quantized);
    return BRC_OK;
}
