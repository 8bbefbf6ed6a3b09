/* SPDX-License-Identifier: Apache-2.0
 * Requantizing without arithmetic, inside: the blocks of the destination, and the runs of source elements in them that
 * share a multiplier and a zero point. */
#ifndef BRCI_TRANSLATE_H
#define BRCI_TRANSLATE_H

#include "reference/reference.h"

#define BRCI_CODES 256
#define BRCI_MAPS 8

/* Destination codes of source codes times sign * 2^shift; -1 = there is none, -2 = not looked up yet. */
typedef struct brci_code_map {
    int shift, negative, used;
    int16_t code[BRCI_CODES];
} brci_code_map;

typedef struct brci_translation {
    const brc_tensor *src;
    brc_tensor *dst;
    const brc_recipe *recipe;
    const brc_format_info *from, *to;
    brci_view view;
    brci_counts counts;                       /* blocks of the destination */
    brci_counts of_scale, of_global, of_zero; /* numbers of the source's tables */
    float value[BRCI_CODES];                  /* of the source's codes */
    float global;                             /* the destination's, as the number that its table holds; 1 = none */
    uint64_t of_zeros;                        /* code of the scale that a cast gives a block of zeros */
    brci_code_map maps[BRCI_MAPS];
} brci_translation;

/* A block of the destination: its number, and the elements it covers. */
typedef struct brci_region {
    int64_t number, batch[2], row[2], col[2]; /* first, past the last */
} brci_region;

/* Neighbours in a row of the source. */
typedef struct brci_run {
    int64_t row, col, n; /* row counts over all matrices */
    float m, scale;      /* what elements are multiplied by; the block's own number in it */
    float zero;          /* zero point, 0 where there is none */
} brci_run;

/* 0 = some value would have to change. A translation is not shared between threads, but copied. */
int brci_translate_begin(brci_translation *t, const brc_tensor *src, const brc_recipe *recipe, brc_tensor *dst);
/* Rows [first, last) of the destination's blocks, counted over batch * rows; dst unspecified where it fails. */
int brci_translate_rows(brci_translation *t, int64_t first, int64_t last);

brci_region brci_region_of(const brci_translation *t, int64_t number);
/* Calls `visit` for each run of a region; stops at the first 0. */
int brci_each_run(const brci_translation *t, const brci_region *region, int (*visit)(void *user, const brci_run *run),
                  void *user);
/* Up to BRCI_CODES codes of a run, from its i-th on, one a byte: how many. */
int64_t brci_run_codes(const brci_translation *t, const brci_run *run, int64_t i, uint8_t codes[BRCI_CODES]);
/* The same number of codes into the destination, whose bits are 0. */
void brci_put_codes(const brci_translation *t, const brci_run *run, int64_t i, int64_t n,
                    const uint8_t codes[BRCI_CODES]);
/* Stores a block's scale if the destination can hold this multiplier exactly; `hint` = a number for its table that may
 * do it. */
int brci_put_multiplier(const brci_translation *t, int64_t number, float m, float hint);
/* Whether multiplier and zero point of a run can be kept by another code. */
static inline int brci_is_usable(const brci_run *run) {
    return !brci_is_nan(run->m) && !brci_is_infinite(run->m) && !brci_is_nan(run->zero);
}

/* One region, where neither side has zero points; or where either has. 0 = impossible. */
int brci_translate_numbers(brci_translation *t, const brci_region *region);
int brci_translate_integers(brci_translation *t, const brci_region *region);

#endif
