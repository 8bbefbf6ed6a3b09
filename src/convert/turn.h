/* SPDX-License-Identifier: Apache-2.0
 * The direction of a global scale: systems store a multiplier, its reciprocal, or the largest magnitude. */
#ifndef BRCI_TURN_H
#define BRCI_TURN_H

#include "core/status.h"
#include "dialect/dialect.h"

/* Whether a dialect stores a tensor (its buffers may be NULL): as it is, or with its global scale turned, which then
 * stands in tensor->global.kind. BRC_UNSUPPORTED, in the dialect's words, if it does not. */
brc_status brci_settle(const brci_dialect *dialect, const char *name, brc_tensor *tensor, const brc_entry *origin,
                       brc_error *err);
/* The numbers of tensor->global as those of another kind, F32 in *memory (to be freed), where the tensor then points.
 */
brc_status brci_turn(brc_tensor *tensor, unsigned kind, void **memory, brc_error *err);

#endif
