/* SPDX-License-Identifier: Apache-2.0
 * Where codes of 4 bits begin: of values that rise 15 numbers say which of the 16 is the nearest to any other. */
#ifndef BRCI_STEPS_H
#define BRCI_STEPS_H

#include "core/format.h"

#include <stdint.h>

/* The same in the orders that vectors search in. A cell is what rounds to one whole number when multiplied by `cells`;
 * no cell has more than one step, and the steps lie in cells -14 .. 14. Cells count modulo 32. */
typedef struct brci_steps {
    float from[16];         /* the smallest number of each value; of the lowest: -infinity */
    float tree[16];         /* by halves: of node i the next ones are 2i (below it) and 2i+1; the first one is node 1 */
    float value[16];        /* a codebook's, of each code */
    float even[8];          /* of each second one, */
    uint32_t turn[8];       /* and what turns its bits into those of the next one */
    float cells;            /* a width of 1, in cells */
    float limit;            /* what is beyond it is beyond all steps; in cells -15 and 15 */
    float within[32];       /* of each cell its step; infinity: none */
    uint32_t beginning[32]; /* of each cell the code of its smallest numbers; above a step those of the next one */
    float beginning_value[32];
} brci_steps;

/* Of two values of a codebook that are equally near the codec takes the lower one, ggml the upper one; of two of E2M1's
 * ggml takes the smaller one, and never -0. NULL: there is none. */
const brci_steps *brci_steps_of(unsigned format, int ggml);

#endif
