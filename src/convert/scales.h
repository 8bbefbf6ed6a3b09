/* SPDX-License-Identifier: Apache-2.0
 * What a tensor's scales are like, before they are used: a scale that is NaN or of the wrong sign spoils its block. */
#ifndef BRCI_SCALES_H
#define BRCI_SCALES_H

#include "core/status.h"

#include "breccia/breccia_file.h"

typedef struct brci_census {
    int64_t n, nonfinite, negative, zero;
    int64_t uneven; /* no power of two */
    int64_t lost;   /* elements that only a scale of zero makes zero; 0 where zero points shift them */
} brci_census;

brc_status brci_census_of(const brc_tensor *tensor, const brc_table *table, brci_census *census, brc_error *err);
/* Whether scales of a tensor may be negative, or zero over elements that are not: the dialect's, or where the values
 * came from (breccia's files hold those of ggml and others, under integers and codebooks). */
int brci_takes_signs(brc_dialect dialect, const brc_tensor *tensor);
int brci_takes_zeros(brc_dialect dialect, const brc_tensor *tensor);
/* BRC_NONFINITE where a scale is NaN, infinite, negative, or zero where the elements are not, unless it may be so. */
brc_status brci_check_scales(brc_dialect dialect, const brc_tensor *tensor, brc_error *err);

/* Whether weights of this largest magnitude are hardly weights: most often a scale was read the wrong way. The text
 * says so. */
#define BRCI_DOUBT_SIZE 160
int brci_doubt(double largest, char text[BRCI_DOUBT_SIZE]);

#endif
