/* SPDX-License-Identifier: Apache-2.0
 * The JSON that describes a tensor in the dialect breccia. */
#ifndef BRCI_BRECCIA_CONFIG_H
#define BRCI_BRECCIA_CONFIG_H

#include "core/status.h"
#include "dialect/pool.h"

typedef struct brci_breccia_config {
    int version; /* 2, or 1 = written by the Python package 0.1 */
    brc_recipe recipe;
    brc_layout layout; /* the tensor's name for the recipe's block, which has two for 1xK */
    int rank;          /* version 2; of version 1 the data tells */
    int64_t shape[BRC_MAX_RANK];
} brci_breccia_config;

/* Whether a metadata value is meant as such a description, well-formed or not. */
int brci_is_breccia_config(const char *text);
brc_status brci_breccia_config_read(const char *text, brci_breccia_config *config, brc_error *err);
/* NULL when out of memory. */
const char *brci_breccia_config_write(brci_pool *pool, const brc_recipe *recipe, brc_layout layout, int rank,
                                      const int64_t *shape);

#endif
