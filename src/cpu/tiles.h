/* SPDX-License-Identifier: Apache-2.0
 * Rows of a product's tile on each instruction set: with two vectors of columns it fills the registers (32 of AVX-512:
 * 24 sums, 2 of b, a from memory; NEON too; 16 of AVX2: 12 sums). The columns are two vectors. */
#ifndef BRCI_TILES_H
#define BRCI_TILES_H

#define BRCI_TILE_M_GENERIC 4
#define BRCI_TILE_M_NEON 12
#define BRCI_TILE_M_AVX2 6
#define BRCI_TILE_M_AVX512 12

#endif
