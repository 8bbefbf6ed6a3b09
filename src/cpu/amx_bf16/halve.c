/* SPDX-License-Identifier: Apache-2.0
 * Both sides of a product in BF16. */
#define ISA amx_bf16
#include "cpu/halves.inc"

#include "cpu/bf16.h"

#define AHEAD 8192 /* bytes, as in stream.inc */

INLINE void halve(const brci_panel *p, int64_t depth, float fold, uint16_t *out, float *scales,
                  const brci_narrow_kind kind) {
    const reader r = reader_of(p->narrow);
    const int64_t block = p->narrow->block == 0 ? depth : p->narrow->block, end = (depth + 31) / 32 * 32;
    if (fold == 0) {
        for (int64_t k = 0, at = 0; k < depth; k += block, at++)
            save(scales + at * BRCI_COLUMNS, scale_at(p->narrow, p->scales, at, 0));
        halve_units(p, &r, 0, depth, 0, out, kind, AHEAD);
    } else {
        halve_units(p, &r, 0, depth, fold, out, kind, AHEAD);
    }
    memset(out + depth * BRCI_COLUMNS, 0, (size_t)((end - depth) * BRCI_COLUMNS) * sizeof *out);
}

void KERNEL_NAME(halve)(const brci_panel *panel, int64_t depth, float fold, uint16_t *out, float *scales) {
    switch (panel->narrow->kind) {
    case BRCI_NARROW_4: halve(panel, depth, fold, out, scales, BRCI_NARROW_4); break;
    case BRCI_NARROW_FINE: break; /* not exact */
    case BRCI_NARROW_FLOAT: halve(panel, depth, fold, out, scales, BRCI_NARROW_FLOAT); break;
    case BRCI_NARROW_BYTE: halve(panel, depth, fold, out, scales, BRCI_NARROW_BYTE); break;
    }
}

/* The upper half of a float's bits, and what they leave, which a float holds. */
int KERNEL_NAME(split)(const float *x, int64_t n, float least, int apart, int planes, int64_t plane, uint16_t *out) {
    const uint32_t most_tiny = brci_bits(least);
    const __m256i fours = _mm256_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15, 0, 1, 8, 9, 2, 3, 10,
                                           11, 4, 5, 12, 13, 6, 7, 14, 15);
    vu wrong = {0};
    for (int64_t i = 0; i < n; i += LANES) {
        vf rest = load(x + i);
        wrong |= (vu)((magnitude(rest) >= BRCI_MOST_BITS) | ((magnitude(rest) < most_tiny) & (magnitude(rest) > 0)));
        for (int j = 0; j < planes; j++) {
            const vu upper = (vu)rest >> 16;
            __m256i half = _mm512_cvtepi32_epi16((__m512i)upper);
            if (apart == 4) half = _mm256_shuffle_epi8(half, fours);
            memcpy(out + j * plane + i / 32 * BRCI_BF16_PART + i % 32, &half, sizeof half);
            rest -= (vf)(upper << 16);
        }
        wrong |= magnitude(rest); /* of infinity NaN */
    }
    uint32_t any = 0;
    for (int j = 0; j < LANES; j++) any |= wrong[j];
    return any == 0;
}
