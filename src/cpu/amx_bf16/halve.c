/* SPDX-License-Identifier: Apache-2.0
 * Both sides of a product in BF16. */
#define ISA amx_bf16
#include "cpu/units.inc"

#include "cpu/bf16.h"

#define AHEAD 2048 /* bytes, as in stream.inc */

INLINE void halve(const brci_panel *p, int64_t depth, float fold, uint16_t *out, float *scales, brci_narrow_kind kind) {
    const int many = brci_narrow_many(kind);
    const brci_narrow *n = p->narrow;
    const reader r = reader_of(n);
    const uint8_t *codes = p->codes;
    const int64_t block = n->block == 0 ? depth : n->block, end = (depth + 31) / 32 * 32;
    int64_t k = 0;
    for (int64_t at = 0; k < depth; at++) {
        const int64_t stop = depth - k < block ? depth : k + block;
        const vf s = scale_at(n, p->scales, at, 0);
        const vf factor = s * fold;
        if (fold == 0) save(scales + at * BRCI_COLUMNS, s);
        for (; k < stop; k += many, codes += BRCI_UNIT) {
            const unit u = unit_at(&r, codes, kind);
            __builtin_prefetch(codes + AHEAD);
#pragma GCC unroll 4
            for (int i = 0; i < many; i += 2, out += 2 * BRCI_COLUMNS) {
                vu pair;
#if BYTE_TABLES
                if (kind == BRCI_NARROW_FLOAT && fold == 0) pair = (vu)u.pair[i / 2];
                else
#endif
                {
                    vf first = element(&r, &u, kind, 0, i), second = element(&r, &u, kind, 0, i + 1);
                    if (fold != 0) {
                        first *= factor;
                        second *= factor;
                    }
                    pair = (vu)first >> 16 | ((vu)second & 0xFFFF0000u);
                }
                memcpy(out, &pair, sizeof pair);
            }
        }
    }
    memset(out, 0, (size_t)((end - k) * BRCI_COLUMNS) * sizeof *out);
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
int KERNEL_NAME(split)(const float *x, int64_t n, float least, int planes, int64_t plane, uint16_t *out) {
    const uint32_t most_tiny = brci_bits(least);
    vu wrong = {0};
    for (int64_t i = 0; i < n; i += LANES) {
        vf rest = load(x + i);
        wrong |= (vu)((magnitude(rest) >= BRCI_MOST_BITS) | ((magnitude(rest) < most_tiny) & (magnitude(rest) > 0)));
        for (int j = 0; j < planes; j++) {
            const vu upper = (vu)rest >> 16;
            const __m256i half = _mm512_cvtepi32_epi16((__m512i)upper);
            memcpy(out + j * plane + i / 32 * BRCI_BF16_PART + i % 32, &half, sizeof half);
            rest -= (vf)(upper << 16);
        }
        wrong |= magnitude(rest); /* of infinity NaN */
    }
    uint32_t any = 0;
    for (int j = 0; j < LANES; j++) any |= wrong[j];
    return any == 0;
}
