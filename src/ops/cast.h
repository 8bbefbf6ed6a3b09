/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BRCI_CAST_H
#define BRCI_CAST_H

#include "ops/parallel.h"
#include "reference/reference.h"

/* Checks that `dst` is what brc_tensor_plan gives for this recipe and shape, its pointers set. */
brc_status brci_destination_check(const brc_recipe *recipe, int rank, const int64_t *shape, const brc_tensor *dst,
                                  brc_error *err);

/* Casts a checked source into a checked destination. */
void brci_cast(const brci_source *source, const brc_recipe *recipe, const brc_options *options, float input_max,
               brc_delayed_state *state, brc_tensor *dst, brc_report *report);

/* Memory for a planned tensor, for the calls that allocate. */
brc_status brci_own(const brc_recipe *recipe, int rank, const int64_t *shape, brc_owned *owned, brc_error *err);

#endif
