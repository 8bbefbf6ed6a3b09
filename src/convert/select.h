/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BRCI_SELECT_H
#define BRCI_SELECT_H

#include "breccia/breccia_file.h"

/* Why quantize leaves a plain tensor as it is; NULL = it is to be quantized. */
const char *brci_kept_because(const brc_entry *entry, const brc_quantize_options *options);
/* F64, F32, F16 or BF16. */
int brci_is_high(const brc_named_array *array);

#endif
