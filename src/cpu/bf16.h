/* SPDX-License-Identifier: Apache-2.0
 * Products on units that multiply matrices of BF16 and add in F32. Narrow codes are exact in BF16; the other side is
 * too, or is split into up to three numbers of BF16 whose sum it is. The units flush subnormals: numbers near them are
 * left to the other ways. */
#ifndef BRCI_BF16_H
#define BRCI_BF16_H

#include "cpu/narrow.h"

#define BRCI_BF16_TILE 32 /* rows, columns of a tile of sums, and of k at a time */
#define BRCI_BF16_PLANES 3
#define BRCI_BF16_PART 512 /* numbers of 16 rows, or columns, by 32 of k: they lie together */

/* What stands beside each other in a pair of k: numbers of each 8 of k that are so far apart. */
static inline int brci_pair_apart(brci_narrow_kind kind) { return kind == BRCI_NARROW_4 ? 4 : 1; }

/* A tile of sums needs so much of b: [k/32][16 pairs of k][16 columns][2] of each panel of 16 columns. */
typedef struct brci_bf16_tile {
    const uint16_t *a; /* [k/32][16 rows][32]; the next 16 rows and the next plane so many numbers later */
    int64_t a_rows, a_plane;
    int planes, rows;        /* rows: 1..32 */
    const uint16_t *b[2];    /* two panels */
    int64_t steps, every;    /* of 32 of k; every: steps that share a scale, 0 = none is applied */
    const float *scales[2];  /* [blocks][16] of columns, */
    const float *row_scales; /* or [blocks][32] of rows; NULL = none */
    int more;                /* added to what c holds */
    float *c;                /* [32][32] */
} brci_bf16_tile;

typedef struct brci_bf16_few {
    const uint16_t *a; /* as above */
    int64_t a_plane;
    int planes;
    brci_panel panels[2]; /* of one geometry */
    int64_t depth;        /* of k, whole units */
    float fold;           /* not 0: scales, times it, are multiplied into the numbers before */
    float *c;             /* [16][32] */
} brci_bf16_few;

#endif
