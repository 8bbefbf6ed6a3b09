/* SPDX-License-Identifier: Apache-2.0
 * One side of a product, checked: its numbers and its shape after the transposition. */
#ifndef BRCI_SIDE_H
#define BRCI_SIDE_H

#include "reference/source.h"

typedef struct brci_side {
    brci_source source;
    int64_t rows, cols;
    int rank;
    const int64_t *shape; /* as stored */
} brci_side;

/* `name` is the operand's in messages. */
brc_status brci_side_of(const brc_operand *operand, const char *name, brci_side *side, brc_error *err);

#endif
