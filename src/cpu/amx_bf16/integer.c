/* SPDX-License-Identifier: Apache-2.0
 * Both sides of a product of integers in BF16, where a weight's scales are multiplied into its numbers: 4 bits of the
 * numbers (E2M1 counted in halves) and 4 of an E4M3 are 8 bits of significand, which BF16 has. The other side's bytes
 * are exact too. */
#define ISA amx_bf16
#include "cpu/vector.inc"

#include "cpu/bf16.h"
#include "cpu/stored.inc"

#define BLOCK 16 /* of k that share a scale */
#define FAR 16384

/* 4 of k of 16 columns, in the lower four bits of 16-bit words after shifts: pairs (0, 2) and (1, 3). */
INLINE void halve_four(vu codes, vf factor, __m512 values, __m512i uppers, uint16_t *out) {
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        const __m512i at = (__m512i)(codes >> (8 * i));
        const vf low = (vf)_mm512_permutexvar_ps(at, values) * factor,
                 high = (vf)_mm512_maskz_permutexvar_epi16(0xAAAAAAAAu, at, uppers) * factor;
        const vu pair = (vu)low >> 16 | (vu)high; /* exact: their lower halves are zeros */
        memcpy(out + i * 2 * BRCI_COLUMNS, &pair, sizeof pair);
    }
}

void KERNEL_NAME(integer_halve)(const brci_integer_format *format, const uint8_t *panel, const uint8_t *scales,
                                int64_t depth, uint16_t *out) {
    float numbers[16];
    for (int i = 0; i < 16; i++) numbers[i] = format->values[i];
    const __m512 values = _mm512_loadu_ps(numbers);
    const __m512i uppers =
        _mm512_broadcast_i64x4(_mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(values), 16)));
    const vf unit = all(brci_stored_unit(BRC_E4M3));
    uint16_t *right = out + depth * BRCI_COLUMNS;
    for (int64_t k = 0; k < depth; k += BLOCK, scales += BRCI_INTEGER_COLUMNS) {
        const vf a = stored_in_units(BRC_E4M3, scales, 0) * unit,
                 b = stored_in_units(BRC_E4M3, scales, BRCI_COLUMNS) * unit;
#pragma GCC unroll 4
        for (int i = 0; i < BLOCK; i += 4, panel += 64, out += 4 * BRCI_COLUMNS, right += 4 * BRCI_COLUMNS) {
            const vu codes = load_bits(panel);
            __builtin_prefetch(panel + FAR, 0, 2);
            halve_four(codes, a, values, uppers, out);
            halve_four(codes >> 4, b, values, uppers, right);
        }
    }
}

void KERNEL_NAME(integer_spread)(const int8_t *numbers, uint16_t *out) {
    const __m256i twos = _mm256_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15, 0, 1, 4, 5, 2, 3, 6, 7,
                                          8, 9, 12, 13, 10, 11, 14, 15);
    for (int i = 0; i < BRCI_INTEGER_DEPTH; i += LANES) {
        const __m512i wide = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(numbers + i)));
        const __m512i upper = _mm512_srli_epi32(_mm512_castps_si512(_mm512_cvtepi32_ps(wide)), 16);
        const __m256i pairs = _mm256_shuffle_epi8(_mm512_cvtepi32_epi16(upper), twos);
        memcpy(out + i / 32 * BRCI_BF16_PART + i % 32, &pairs, sizeof pairs);
    }
}
