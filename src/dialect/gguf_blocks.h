/* SPDX-License-Identifier: Apache-2.0
 * GGUF's blocks, and the codes, scales and zero points that they hold. */
#ifndef BRCI_GGUF_BLOCKS_H
#define BRCI_GGUF_BLOCKS_H

#include "core/status.h"

#define BRCI_GGUF_BLOCK_MAX 256 /* numbers of a block */
#define BRCI_GGUF_BYTES_MAX 512 /* bytes of a block, or of the tables or the codes that it holds */

/* What a block holds, as the tensor has it: codes one a byte, tables in their formats. */
typedef struct brci_gguf_parts {
    uint8_t codes[BRCI_GGUF_BLOCK_MAX];
    uint8_t scales[BRCI_GGUF_BYTES_MAX], zeros[BRCI_GGUF_BYTES_MAX];
} brci_gguf_parts;

/* One row of gguf_blocks.def. */
typedef struct brci_gguf_block {
    const char *word;
    uint32_t numbers, bytes;      /* of a block */
    uint8_t element, scale, zero; /* brc_format; zero NONE = no table */
    uint8_t one;                  /* code 1 stands for 0: every zero point is 1 */
    uint32_t group;               /* numbers that share a scale */
    int8_t scale_at, zero_at, high_at, codes_at;
    uint8_t flip;
    uint16_t file_type;
    const char *recipe;                                           /* NULL = none: it is not written */
    void (*unpack)(const uint8_t *block, brci_gguf_parts *parts); /* NULL = by the columns above */
} brci_gguf_block;

/* Rows in the order of the table; NULL past the end, or where there is no such word. */
const brci_gguf_block *brci_gguf_block_at(size_t i);
const brci_gguf_block *brci_gguf_block_of(const char *word);

void brci_gguf_unpack(const brci_gguf_block *b, const uint8_t *block, brci_gguf_parts *parts);
/* The inverse, of rows that have a recipe. */
void brci_gguf_pack(const brci_gguf_block *b, const brci_gguf_parts *parts, uint8_t *block);

#endif
