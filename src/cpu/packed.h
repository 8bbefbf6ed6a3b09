/* SPDX-License-Identifier: Apache-2.0
 * Packed weights: orders in which the right side of a product is kept for its kernels. One row of packings.def an
 * order; a weight takes the first that holds it, and the last holds all. */
#ifndef BRCI_PACKED_H
#define BRCI_PACKED_H

#include "cpu/integer.h"
#include "cpu/way.h"

/* What is packed: matrices of n columns of the product, k long. `along`: k runs along the stored rows. */
typedef struct brci_weight {
    brci_source source;
    int along;
    int64_t batch, n, k;
    brc_format activations; /* of the other side */
} brci_weight;

/* Geometry of the order "panels" (panels.h). A panel: codes, scales, zero points, each from a multiple of 64 bytes on.
 */
typedef struct brci_panels {
    brci_narrow narrow;
    int16_t map[256];                             /* a weight's code -> a panel's; -1 = has none */
    int exact_bf16;                               /* every code is a number of BF16 */
    float fold, unfold;                           /* not 0: so is every code times its scale and `fold`; 1 / fold */
    float global;                                 /* applied to the sums */
    int64_t depth;                                /* k, filled up to whole units */
    int64_t blocks;                               /* of k */
    int64_t panels;                               /* of a matrix */
    int64_t code_bytes, scale_bytes, panel_bytes; /* zero points take as much as scales */
} brci_panels;

/* Geometry of the order "integers" (kernels.h). A panel: codes, scales as they were stored, a float for each column;
 * each from a multiple of 64 bytes on. */
typedef struct brci_integer_weight {
    brci_integer_side side;
    int narrow;           /* two codes a byte */
    uint8_t scale_format; /* of [scales][32] */
    int64_t panels;       /* of a matrix */
    int64_t code_bytes, scale_bytes, panel_bytes;
} brci_integer_weight;

typedef struct brci_packing brci_packing;

struct brc_packed {
    const brci_packing *packing;
    const brci_kernels *kernels; /* that made it and read it; NULL = the reference */
    int rank;
    int64_t shape[BRC_MAX_RANK]; /* [.., n, k] */
    int64_t batch, n, k;
    int64_t items;      /* pieces of `data` that threads may pack apart */
    int64_t data_bytes; /* a multiple of 64 */
    void *data;         /* 64-byte aligned */
    brci_panels panels;
    brci_integer_weight integers;
    brc_array values; /* of the order "f32": a plain array over `data`; else without data */
};

struct brci_packing {
    const char *name;
    /* Whether it holds a weight; fills in items, data_bytes and what is its own. */
    int (*plan)(brc_packed *packed, const brci_weight *weight);
    /* Items [first, last); 0 where a number was met that it cannot hold: the next order is tried. */
    int (*pack)(const brc_packed *packed, const brci_weight *weight, int64_t first, int64_t last);
    const brci_way
        *ways[4]; /* that compute products with it, the best first; none: `values` is an operand as any other */
};

#define PACKING(name) extern const brci_packing brci_packing_##name;
#include "cpu/packings.def"
#undef PACKING

/* In the order of packings.def; NULL past the end. */
const brci_packing *brci_packing_get(size_t i);

#endif
