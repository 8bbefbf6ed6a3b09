/* SPDX-License-Identifier: Apache-2.0
 * What two checkpoints differ by. Sums are in double, one tensor after the other and one element after the other, so
 * that the figures do not depend on the number of threads. */
#include "convert/measure.h"
#include "convert/slabs.h"
#include "convert/transfer.h"
#include "dialect/order.h"

#include <math.h> /* INFINITY, NAN */
#include <string.h>

#define CHUNK 4096 /* elements decoded at a time; a multiple of 8, so that they end on a byte */

/* Sums of a difference, before the logarithms. */
typedef struct sums {
    int64_t elements, saturated, flushed, nonfinite;
    brci_sum signal, noise, other, product; /* other: of b*b; product: of a*b */
    double max_absolute, max_relative;
} sums;

/* An array's values as doubles, whatever stores them; plain arrays are decoded where they lie. */
typedef struct values {
    const brc_entry *entry;
    brc_owned owned;  /* of a scaled tensor */
    brci_slabs slabs; /* the rows of it that are decoded */
} values;

static int is_scaled(const brc_entry *entry) { return entry->tensor.format != BRC_NONE; }

static brc_status values_begin(values *v, const brc_checkpoint *c, const brc_entry *entry, uint32_t threads,
                               brc_error *err) {
    *v = (values){.entry = entry};
    if (!is_scaled(entry)) return BRC_OK;
    TRY(brc_checkpoint_load(c, entry, &v->owned, err));
    return brci_slabs_begin(&v->slabs, &v->owned.tensor, threads, err);
}

static void values_end(values *v) {
    brci_slabs_end(&v->slabs);
    brc_release(&v->owned);
}

/* n values from column `col` of a row on; rows come in ascending order. */
static brc_status values_read(values *v, int64_t row, int64_t cols, int64_t col, int64_t n, double *x, brc_error *err) {
    const brc_array *array = &v->entry->parts[0].array->array;
    const brc_format format = (brc_format)array->format;
    float chunk[CHUNK];
    const float *from = chunk;
    if (is_scaled(v->entry)) {
        while (row >= v->slabs.first + v->slabs.rows) TRY(brci_slabs_next(&v->slabs, err));
        from = v->slabs.x + (row - v->slabs.first) * cols + col;
    } else {
        const uint8_t *at = (const uint8_t *)array->data + (row * cols + col) * (brc_format_get(format)->bits / 8);
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

/* Whether the codes of a scaled tensor are at an end of their format's range. CHUNK columns end on a byte. */
static brc_status read_ends(const values *v, int64_t row, int64_t col, int64_t n, uint8_t *at_end, brc_error *err) {
    const brc_tensor *t = &v->owned.tensor;
    const brc_format_info *f = brc_format_get((brc_format)t->format);
    float codes[CHUNK];
    TRY(brc_decode((brc_format)t->format, (const uint8_t *)t->data + row * t->row_pitch + col * f->bits / 8, n, codes,
                   err));
    for (int64_t i = 0; i < n; i++) at_end[i] = (double)codes[i] >= f->max || (double)codes[i] <= f->min;
    return BRC_OK;
}

static int is_finite(double x) { return x - x == 0; } /* infinity - infinity is NaN */

static void add_pair(sums *s, double a, double b, int at_end) {
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
    if (error > s->max_absolute) s->max_absolute = error;
    if (size > 0 && error > s->max_relative * size) s->max_relative = error / size;
    s->saturated += at_end && size > (b < 0 ? -b : b);
    s->flushed += size > 0 && !(b > 0) && !(b < 0);
}

/* Row by row where one side is scaled; plain arrays are one row. */
static brc_status add_values(values *a, values *b, sums *s, brc_error *err) {
    const values *scaled = is_scaled(b->entry) ? b : is_scaled(a->entry) ? a : NULL;
    const int64_t cols = scaled != NULL ? scaled->slabs.cols : s->elements;
    double x[CHUNK], y[CHUNK];
    uint8_t at_end[CHUNK] = {0};
    for (int64_t done = 0, n; done < s->elements; done += n) {
        const int64_t row = done / cols, col = done - row * cols;
        n = cols - col < CHUNK ? cols - col : CHUNK;
        TRY(values_read(a, row, cols, col, n, x, err));
        TRY(values_read(b, row, cols, col, n, y, err));
        if (is_scaled(b->entry)) TRY(read_ends(b, row, col, n, at_end, err));
        for (int64_t i = 0; i < n; i++) add_pair(s, x[i], y[i], at_end[i]);
    }
    return BRC_OK;
}

static void add_sums(sums *total, const sums *s) {
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
}

static brc_difference difference_of(const char *name, const sums *s, int quantized) {
    brc_difference d = {.name = name,
                        .elements = s->elements,
                        .signal = brci_sum_value(&s->signal),
                        .noise = brci_sum_value(&s->noise),
                        .sqnr = brci_decibels(&s->signal, &s->noise),
                        .cosine = brci_sum_cosine(&s->product, &s->signal, &s->other),
                        .max_absolute = s->max_absolute,
                        .max_relative = s->max_relative,
                        .saturated = s->saturated,
                        .flushed = s->flushed,
                        .nonfinite = s->nonfinite,
                        .quantized = quantized};
    if (!(d.noise > 0)) d.cosine = 1;
    if (s->elements == 0) d.sqnr = d.cosine = (double)NAN;
    if (s->nonfinite > 0) { /* no figure of the others may hide these */
        d.sqnr = -(double)INFINITY;
        d.cosine = (double)NAN;
        d.max_absolute = d.max_relative = (double)INFINITY;
    }
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

static int64_t rank_of(const brc_entry *e) { return is_scaled(e) ? e->tensor.rank : e->parts[0].array->rank; }
static const int64_t *shape_of(const brc_entry *e) { return is_scaled(e) ? e->tensor.shape : e->parts[0].array->shape; }
static const char *shape_text(brci_pool *pool, const brc_entry *e) {
    return brci_pool_shape(pool, rank_of(e), shape_of(e));
}

static int same_shape(const brc_entry *a, const brc_entry *b) {
    return brci_same_shape(rank_of(a), shape_of(a), rank_of(b), shape_of(b));
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

static brc_status report_shapes(const comparison *c, const brc_entry *a, const brc_entry *b, brc_error *err) {
    brci_pool pool = {0};
    const char *what = brci_pool_print(&pool, "the shapes differ: %s, %s", shape_text(&pool, a), shape_text(&pool, b));
    const int failed = pool.failed;
    if (!failed) report_missing(c, a->name, what);
    brci_pool_free(&pool);
    return failed ? brci_fail(err, BRC_MEMORY, 0, "out of memory") : BRC_OK;
}

static brc_status compare_pair(comparison *c, const brc_entry *a, const brc_entry *b, brc_error *err) {
    sums s = {.elements = brci_entry_elements(a)};
    int numbers = is_number(a) && is_number(b);
    if (!same_shape(a, b)) return report_shapes(c, a, b, err);
    if (!numbers && !same_bytes(a, b)) {
        report_missing(c, a->name, "the bytes differ");
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
