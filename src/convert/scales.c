/* SPDX-License-Identifier: Apache-2.0 */
#include "convert/scales.h"

#include "dialect/dialect.h"

#include <string.h>

/* The usual magnitudes of weights. */
#define LARGE 1e3
#define SMALL 1e-8

#define CHUNK 4096 /* elements decoded at a time; a multiple of 8, so that they end on a byte */

static int is_zero(double x) { return !(x > 0) && !(x < 0) && x - x == 0; }

static int is_power_of_two(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (bits & 0xFFFFFFFFFFFFFu) == 0 && bits >> 52 != 0;
}

static brc_status count_lost(const brc_tensor *t, const brc_table *table, int64_t *lost, brc_error *err) {
    const int64_t cols = t->shape[t->rank - 1], matrix = t->rank > 1 ? t->shape[t->rank - 2] : 1;
    const int64_t bits = brc_format_get((brc_format)t->format)->bits;
    int64_t rows = matrix;
    float codes[CHUNK];
    for (int i = 0; i + 2 < t->rank; i++) rows *= t->shape[i];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t first = 0; first < cols; first += CHUNK) {
            const int64_t n = cols - first < CHUNK ? cols - first : CHUNK;
            TRY(brc_decode((brc_format)t->format, (const uint8_t *)t->data + r * t->row_pitch + first * bits / 8, n,
                           codes, err));
            for (int64_t i = 0; i < n; i++)
                *lost += !is_zero((double)codes[i]) &&
                         is_zero(brc_table_number(table, brc_table_index(t, table, r / matrix, r % matrix, first + i)));
        }
    return BRC_OK;
}

brc_status brci_census_of(const brc_tensor *t, const brc_table *table, brci_census *c, brc_error *err) {
    int64_t counts[3];
    *c = (brci_census){0};
    TRY(brc_block_counts(t->rank, t->shape, table->block, counts, err));
    c->n = counts[0] * counts[1] * counts[2];
    for (int64_t i = 0; i < c->n; i++) {
        double x = brc_table_number(table, i);
        int finite = x - x == 0;
        c->nonfinite += !finite;
        c->negative += finite && x < 0;
        c->zero += is_zero(x);
        c->uneven += finite && !is_power_of_two(x);
    }
    return c->zero == 0 || t->zero.data != NULL ? BRC_OK : count_lost(t, table, &c->lost, err);
}

/* Numbers in breccia's files that ggml made, or that may be those of a system with scales of any sign. */
static int is_of_others(brc_dialect dialect, const brc_tensor *t) {
    const brc_family family = (brc_family)brc_format_get((brc_format)t->format)->family;
    if (dialect != BRC_DIALECT_BRECCIA) return 0;
    if (t->recipe.id != BRC_RECIPE_UNKNOWN) return t->recipe.arith == BRC_ARITH_GGML;
    return family == BRC_INT || family == BRC_UINT || family == BRC_CODEBOOK;
}

int brci_takes_signs(brc_dialect dialect, const brc_tensor *t) {
    return brci_dialect_of(dialect)->signed_scales || is_of_others(dialect, t);
}

int brci_takes_zeros(brc_dialect dialect, const brc_tensor *t) {
    return brci_dialect_of(dialect)->zero_scales || is_of_others(dialect, t);
}

static brc_status check(brc_dialect dialect, const brc_tensor *t, const brc_table *table, const char *what,
                        brc_error *err) {
    brci_census c;
    if (table->data == NULL) return BRC_OK;
    TRY(brci_census_of(t, table, &c, err));
    const struct {
        int64_t n;
        const char *are;
    } faults[] = {{c.nonfinite, "are NaN or infinite"},
                  {brci_takes_signs(dialect, t) ? 0 : c.negative, "are negative"},
                  {(c.lost > 0 && !brci_takes_zeros(dialect, t)) || table->kind == BRC_KIND_DIVISOR ? c.zero : 0,
                   "are zero, their elements are not"}};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        if (faults[i].n > 0)
            return brci_fail(err, BRC_NONFINITE, 0, "%lld of %lld %s %s: its values are lost", (long long)faults[i].n,
                             (long long)c.n, what, faults[i].are);
    return BRC_OK;
}

brc_status brci_check_scales(brc_dialect dialect, const brc_tensor *t, brc_error *err) {
    TRY(check(dialect, t, &t->scale, "scales", err));
    return check(dialect, t, &t->global, "global scales", err);
}

int brci_doubt(double largest, char text[BRCI_DOUBT_SIZE]) {
    if (largest <= LARGE && (largest >= SMALL || !(largest > 0))) return 0;
    snprintf(text, BRCI_DOUBT_SIZE,
             "the largest value is %.3g: weights are rarely %s %g; is the scale read the right way?", largest,
             largest > LARGE ? "over" : "under", largest > LARGE ? LARGE : SMALL);
    return 1;
}
