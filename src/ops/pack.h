/* SPDX-License-Identifier: Apache-2.0
 * Packs a weight in one order. */
#ifndef BRCI_PACK_H
#define BRCI_PACK_H

#include "cpu/packed.h"

/* 1 = packed, the memory packed->data is the caller's to free; 0 = this order does not hold the weight; -1 = no memory.
 * Of `packed` kernels, batch, n, k are given. */
int brci_pack_as(const brci_packing *packing, const brci_weight *weight, const brc_options *options,
                 brc_packed *packed);

#endif
