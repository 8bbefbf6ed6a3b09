/* SPDX-License-Identifier: Apache-2.0
 * Companions: arrays beside a tensor that its values do not need, such as the scale of its input. A dialect takes along
 * those that it has a name for (brci_carry); what is left behind is told. */
#ifndef BRCI_CARRIED_H
#define BRCI_CARRIED_H

#include "core/status.h"
#include "dialect/dialect.h"

/* The entry with its companions under every role by which a dialect may ask for them: a scale of the input as its
 * reciprocal, too. In the pool; NULL when out of memory. */
const brc_entry *brci_companions(brci_pool *pool, const brc_entry *entry);
/* The role of the i-th part of `entry` if it is a companion that a store did not take along; else NULL. `origin` is
 * what brci_companions gave; `store` NULL = nothing is taken along. */
const char *brci_left_behind(const brc_entry *entry, size_t i, const brc_entry *origin, const brci_store *store);
/* Whether a part of this role may be left behind. Not a pre_quant_scale: the layer's inputs are multiplied by it, and
 * without it the values mean something else. `dialect` = the name of the one without a place; NULL = plain numbers. */
brc_status brci_check_left(const char *role, const char *dialect, brc_error *err);

#endif
