/* SPDX-License-Identifier: Apache-2.0
 * Codes in 32-bit words: a little-endian bit stream, code i at bit i * bits, straddling words where bits is no power of
 * two. The words may lie apart (GPTQ's run down a column). And codes in the rows of a tensor, one at a time. */
#ifndef BRCI_WORDS_H
#define BRCI_WORDS_H

#include "breccia/breccia.h"

#include <string.h>

/* `words` = the first word, at any byte; `step` = bytes from word to word. */
static inline unsigned brci_words_get(const void *words, int64_t step, int64_t i, unsigned bits) {
    const int64_t bit = i * bits, word = bit / 32;
    const unsigned shift = (unsigned)(bit % 32);
    uint32_t low, high = 0;
    memcpy(&low, (const uint8_t *)words + word * step, sizeof low);
    if (shift + bits > 32) memcpy(&high, (const uint8_t *)words + (word + 1) * step, sizeof high);
    return (unsigned)((((uint64_t)high << 32) | low) >> shift) & ((1u << bits) - 1);
}

/* The words start as zeros. */
static inline void brci_words_put(void *words, int64_t step, int64_t i, unsigned bits, unsigned code) {
    const int64_t bit = i * bits, word = bit / 32;
    const unsigned shift = (unsigned)(bit % 32);
    const uint64_t placed = (uint64_t)code << shift;
    for (int64_t part = 0; part < 2; part++) {
        const uint32_t mine = (uint32_t)(placed >> (32 * part));
        uint32_t there;
        if (part == 1 && shift + bits <= 32) return;
        memcpy(&there, (uint8_t *)words + (word + part) * step, sizeof there);
        there |= mine;
        memcpy((uint8_t *)words + (word + part) * step, &there, sizeof there);
    }
}

/* Element `col` of a row of packed codes of up to 8 bits, as its bits. */
static inline unsigned brci_code_get(const uint8_t *row, int64_t col, unsigned bits) {
    const int64_t bit = col * bits;
    unsigned pair = row[bit / 8];
    if (bit % 8 + bits > 8) pair |= (unsigned)row[bit / 8 + 1] << 8;
    return (pair >> (bit % 8)) & ((1u << bits) - 1);
}

/* The row starts as zeros. */
static inline void brci_code_put(uint8_t *row, int64_t col, unsigned bits, unsigned code) {
    const int64_t bit = col * bits;
    const unsigned pair = code << (bit % 8);
    row[bit / 8] |= (uint8_t)pair;
    if (bit % 8 + bits > 8) row[bit / 8 + 1] |= (uint8_t)(pair >> 8);
}

#endif
