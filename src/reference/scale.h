/* SPDX-License-Identifier: Apache-2.0
 * From the numbers of a block to its scale, and how its elements are encoded under it. */
#ifndef BRCI_SCALE_H
#define BRCI_SCALE_H

#include "core/recipe.h"

/* What a scale is chosen from; NaN is counted and otherwise ignored. Starts as {0}. */
typedef struct brci_extent {
    float amax;      /* infinity is kept */
    float low, high; /* minimum and maximum, widened to zero */
    int64_t nan, infinite;
} brci_extent;

void brci_extend(brci_extent *extent, const float *x, int64_t count);

/* E2M1 with ties toward zero: which zero stands for what rounds to it. */
enum brci_ties { BRCI_TIES_EVEN, BRCI_TIES_PLUS_ZERO, BRCI_TIES_MINUS_ZERO };

/* How the elements of one block are encoded: y = f32(x*factor) or f32(x/factor), then the zero point, then the codec.
 */
typedef struct brci_coder {
    float factor;
    int divide;
    float zero;        /* integer zero point */
    int round_first;   /* the zero point is added to the rounded number (torchao), not before rounding */
    int no_minus_zero; /* -0 is encoded as +0 (systems that add a zero point of 0, or ask x < 0) */
    int ties_below;    /* of two equally near elements the one nearer to zero (brci_ties) */
    int is_offset;     /* y = f32(f32(x - zero) / factor): the zero point is in units of the value (MLX) */
    unsigned ggml;     /* 1 + the rule by which ggml.c encodes (zero: in units of the value); 0 = others do */
} brci_coder;

/* The numbers stored for one block. */
typedef struct brci_scaling {
    uint64_t scale, zero; /* codes */
    brci_coder coder;
} brci_scaling;

/* What one cast fixes for all blocks. */
typedef struct brci_casting {
    const brc_recipe *recipe;
    const brc_format_info *element;
    float input_max; /* largest finite number of the source's format */
    float global;    /* levels 2: the stored number */
    float delayed;   /* delayed scaling: the state's scale; 0 = none */
} brci_casting;

/* The second level from the largest magnitude of all blocks that share it. */
float brci_choose_global(const brc_recipe *recipe, float amax);

brci_scaling brci_choose(const brci_casting *casting, const brci_extent *extent);

/* rule=fit: scales tried on either side of the simple one; magnitudes below which a block is zero (GROUP_MAX_EPS of
 * ggml). */
#define BRCI_FIT_TRIES 7
#define BRCI_FIT_TINY 1e-15f

/* The same for arith=ggml, which takes more of a block than its extent. */
brci_scaling brci_choose_ggml(const brci_casting *casting, const float *x, int64_t count);
uint64_t brci_encode_ggml(const brc_format_info *element, const brci_coder *coder, float x);

/* And for MLX's affine blocks, which take the true ends, not widened to zero. */
brci_scaling brci_choose_affine(const brci_casting *casting, const float *x, int64_t count);

uint64_t brci_encode_scaled(const brc_format_info *element, const brci_coder *coder, float x);

#endif
