/* SPDX-License-Identifier: Apache-2.0
 * Orders in which files keep codes and scales, and how they become the plain one (docs/dialects.md): codes one a byte,
 * scales in 128x4 tiles, tables with rows and columns exchanged. */
#ifndef BRCI_PACKING_H
#define BRCI_PACKING_H

#include "core/status.h"

#include "breccia/breccia.h"

/* Codes one a byte -> the rows of a tensor (its geometry; low bits first, every byte of a row is written).
 * `is_signed`: a byte is the number itself, -8 .. 7; else the code. A byte that is no code of the format is
 * BRC_MALFORMED, named as byte of `name`. */
brc_status brci_pack_codes(const char *name, const uint8_t *codes, int is_signed, const brc_tensor *tensor,
                           uint8_t *rows, brc_error *err);
/* And back. `flip` is added to each code first, modulo the width of the format: 2^(bits - 1) turns offset codes into
 * two's complement. */
void brci_unpack_codes(const brc_tensor *tensor, int is_signed, unsigned flip, uint8_t *codes);

/* Scales in tiles of 128 rows and 4 columns, one byte each: number (i, j) lies at byte
 * ((i/128)*T + j/4)*512 + (i%32)*16 + (i%128)/32*4 + j%4, T tiles along a row; the padding is 0. cuBLAS, "1D block
 * scaling factors layout". Bytes of the tiles of a matrix; -1 if they exceed 63 bits. */
int64_t brci_tiled_bytes(int64_t rows, int64_t cols);
void brci_tile(const uint8_t *plain, int64_t rows, int64_t cols, uint8_t *tiles);
void brci_untile(const uint8_t *tiles, int64_t rows, int64_t cols, uint8_t *plain);

/* Matrices [n, rows, cols] of numbers of `width` bytes -> [n, cols, rows]. */
void brci_transpose(const void *from, int64_t n, int64_t rows, int64_t cols, size_t width, void *to);

#endif
