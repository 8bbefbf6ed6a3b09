/* SPDX-License-Identifier: Apache-2.0
 * What two checkpoints differ by, one tensor after the other. */
#include "convert/fold.h"
#include "convert/transfer.h"
#include "convert/values.h"
#include "dialect/order.h"

#include <math.h> /* INFINITY, NAN */
#include <stdlib.h>
#include <string.h>

static int is_scaled(const brc_entry *entry) { return entry->tensor.format != BRC_NONE; }

static brc_difference difference_of(const char *name, const brci_sums *s, int quantized) {
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
    brci_sums quantized, all;
    int any_quantized;
} comparison;

static void report_missing(const comparison *c, const char *name, const char *what) {
    if (c->missing != NULL) c->missing(c->user, name, what);
}

/* A side of a comparison: what was loaded, and its values. */
typedef struct side {
    brc_owned owned;
    float *columns; /* of a pre_quant_scale, which the layer computes with */
    brci_values values;
} side;

static brc_status side_begin(side *s, const brc_checkpoint *c, const brc_entry *entry, uint32_t threads,
                             brc_error *err) {
    *s = (side){0};
    if (is_scaled(entry)) TRY(brc_checkpoint_load(c, entry, &s->owned, err));
    if (is_scaled(entry) && brci_folded(entry) != NULL)
        TRY(brci_fold_columns(entry, entry->tensor.shape[entry->tensor.rank - 1], &s->columns, err));
    TRY(brci_values_begin(&s->values, is_scaled(entry) ? &s->owned.tensor : NULL, &entry->parts[0].array->array,
                          threads, err));
    s->values.columns = s->columns;
    return BRC_OK;
}

static void side_end(side *s) {
    brci_values_end(&s->values);
    brc_release(&s->owned);
    free(s->columns);
}

static brc_status add_numbers(comparison *c, const brc_entry *a, const brc_entry *b, brci_sums *s, brc_error *err) {
    side x, y = {0};
    brc_status status = side_begin(&x, c->a, a, c->threads, err);
    if (status == BRC_OK) status = side_begin(&y, c->b, b, c->threads, err);
    if (status == BRC_OK) status = brci_sums_of(&x.values, &y.values, s, err);
    side_end(&x);
    side_end(&y);
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
    brci_sums s = {.elements = brci_entry_elements(a)};
    int numbers = is_number(a) && is_number(b);
    if (!same_shape(a, b)) return report_shapes(c, a, b, err);
    if (!numbers && !same_bytes(a, b)) {
        report_missing(c, a->name, "the bytes differ");
        return BRC_OK;
    }
    if (numbers) TRY(add_numbers(c, a, b, &s, err));
    brci_sums_add(&c->all, &s);
    if (is_scaled(b)) {
        brci_sums_add(&c->quantized, &s);
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
