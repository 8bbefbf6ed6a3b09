/* SPDX-License-Identifier: Apache-2.0
 * A way to compute products: what it needs, and the two steps that threads share. A product is done in rounds
 * (matrices, blocks of rows), each prepared and then multiplied. How items are shared never changes a result. */
#ifndef BRCI_WAY_H
#define BRCI_WAY_H

#include "cpu/cast.h"

/* Memory: for all threads, and for each; both multiples of 64. Items of each step of a round. */
typedef struct brci_needs {
    int64_t rounds, shared_bytes, part_bytes, prepare, multiply;
    int refuses; /* a round may be refused as it is prepared */
} brci_needs;

typedef struct brci_job {
    const brci_kernels *kernels;
    const brci_multiplication *product;
    const brc_packed *packed; /* NULL = product->b; else that is not looked at */
    brci_needs needs;
    int64_t round;
    uint8_t *shared, *parts; /* 64-byte aligned; a part for each thread */
} brci_job;

typedef struct brci_way {
    int (*serves)(const brci_job *job, brci_needs *needs);
    /* 0 where a number was met that it cannot compute with: another way is taken. NULL = nothing to do. */
    int (*prepare)(const brci_job *job, uint32_t part, int64_t first, int64_t last);
    void (*multiply)(const brci_job *job, uint32_t part, int64_t first, int64_t last);
} brci_way;

/* Both sides as F32 (tiles.c), for any operands the kernels read, and for packed ones of the order "panels". */
extern const brci_way brci_way_tiles;
/* Few rows times a weight with k along its rows, not packed (rows.c). */
extern const brci_way brci_way_rows;
/* The same of weights of 4 or 8 bits, of which nothing goes through memory (narrow_rows.c). */
extern const brci_way brci_way_narrow_rows;
/* Integer codes on both sides (integers.c), packed or not. */
extern const brci_way brci_way_integers;
/* The same of few rows and weights of 4 or 8 bits as they are stored (integer_rows.c). */
extern const brci_way brci_way_integer_rows;
/* Panels as BF16, where there are units for it (bf16.c). */
extern const brci_way brci_way_bf16;
/* Panels as they are stored, for few rows (panels.c), else by tiles. */
extern const brci_way brci_way_panels;

static inline int64_t brci_least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t brci_most(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t brci_ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* The largest number that divides both; 0 is divided by all. */
static inline int64_t brci_common(int64_t a, int64_t b) {
    while (b != 0) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* n things shared out evenly among parts: the first of part i. */
static inline int64_t brci_share(int64_t n, int64_t parts, int64_t i) {
    return i * (n / parts) + brci_least(i, n % parts);
}

#endif
