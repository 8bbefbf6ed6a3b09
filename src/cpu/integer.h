/* SPDX-License-Identifier: Apache-2.0
 * Products whose codes are integers times one number of their block (INT8 activations; INT8, INT4, E2M1 weights, E2M1
 * counted in halves): the dots inside a block are exact 32-bit integers, blocks are added as floats.
 *
 * The error of an element is at most (blocks + 7) * 2^-24 * sum(|a||b|): what dequantization rounds is not rounded, the
 * product of the scales, the dot as a float and each block's sum are. That is below the K*2^-24 that is promised. Where
 * scales are multiplied into numbers of BF16 before (integer_halve), products are exact and their sums rounded: K/2. */
#ifndef BRCI_INTEGER_H
#define BRCI_INTEGER_H

#include "cpu/cast.h"

/* One side of a product: rows of integers. */
typedef struct brci_integer_side {
    brci_integer_format format;
    int64_t block;  /* of k that share a scale; 0 = all */
    int64_t scales; /* numbers of a scale along k, up to the padded depth; 0 = one for all */
    int64_t depth;  /* k, filled up to a multiple of 64 */
} brci_integer_side;

/* Whether a tensor's rows are such; k along them. */
int brci_integer_side_of(const brci_source *source, brci_integer_side *side);

/* A row: where its codes and numbers lie. */
typedef struct brci_integer_row {
    const brc_tensor *tensor;
    const brci_integer_side *side;
    const uint8_t *codes;
    int64_t scale_at, zero_at, length, cols; /* length: of a scale's block */
    float all;                               /* of the whole row: global scale and unit */
} brci_integer_row;

brci_integer_row brci_integer_row_of(const brci_source *source, const brci_integer_side *side, int64_t batch,
                                     int64_t row);

/* The row's scales, `width` numbers apart, and `all`: with one scale that is in `all` too. Whether they are in the
 * range that products keep exact enough; blocks of zeros may have any that is finite. */
int brci_integer_scales(const brci_kernels *kernels, const brci_integer_row *row, int64_t width, float *out,
                        float *all);

/* How far apart the scales of rows are, where each row has its own, or all the same. */
int64_t brci_integer_rows_apart(const brci_source *source);
/* From row `row` - 1 to the next one. */
void brci_integer_next_row(const brci_source *source, int64_t batch, int64_t row, int64_t apart, brci_integer_row *r);

/* One element of a product from dequantized values, for rows that have scales out of range. */
float brci_integer_element(const brci_kernels *kernels, const brci_multiplication *product, int64_t batch, int64_t m,
                           int64_t n);

#define BRCI_INTEGER_RUN 512 /* of k that are read from a row before the next one's turn */
/* Panel of columns that `rows` are, k in [k, k + depth), depth up to BRCI_INTEGER_RUN in steps of 64: `strange` where
 * numbers are no bytes with their zero points off. */
void brci_integer_panel(const brci_kernels *kernels, const brci_integer_row rows[BRCI_INTEGER_COLUMNS], int64_t k,
                        int64_t depth, int bias, uint32_t strange[BRCI_INTEGER_COLUMNS], uint8_t *out);

/* Numbers [first, first + 64), plus `bias`; `bias` beyond the end. Whether they are bytes with their zero points taken
 * off. */
int brci_integer_bytes(const brci_kernels *kernels, const brci_integer_row *row, int64_t first, int bias,
                       uint8_t out[BRCI_INTEGER_DEPTH]);

#endif
