/* SPDX-License-Identifier: Apache-2.0
 * The class of a change, from the values on both sides: read a few rows at a time, so that memory does not grow with
 * the tensor. */
#include "convert/change.h"
#include "convert/scales.h"
#include "convert/transfer.h"
#include "convert/values.h"

#include <math.h> /* INFINITY */
#include <string.h>

static const char *const names[] = {
    [BRC_BIT_EXACT] = "bit-exact", [BRC_VALUE_EXACT] = "value-exact", [BRC_ONE_ULP] = "one-ulp", [BRC_LOSSY] = "lossy"};

const char *brc_exactness_name(brc_exactness exactness) {
    return (unsigned)exactness < sizeof names / sizeof *names ? names[exactness] : NULL;
}

/* g -> 1/g, s*(1/g) instead of s/g, then the element: five roundings between the two values, each within 2^-24. */
#define TURNED 0x5p-24

/* Whether two tables hold the same numbers, stored in the same way. */
static int same_table(const brc_table *a, const brc_table *b, int64_t bytes) {
    if (a->data == NULL || b->data == NULL) return a->data == b->data;
    return a->format == b->format && a->kind == b->kind && a->block.batch == b->block.batch &&
           a->block.rows == b->block.rows && a->block.cols == b->block.cols &&
           memcmp(a->data, b->data, (size_t)bytes) == 0;
}

static int is_real(const brc_table *zero) { return zero->data != NULL && zero->kind == BRC_KIND_REAL; }

/* Whether, values being the same, codes and scales are: codes of integers may be counted from another zero point. */
static int same_numbers(const brc_tensor *a, const brc_tensor *b) {
    brc_sizes sizes;
    const brc_format_info *x = brc_format_get((brc_format)a->format), *y = brc_format_get((brc_format)b->format);
    const int integers =
        (x->family == BRC_INT || x->family == BRC_UINT) && (y->family == BRC_INT || y->family == BRC_UINT);
    return brc_tensor_sizes(a, &sizes, NULL) == BRC_OK && (x == y || (integers && x->bits == y->bits)) &&
           same_table(&a->scale, &b->scale, sizes.scale) && same_table(&a->global, &b->global, sizes.global) &&
           is_real(&a->zero) == is_real(&b->zero);
}

static brc_exactness class_of(brci_way way, const brci_sums *s, const brc_tensor *before, const brc_tensor *after) {
    if (s->nonfinite > 0) return BRC_LOSSY;
    if (!(s->max_absolute > 0))
        return after != NULL && before != NULL && same_numbers(before, after) ? BRC_BIT_EXACT : BRC_VALUE_EXACT;
    return way == BRCI_TURN && s->max_relative <= TURNED ? BRC_ONE_ULP : BRC_LOSSY;
}

static brc_status compare(const brci_conversion *c, const brc_entry *entry, const brc_tensor *old,
                          const brc_tensor *new, const brc_array *dense, brci_sums *s, brc_error *err) {
    brci_values before = {0}, after = {0};
    const uint32_t threads = c->options->threads;
    brc_status status = brci_values_begin(&before, old, &entry->parts[0].array->array, threads, err);
    if (status == BRC_OK) status = brci_values_begin(&after, new, dense, threads, err);
    if (status == BRC_OK) status = brci_sums_of(&before, &after, s, err);
    brci_values_end(&before);
    brci_values_end(&after);
    return status;
}

brc_status brci_change_judge(const brci_conversion *c, const brc_entry *entry, brci_made *made, brci_change *change,
                             brc_error *err) {
    const brc_tensor *old = change->way == BRCI_QUANTIZE ? NULL : &made->before.tensor, *new = NULL;
    brci_sums s = {.elements = brci_entry_elements(entry)};
    brc_checkpoint *checkpoint = NULL;
    brc_owned again = {0};
    brc_status status = BRC_OK;
    if (change->way != BRCI_DENSE) {
        const brci_written written = {.name = entry->name, .tensor = &made->stored, .origin = change->origin};
        status = brci_read_back(c->options->dialect, &written, &made->packed, &checkpoint, &again, err);
        new = &again.tensor;
    }
    if (status == BRC_OK && old != NULL && old->recipe.pow2) {
        brci_census census;
        status = brci_census_of(old, &old->scale, &census, err);
        change->uneven = census.uneven;
    }
    if (status == BRC_OK) status = compare(c, entry, old, new, &made->dense, &s, err);
    if (status == BRC_OK) {
        change->exactness = class_of(change->way, &s, old, new);
        change->sqnr = s.nonfinite > 0                       ? -(double)INFINITY
                       : change->exactness > BRC_VALUE_EXACT ? brci_decibels(&s.signal, &s.noise)
                                                             : (double)INFINITY;
        change->largest = s.largest;
        change->beyond = s.nonfinite;
        change->judged = 1;
    }
    brc_release(&again);
    brc_checkpoint_close(checkpoint);
    return status;
}
