/* SPDX-License-Identifier: Apache-2.0
 * The class of a change, from the values on both sides: read a few rows at a time, so that memory does not grow with
 * the tensor. */
#include "convert/change.h"
#include "convert/transfer.h"
#include "convert/values.h"

#include <math.h> /* INFINITY */

static const char *const names[] = {
    [BRC_BIT_EXACT] = "bit-exact", [BRC_VALUE_EXACT] = "value-exact", [BRC_ONE_ULP] = "one-ulp", [BRC_LOSSY] = "lossy"};

const char *brc_exactness_name(brc_exactness exactness) {
    return (unsigned)exactness < sizeof names / sizeof *names ? names[exactness] : NULL;
}

/* g -> 1/g, s*(1/g) instead of s/g, then the element: five roundings between the two values, each within 2^-24. */
#define TURNED 0x5p-24

static brc_exactness class_of(brci_way way, const brci_sums *s) {
    if (s->nonfinite > 0) return BRC_LOSSY;
    if (!(s->max_absolute > 0)) return way == BRCI_STORE ? BRC_BIT_EXACT : BRC_VALUE_EXACT;
    return way == BRCI_TURN && s->max_relative <= TURNED ? BRC_ONE_ULP : BRC_LOSSY;
}

brc_status brci_change_judge(const brci_conversion *c, const brc_entry *entry, const brci_made *made,
                             brci_change *change, brc_error *err) {
    const int quantized = change->way == BRCI_QUANTIZE, dense = change->way == BRCI_DENSE;
    const uint32_t threads = c->options->threads;
    brci_sums s = {.elements = brci_entry_elements(entry)};
    brci_values before = {0}, after = {0};
    brc_status status = brci_values_begin(&before, quantized ? NULL : &made->before.tensor,
                                          &entry->parts[0].array->array, threads, err);
    if (status == BRC_OK) status = brci_values_begin(&after, dense ? NULL : &made->stored, &made->dense, threads, err);
    if (status == BRC_OK) status = brci_sums_of(&before, &after, &s, err);
    brci_values_end(&before);
    brci_values_end(&after);
    if (status != BRC_OK) return status;
    change->exactness = class_of(change->way, &s);
    change->sqnr = s.nonfinite > 0                       ? -(double)INFINITY
                   : change->exactness > BRC_VALUE_EXACT ? brci_decibels(&s.signal, &s.noise)
                                                         : (double)INFINITY;
    change->largest = s.largest;
    change->beyond = s.nonfinite;
    change->judged = 1;
    return BRC_OK;
}
