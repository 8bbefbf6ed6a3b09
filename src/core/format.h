/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BRCI_FORMAT_H
#define BRCI_FORMAT_H

#include "breccia/breccia.h"

/* The row of a format; the caller knows it exists. */
const brc_format_info *brci_format(unsigned format);

/* The 2^bits values of a codebook format, rising. */
const float *brci_codebook(brc_format format);

static inline int brci_is_integer(const brc_format_info *f) { return f->family == BRC_INT || f->family == BRC_UINT; }
static inline int brci_is_high(unsigned format) { return brci_format(format)->role == BRC_HIGH; }

#endif
