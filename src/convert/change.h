/* SPDX-License-Identifier: Apache-2.0
 * What becomes of one tensor on its way into another dialect: decided first, from its geometry and where needed from
 * its numbers; then made. */
#ifndef BRCI_CHANGE_H
#define BRCI_CHANGE_H

#include "convert/bytes.h"
#include "core/status.h"
#include "dialect/dialect.h"

typedef enum brci_way {
    BRCI_CARRY,    /* every array, byte for byte: plain, or of the dialect already */
    BRCI_STORE,    /* the value as it is, under the dialect's names and in its order */
    BRCI_TURN,     /* the same, its global scale in the other direction */
    BRCI_EXACT,    /* another recipe, codes and scales translated */
    BRCI_CAST,     /* another recipe, through F32 */
    BRCI_QUANTIZE, /* plain numbers under a recipe */
    BRCI_DENSE,    /* plain numbers */
} brci_way;

/* What a conversion goes by. */
typedef struct brci_conversion {
    const brc_checkpoint *source;
    const brc_convert_options *options;
    const brci_dialect *target;
    brci_pool *pool; /* for what lives as long as the conversion */
    brc_recipe *own; /* [n_own] the recipes that the dialect lists, in the pool */
    size_t n_own;
    brc_options threads;
} brci_conversion;

brc_status brci_conversion_begin(brci_conversion *c, const brc_checkpoint *source, const brc_convert_options *options,
                                 brci_pool *pool, brc_error *err);

typedef struct brci_change {
    brci_way way;
    brc_format format;       /* of DENSE */
    brc_recipe recipe;       /* of EXACT, CAST, QUANTIZE */
    brc_tensor tensor;       /* geometry of what is stored; format NONE where nothing scaled is */
    const brc_entry *origin; /* for brci_dialect.store; NULL for plain tensors */
    const char *from, *to;   /* recipe or number type, for people */
    brc_exactness exactness; /* of its values, once they are judged */
    double sqnr, largest;    /* largest: magnitude before */
    int64_t beyond;          /* finite numbers on one side only */
    int64_t uneven;          /* scales that are no powers of two, though the file says that they are */
    int judged;
} brci_change;

/* Decides. What the dialect has no place for is BRC_UNSUPPORTED. */
brc_status brci_change_plan(const brci_conversion *c, const brc_entry *entry, brci_change *change, brc_error *err);

/* A tensor on both sides. */
typedef struct brci_made {
    brc_owned before, after;
    brc_tensor stored;  /* what is stored, of the memory of either */
    brci_packed packed; /* the same as the dialect's arrays */
    brc_array dense;    /* of DENSE */
    void *memory;       /* of turned global scales, or of dense numbers */
} brci_made;

/* Makes what was decided, but for CARRY; to be ended in any case. */
brc_status brci_change_make(const brci_conversion *c, const brc_entry *entry, const brci_change *change,
                            brci_made *made, brc_error *err);
void brci_made_end(brci_made *made);
/* Fills in the class (judge.c): compares the values before with those that the dialect's own reader finds in what is to
 * be written. */
brc_status brci_change_judge(const brci_conversion *c, const brc_entry *entry, brci_made *made, brci_change *change,
                             brc_error *err);
/* Makes, judges, and lets go. */
brc_status brci_change_measure(const brci_conversion *c, const brc_entry *entry, brci_change *change, brc_error *err);

#endif
