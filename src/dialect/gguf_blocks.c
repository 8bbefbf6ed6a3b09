/* SPDX-License-Identifier: Apache-2.0
 * Blocks to codes and tables, and back. Products of a half-precision number and a small integer are exact in F32, so no
 * rounding mode matters. */
#include "dialect/gguf_blocks.h"

#include <string.h>

/* ---------------------------------------------------------------------------------------- blocks by their columns */

static unsigned bits_of(unsigned format) { return brc_format_get((brc_format)format)->bits; }

static uint32_t groups(const brci_gguf_block *b) { return b->numbers / b->group; }

static void unpack_columns(const brci_gguf_block *b, const uint8_t *block, brci_gguf_parts *p) {
    const uint8_t *codes = block + b->codes_at;
    const uint32_t half = b->group / 2;
    memcpy(p->scales, block + b->scale_at, groups(b) * bits_of(b->scale) / 8);
    if (b->zero_at >= 0) memcpy(p->zeros, block + b->zero_at, groups(b) * bits_of(b->zero) / 8);
    if (bits_of(b->element) == 8) {
        memcpy(p->codes, codes, b->numbers);
        return;
    }
    for (uint32_t first = 0; first < b->numbers; first += b->group, codes += half)
        for (uint32_t j = 0; j < half; j++) {
            p->codes[first + j] = codes[j] & 15;
            p->codes[first + half + j] = codes[j] >> 4;
        }
    for (uint32_t j = 0; j < b->numbers; j++) {
        if (b->high_at >= 0) p->codes[j] |= (uint8_t)((block[(uint32_t)b->high_at + j / 8] >> (j % 8) & 1) << 4);
        p->codes[j] ^= b->flip;
    }
}

void brci_gguf_pack(const brci_gguf_block *b, const brci_gguf_parts *p, uint8_t *block) {
    uint8_t *codes = block + b->codes_at;
    const uint32_t half = b->group / 2;
    memset(block, 0, b->bytes);
    memcpy(block + b->scale_at, p->scales, groups(b) * bits_of(b->scale) / 8);
    if (b->zero_at >= 0) memcpy(block + b->zero_at, p->zeros, groups(b) * bits_of(b->zero) / 8);
    if (bits_of(b->element) == 8) {
        memcpy(codes, p->codes, b->numbers);
        return;
    }
    for (uint32_t first = 0; first < b->numbers; first += b->group, codes += half)
        for (uint32_t j = 0; j < half; j++)
            codes[j] =
                (uint8_t)(((p->codes[first + j] ^ b->flip) & 15) | ((p->codes[first + half + j] ^ b->flip) & 15) << 4);
    for (uint32_t j = 0; j < b->numbers && b->high_at >= 0; j++)
        block[(uint32_t)b->high_at + j / 8] |= (uint8_t)(((p->codes[j] ^ b->flip) >> 4 & 1) << (j % 8));
}

/* ------------------------------------------------------------------------------------------------- super-blocks */

static float half_at(const uint8_t *bytes) {
    float x = 0;
    (void)brc_decode(BRC_F16, bytes, 1, &x, NULL);
    return x;
}

static void put(uint8_t *table, uint32_t i, float x) { memcpy(table + i * sizeof x, &x, sizeof x); }

/* Fields of 2 bits: byte l of 32 holds elements l, l + 32, l + 64, l + 96 of 128. */
static void spread_twos(const uint8_t *bytes, uint8_t *codes) {
    for (uint32_t i = 0; i < 256; i++) codes[i] = bytes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
}

/* scales[16] (4 bits scale, 4 bits minimum), qs[64], d, dmin: value = (d*sc)*q - dmin*mn */
static void q2_k(const uint8_t *block, brci_gguf_parts *p) {
    const float d = half_at(block + 80), least = half_at(block + 82);
    spread_twos(block + 16, p->codes);
    for (uint32_t g = 0; g < 16; g++) {
        put(p->scales, g, d * (float)(block[g] & 15));
        put(p->zeros, g, -(least * (float)(block[g] >> 4)));
    }
}

/* hmask[32], qs[64], scales[12] (16 of 6 bits, minus 32), d: value = (d*sc)*(q - 4 where the mask's bit is 0) */
static void q3_k(const uint8_t *block, brci_gguf_parts *p) {
    const uint8_t *mask = block, *scales = block + 96;
    const float d = half_at(block + 108);
    spread_twos(block + 32, p->codes);
    for (uint32_t i = 0; i < 256; i++) {
        const unsigned high = mask[i % 32] >> (i / 32) & 1;
        p->codes[i] = (uint8_t)((p->codes[i] - (high ? 0 : 4)) & 7); /* two's complement of 3 bits */
    }
    for (uint32_t g = 0; g < 16; g++) {
        const int low = g < 8 ? scales[g] & 15 : scales[g - 8] >> 4, high = scales[8 + g % 4] >> (g / 4 * 2) & 3;
        put(p->scales, g, d * (float)((low | high << 4) - 32));
    }
}

/* The 8 scales and 8 minimums, of 6 bits each, in the 12 bytes of Q4_K and Q5_K. */
static void put_sixes(const uint8_t *block, brci_gguf_parts *p) {
    const float d = half_at(block), least = half_at(block + 2);
    const uint8_t *b = block + 4;
    for (uint32_t g = 0; g < 8; g++) {
        const int scale = g < 4 ? b[g] & 63 : (b[g + 4] & 15) | b[g - 4] >> 6 << 4;
        const int minimum = g < 4 ? b[g + 4] & 63 : b[g + 4] >> 4 | b[g] >> 6 << 4;
        put(p->scales, g, d * (float)scale);
        put(p->zeros, g, -(least * (float)minimum));
    }
}

/* Nibbles of 128 bytes: of each 32 bytes the low ones are 32 elements, the high ones the next 32. */
static void spread_fours(const uint8_t *bytes, uint8_t *codes) {
    for (uint32_t i = 0; i < 256; i++) codes[i] = bytes[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15;
}

/* d, dmin, scales[12], qs[128]: value = (d*sc)*q - dmin*mn */
static void q4_k(const uint8_t *block, brci_gguf_parts *p) {
    put_sixes(block, p);
    spread_fours(block + 16, p->codes);
}

/* d, dmin, scales[12], qh[32] (bit g of byte l: element l of group g), qs[128] */
static void q5_k(const uint8_t *block, brci_gguf_parts *p) {
    put_sixes(block, p);
    spread_fours(block + 48, p->codes);
    for (uint32_t i = 0; i < 256; i++) p->codes[i] |= (uint8_t)((block[16 + i % 32] >> (i / 32) & 1) << 4);
}

/* ql[128], qh[64], scales[16] (int8), d: value = (d*sc)*(q - 32). Of each half of 128 elements the quarters 0 and 1 are
 * the low nibbles of 64 bytes, 2 and 3 the high ones. */
static void q6_k(const uint8_t *block, brci_gguf_parts *p) {
    const float d = half_at(block + 208);
    for (uint32_t i = 0; i < 256; i++) {
        const uint32_t half = i / 128, quarter = i % 128 / 32, lane = i % 32;
        const int low = block[64 * half + quarter % 2 * 32 + lane] >> (quarter / 2 * 4) & 15;
        const int high = block[128 + 32 * half + lane] >> (2 * quarter) & 3;
        p->codes[i] = (uint8_t)((low | high << 4) ^ 32);
    }
    for (uint32_t g = 0; g < 16; g++) put(p->scales, g, d * (float)(int8_t)block[192 + g]);
}

/* d, scales_h (2 bits each), scales_l[4] (4 bits each), qs[128]: value = (d*(sc - 32))*T[q], halves of 16 in each group
 */
static void iq4_xs(const uint8_t *block, brci_gguf_parts *p) {
    const float d = half_at(block);
    const unsigned high = block[2] | (unsigned)block[3] << 8;
    for (uint32_t g = 0; g < 8; g++) {
        const int scale = (block[4 + g / 2] >> (g % 2 * 4) & 15) | (int)(high >> (2 * g) & 3) << 4;
        put(p->scales, g, d * (float)(scale - 32));
        for (uint32_t j = 0; j < 32; j++) p->codes[32 * g + j] = block[8 + 16 * g + j % 16] >> (j / 16 * 4) & 15;
    }
}

/* Digit n of base 3: a byte holds its five as a fraction of 256. */
static uint8_t trit(uint8_t byte, unsigned n) {
    static const uint8_t power[] = {1, 3, 9, 27, 81};
    return (uint8_t)((uint8_t)(byte * power[n]) * 3 >> 8);
}

/* qs[48] (five trits a byte: 32 bytes are 5 x 32 elements, 16 are 5 x 16), qh[4] (four: 4 x 4), d */
static void tq1_0(const uint8_t *block, brci_gguf_parts *p) {
    for (uint32_t i = 0; i < 160; i++) p->codes[i] = trit(block[i % 32], i / 32);
    for (uint32_t i = 0; i < 80; i++) p->codes[160 + i] = trit(block[32 + i % 16], i / 16);
    for (uint32_t i = 0; i < 16; i++) p->codes[240 + i] = trit(block[48 + i % 4], i / 4);
    memcpy(p->scales, block + 52, 2);
}

/* qs[64], d */
static void tq2_0(const uint8_t *block, brci_gguf_parts *p) {
    spread_twos(block, p->codes);
    memcpy(p->scales, block + 64, 2);
}

/* d, bits[16]: value = d or -d */
static void q1_0(const uint8_t *block, brci_gguf_parts *p) {
    for (uint32_t i = 0; i < 128; i++) p->codes[i] = block[2 + i / 8] >> (i % 8) & 1 ? 1 : 3; /* 3 = -1 of 2 bits */
    memcpy(p->scales, block, 2);
}

/* d, qs[16], four neighbours a byte */
static void q2_0(const uint8_t *block, brci_gguf_parts *p) {
    for (uint32_t i = 0; i < 64; i++) p->codes[i] = block[2 + i / 4] >> (i % 4 * 2) & 3;
    memcpy(p->scales, block, 2);
}

void brci_gguf_unpack(const brci_gguf_block *b, const uint8_t *block, brci_gguf_parts *parts) {
    if (b->one) memset(parts->zeros, 1, groups(b));
    if (b->unpack != NULL) b->unpack(block, parts);
    else unpack_columns(b, block, parts);
}

/* ---------------------------------------------------------------------------------------------------- the table */

/* Sizes are the container's. */
enum {
#define GGUF_TYPE(number, word, format, numbers, bytes) NUMBERS_##word = numbers, BYTES_##word = bytes,
#include "container/gguf_types.def"
#undef GGUF_TYPE
};

#define ZERO_REAL BRC_F32, 0
#define ZERO_ONE BRC_UINT8, 1
#define ZERO_NONE BRC_NONE, 0

static const brci_gguf_block blocks[] = {
#define PLAIN_BLOCK(word, element, scale, zero, group, scale_at, zero_at, high_at, codes_at, flip, ftype, recipe)      \
    {#word,    NUMBERS_##word, BYTES_##word, BRC_##element, BRC_##scale, BRC_##zero, 0,      group,                    \
     scale_at, zero_at,        high_at,      codes_at,      flip,        ftype,      recipe, NULL},
#define SUPER_BLOCK(word, element, scale, zero, group, unpack)                                                         \
    {#word, NUMBERS_##word, BYTES_##word, BRC_##element, BRC_##scale, ZERO_##zero, group, 0, 0, 0, 0, 0,               \
     0,     NULL,           unpack},
#include "dialect/gguf_blocks.def"
};

const brci_gguf_block *brci_gguf_block_at(size_t i) { return i < sizeof blocks / sizeof *blocks ? &blocks[i] : NULL; }

const brci_gguf_block *brci_gguf_block_of(const char *word) {
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (strcmp(blocks[i].word, word) == 0) return &blocks[i];
    return NULL;
}
