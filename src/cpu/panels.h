/* SPDX-License-Identifier: Apache-2.0
 * Products with weights of the order "panels" (narrow.h). */
#ifndef BRCI_PANELS_H
#define BRCI_PANELS_H

#include "cpu/packed.h"

/* Of k. Shorter weights are kept as F32: where scales are applied to sums their rounding counts, and the bound grows
 * with k. */
#define BRCI_PANEL_DEPTH_LEAST 16
/* Of k, of blocks that no usual piece holds. */
#define BRCI_PANEL_BLOCK_MOST 2048

/* Which codes of panels a format's become: `map`, -1 = none; and how these are read. 0 where there are none. */
int brci_narrow_of(const brc_format_info *format, brci_narrow *narrow, int16_t map[256]);
/* How much of k is expanded at a time: about `piece`, whole blocks or whole parts of one. */
int64_t brci_panels_piece(const brc_packed *packed, int64_t piece);
/* Panel `panel` of a matrix from k on, a multiple of the block, or within one and a multiple of 8. */
brci_panel brci_panel_at(const brc_packed *packed, int64_t batch, int64_t panel, int64_t k);
/* Columns [n, n + width), n a multiple of the width, k in [k, k + depth) as F32, [depth][width]; k as brci_panels_piece
 * steps. Without the global scale. */
void brci_panels_expand(const brc_packed *packed, int64_t batch, int64_t n, int64_t k, int64_t depth, float *out,
                        int64_t width);
/* The global scale, applied to n numbers. */
void brci_panels_scale(const brc_packed *packed, float *sums, int64_t n);

#endif
