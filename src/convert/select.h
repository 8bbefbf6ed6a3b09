/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BRCI_SELECT_H
#define BRCI_SELECT_H

#include "breccia/breccia_file.h"

/* Why quantize leaves a plain tensor as it is; NULL = it is to be quantized. */
const char *brci_kept_because(const brc_file *file, const brc_entry *entry, const brc_quantize_options *options);
/* Whether one of the globs fits. */
int brci_matches(const char *name, const char *const *globs, size_t n);
/* Whether the name of an array says that it is a part of a quantized tensor, in any dialect: its codes, or a scale. */
int brci_is_part(const brc_file *file, const brc_named_array *array);
/* F64, F32, F16 or BF16. */
int brci_is_high(const brc_named_array *array);

#endif
