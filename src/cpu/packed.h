/* SPDX-License-Identifier: Apache-2.0
 * Packed weights: orders in which the right side of a product is kept for its kernels. One row of packings.def an
 * order; a weight takes the first that holds it, and the last holds all. */
#ifndef BRCI_PACKED_H
#define BRCI_PACKED_H

#include "cpu/cast.h"

/* What is packed: matrices of n columns of the product, k long. `along`: k runs along the stored rows. */
typedef struct brci_weight {
    brci_source source;
    int along;
    int64_t batch, n, k;
    brc_format activations; /* of the other side */
} brci_weight;

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
    brc_array values;   /* of the order "f32": a plain array over `data`; else without data */
};

/* Memory a product takes besides: for all threads, and for each; both multiples of 64. Items that threads share. */
typedef struct brci_needs {
    int64_t shared_bytes, part_bytes;
    int64_t prepare, multiply; /* items of each step */
} brci_needs;

/* A product with a packed weight under way. */
typedef struct brci_packed_product {
    const brc_packed *packed;
    const brci_multiplication *product; /* its b is not looked at */
    brci_needs needs;
    uint8_t *shared, *parts; /* 64-byte aligned */
} brci_packed_product;

struct brci_packing {
    const char *name;
    /* Whether it holds a weight; fills in items, data_bytes and what is its own. */
    int (*plan)(brc_packed *packed, const brci_weight *weight);
    /* Items [first, last); 0 where a number was met that it cannot hold: the next order is tried. */
    int (*pack)(const brc_packed *packed, const brci_weight *weight, int64_t first, int64_t last);
    /* Whether it serves a product; says what that needs. NULL, as the two below: the product reads `values`. */
    int (*serves)(const brc_packed *packed, const brci_multiplication *product, brci_needs *needs);
    /* Before the multiplication, once for all threads: the left side into `shared`. NULL = nothing to do. */
    void (*prepare)(const brci_packed_product *job, uint32_t part, int64_t first, int64_t last);
    void (*multiply)(const brci_packed_product *job, uint32_t part, int64_t first, int64_t last);
};

#define PACKING(name) extern const brci_packing brci_packing_##name;
#include "cpu/packings.def"
#undef PACKING

/* In the order of packings.def; NULL past the end. */
const brci_packing *brci_packing_get(size_t i);

#endif
