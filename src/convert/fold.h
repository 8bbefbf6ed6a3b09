/* SPDX-License-Identifier: Apache-2.0
 * A pre_quant_scale s of AWQ multiplies the inputs of its layer: (x * s) W^T = x (W * s)^T, so that plain weights take
 * it in, a number for each column. */
#ifndef BRCI_FOLD_H
#define BRCI_FOLD_H

#include "core/status.h"
#include "dialect/dialect.h"

/* The part that is to be multiplied in; NULL = none. */
const brc_named_array *brci_folded(const brc_entry *entry);
/* Its number for each of the tensor's columns, F32, to be freed. */
brc_status brci_fold_columns(const brc_entry *entry, int64_t columns, float **numbers, brc_error *err);
/* As brc_dequantize of the entry's tensor, each value multiplied by its column's number; one rounding to F32 after
 * that of the value, one more to a narrower format. */
brc_status brci_dequantize_folded(const brc_entry *entry, const brc_tensor *tensor, const brc_options *options,
                                  brc_array *out, brc_error *err);

#endif
