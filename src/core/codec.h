/* SPDX-License-Identifier: Apache-2.0
 * The generic codec: one number to its code and back, from the format's row alone. Ground truth for every kernel. */
#ifndef BRCI_CODEC_H
#define BRCI_CODEC_H

#include "core/bits.h"
#include "core/format.h"

/* Code of x: nearest even; ELEMENT and CARRIED formats saturate, HIGH formats overflow to infinity. */
uint64_t brci_encode(const brc_format_info *format, float x);

/* Value of a code; exact but for 64-bit integers, which round to 53 bits. */
double brci_decode(const brc_format_info *format, uint64_t code);

/* Element i of a packed row, and how to put it there (sub-byte: the bits must be 0 before). */
uint64_t brci_code_at(const uint8_t *row, unsigned bits, int64_t i);
void brci_code_put(uint8_t *row, unsigned bits, int64_t i, uint64_t code);

#endif
