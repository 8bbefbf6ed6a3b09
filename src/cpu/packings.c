/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/packed.h"

static const brci_packing *const packings[] = {
#define PACKING(name) &brci_packing_##name,
#include "cpu/packings.def"
#undef PACKING
};

const brci_packing *brci_packing_get(size_t i) { return i < sizeof packings / sizeof *packings ? packings[i] : NULL; }
