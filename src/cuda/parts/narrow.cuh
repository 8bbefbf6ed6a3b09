/* SPDX-License-Identifier: Apache-2.0
 *
 * Packed narrow weights: from codes in the order of narrow_pack.cu to operands of the tensor cores.
 *
 * The unit is a chunk: 16 rows by 128 of K, first the codes, then the scales. Codes lie as a lane needs them: each of eight
 * steps of 16 K is one word a lane (two for eight-bit codes) with its eight elements, pairs 0..3 of mma.cuh; four words
 * make a lane's 16-byte load. Within a word the bits of a code lie where few instructions put them into place:
 *   E2M1 for BF16  a pair wants sign, exponent and fraction at bits 15 and 8..6: value * 2^-126, the placed 0.5 subnormal. Pair 0 is
 *                  in place, pairs 1 and 2 are 3 and 6 lower; pair 3 has the four bits left over, 14 (fraction), 13 (sign), 11, 10,
 *                  which after a shift by 8 one multiplication by 1 + 2^5 + 2^10 copies to where they belong, without carries
 *   E2M1 for F16   bits 15 and 11..9: value * 2^-14. Pair 1 is 3 lower, pair 2 at 0 (sign) and 3..1, pair 3 at 4 (sign), 5, 14, 13
 *   INT4           code + 8 at bits 4 * pair: the fraction of 128 (BF16) or of 1024 and 64 (F16), from which the bias is taken
 *   E4M3 for BF16  bits 15 and 10..4: value * 2^-120; the even pairs in the high bytes, the odd ones in the low
 *   E4M3 for F16   neighbouring bytes, for the conversion in hardware
 * Scales of E2M1 and MX blocks are folded into the operands by the multiplication that also undoes the power of two, which is exact;
 * the others multiply F32 sums of their group. Every row has a factor in F32 besides (arguments.h). */
#pragma once
#include "../arguments.h"
#include "narrow_parts.cuh"

namespace brc {

/* One step of K of a lane: words to four pairs, not yet scaled. */
template <int CODES, bool BF16> __device__ __forceinline__ void expand(const uint32_t *x, uint32_t (&a)[4])
{
    if constexpr (CODES == BRCI_CODES_E2M1 && BF16) {
        constexpr uint32_t MASK = 0x81C081C0u;
        a[0] = x[0] & MASK;
        a[1] = (x[0] << 3) & MASK;
        a[2] = (x[0] << 6) & MASK;
        a[3] = (x[0] >> 8 & 0x006C006Cu) * 1057u & MASK;
    } else if constexpr (CODES == BRCI_CODES_E2M1) {
        constexpr uint32_t MASK = 0x8E008E00u;
        a[0] = x[0] & MASK;
        a[1] = (x[0] << 3) & MASK;
        a[2] = (x[0] & 0x000F000Fu) * 0x8100u & MASK;
        a[3] = (x[0] >> 3 & 0x0C000C00u) | ((x[0] & 0x00300030u) * 0x810u & 0x82008200u);
    } else if constexpr (CODES == BRCI_CODES_INT4 && BF16) {
#pragma unroll
        for (int i = 0; i < 4; i++) a[i] = less<true, 0x4308>(masked_or(x[0] >> 4 * i, 0x000F000Fu, 0x43004300u));          /* 136 */
    } else if constexpr (CODES == BRCI_CODES_INT4) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint32_t y = x[0] >> 8 * (i / 2), u = masked_or(y, i % 2 ? 0x00F000F0u : 0x000F000Fu, 0x64006400u);
            a[i] = i % 2 ? times_plus<0x2C00, 0xD480>(u) : less<false, 0x6408>(u);           /* 1/16, -72; 1032 */
        }
    } else if constexpr (BF16) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            a[2 * i] = masked_or(x[i], 0x80008000u, x[i] >> 4 & 0x07F007F0u);
            a[2 * i + 1] = masked_or(x[i] << 8, 0x80008000u, x[i] << 4 & 0x07F007F0u);
        }
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++) a[i] = f16_of_e4m3(static_cast<uint16_t>(x[i / 2] >> 16 * (i % 2)));
    }
}

/* Plain scales of group i of a chunk, for rows g and g + 8. */
__device__ __forceinline__ float2 plain_factors(const brci_narrow_args &args, uint32_t at, int g, int i)
{
    if (args.scale_type == BRCI_OUT_F32) return load_shared2(at + i * 64 + g * args.scale_stride);
    const uint32_t v = load_word(at + i * 32 + g * 4);
    const float2 f = floats_of_f16(v);
    const bool half = args.scale_type == BRCI_OUT_F16;
    return make_float2(half ? f.x : __uint_as_float(v << 16), half ? f.y : __uint_as_float(v & 0xFFFF0000u));
}

/* A kind of weights under a kind of activations: SCALES is how the scales of a chunk are stored and applied, one for each GROUP of K.
 *   MX    a byte, the block's exponent with the row's largest at 254
 *   NV    a byte, five bits of exponent and three of fraction: scale * 2^7 in F16
 *   PLAIN F32, F16 or BF16 as they were */
template <int CODES_, int SCALES_, int GROUP_, bool BF16_> struct NarrowWeights {
    static constexpr int CODES = CODES_, SCALES = SCALES_, GROUP = GROUP_;
    static constexpr bool BF16 = BF16_;
    static constexpr int TYPE = BF16 ? RS_BF16 : RS_F16, TOKEN = 2, STAGE_STEPS = 8;      /* of wgmma_rs.cuh; bytes; steps of a chunk */
    static constexpr int WORDS = CODES == BRCI_CODES_E4M3 ? 2 : 1;          /* of a lane and step */
    static constexpr int CODE_BYTES = 1024 * WORDS;
    /* F16 reaches only 2^-24: MX scales multiply sums there. */
    static constexpr bool FOLDED = SCALES == BRCI_SCALES_NV || (SCALES == BRCI_SCALES_MX && BF16);
    static constexpr int GROUPS = 128 / GROUP, STEPS = GROUP / 16;          /* of a chunk; of a group */
    /* One plain scale a chunk, m * 2^e: the power can go into the operands, exactly, which leaves sums in units of m, all of one size. */
    static constexpr bool SPLITS = SCALES == BRCI_SCALES_PLAIN && BF16 && GROUP == 128;

    /* Folded: a lane's scales of one chunk, for rows g and g + 8. */
    struct Scales {
        uint32_t raw[2][SCALES == BRCI_SCALES_NV ? 2 : 1];

        __device__ __forceinline__ void load(uint32_t chunk, int g, uint32_t = 0)
        {
            if constexpr (FOLDED && SCALES == BRCI_SCALES_NV) {
                const uint4 v = load_words4(chunk + CODE_BYTES + g * 16);
                raw[0][0] = v.x; raw[0][1] = v.y; raw[1][0] = v.z; raw[1][1] = v.w;
            } else if constexpr (FOLDED) {
                const uint2 v = load_words2(chunk + CODE_BYTES + g * 8);
                raw[0][0] = v.x; raw[1][0] = v.y;
            }
        }
    };

    /* Not folded: what the sums of group i of a chunk are multiplied by, in rows g and g + 8. */
    static __device__ __forceinline__ float2 factors(const brci_narrow_args &args, uint32_t chunk, int g, int i)
    {
        const uint32_t at = chunk + CODE_BYTES;
        if constexpr (SCALES == BRCI_SCALES_MX) {              /* elements are 2^-14 (E2M1) or 1 (E4M3) times their value */
            constexpr int SHIFT = CODES == BRCI_CODES_E2M1 ? 112 : 120;
            const int low = load_byte(at + g * 8 + i), high = load_byte(at + g * 8 + 4 + i);
            return make_float2(__uint_as_float(static_cast<uint32_t>(max(low - SHIFT, 0)) << 23), __uint_as_float(static_cast<uint32_t>(max(high - SHIFT, 0)) << 23));
        }
        return plain_factors(args, at, g, i);
    }

    /* m of the scale s of a row, and 2^e for each of a pair's numbers. A scale of zero leaves m as it was before. What 2^e cannot
     * hold, with the codes it multiplies, stays in m, which is then 2^-32 to 2^121: of one row, scales further apart than about 2^120 make
     * infinite what another order of sums would not. */
    static __device__ __forceinline__ float split(float s, float before, uint32_t &power)
    {
        constexpr uint32_t LIFT = CODES == BRCI_CODES_E4M3 ? 120 : 0, LEAST = CODES == BRCI_CODES_E4M3 ? 10 : 1, MOST = CODES == BRCI_CODES_E4M3 ? 134 : 247;
        const uint32_t e = min(max(__float_as_uint(s) >> 23 & 255u, LEAST), MOST);
        power = s == 0.0f ? 0 : (e + LIFT) * 0x00800080u;
        return s == 0.0f ? before : s * __uint_as_float((254 - e) << 23);
    }

    /* Step i of a chunk with 2^e of rows g and g + 8 folded in. */
    static __device__ __forceinline__ void operand_split(const uint32_t *x, const uint32_t (&power)[2], uint32_t (&a)[4])
    {
        if constexpr (CODES == BRCI_CODES_INT4) {
#pragma unroll
            for (int i = 0; i < 4; i++)                           /* 128 + code + 8, less 136 */
                a[i] = bf16_times_plus(masked_or(x[0] >> 4 * i, 0x000F000Fu, 0x43004300u), power[i % 2], times<true>(power[i % 2], 0xC308C308u));
        } else {
            expand<CODES, BF16>(x, a);
#pragma unroll
            for (int i = 0; i < 4; i++) a[i] = times<true>(a[i], power[i % 2]);
        }
    }

    /* Step i of a chunk, ready for the tensor cores. */
    static __device__ __forceinline__ void operand(const brci_narrow_args &, const uint32_t *x, const Scales &s, int i, uint32_t (&a)[4])
    {
        expand<CODES, BF16>(x, a);
        if constexpr (FOLDED) {
            const int j = i / STEPS, word = SCALES == BRCI_SCALES_NV ? j / 4 : 0, byte = j % 4;
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const uint32_t w = s.raw[half][word];
                uint32_t two;                                    /* bytes 0 and 2, or 1 and 3 */
                if constexpr (SCALES == BRCI_SCALES_NV && BF16) two = masked_or(byte & 1 ? w >> 4 : w << 4, 0x0FF00FF0u, 0x70007000u);
                else two = (byte & 1 ? w >> 1 : w << 7) & 0x7F807F80u;
                if (byte < 2) {
                    a[half] = times_one<BF16, false>(a[half], two);
                    a[half + 2] = times_one<BF16, false>(a[half + 2], two);
                } else {
                    a[half] = times_one<BF16, true>(a[half], two);
                    a[half + 2] = times_one<BF16, true>(a[half + 2], two);
                }
            }
        } else if constexpr (CODES == BRCI_CODES_E4M3 && BF16) {
            constexpr uint32_t UP = 0x7B807B80u;                 /* 2^120 */
#pragma unroll
            for (int p = 0; p < 4; p++) a[p] = times<true>(a[p], UP);
        }
    }
};

/* Four-bit weights under E4M3 activations, 32 of K a step, two words of a lane: rows g and g + 8, low half of a word four neighbours of
 * K, high half those 16 further. A nibble's low three bits choose from a table of eight bytes; its high bit is a sign, of the
 * high half's element in even nibbles, of the low half's in odd ones, so that signs too need one shift at most.
 *   E2M1, MX  the table is that of the block's exponent, 2^14 and less below the largest of the chunk's row: exact, and what lies
 *             further below is zero. A row's scales in a chunk are four bytes: that largest exponent, nothing, and four
 *             numbers of tables
 *   INT4      v or, under a sign, -1 - v, from a table for each sign */
template <int CODES_, int SCALES_> struct NarrowWeights8 {
    static constexpr int CODES = CODES_, SCALES = SCALES_;
    static constexpr int TYPE = RS_E4M3, TOKEN = 1, STAGE_STEPS = 4, STEPS = 4, WORDS = 2, CODE_BYTES = 1024;
    static constexpr bool FOLDED = false, SPLITS = false;

    struct Scales {
        uint32_t raw[2], tables;

        __device__ __forceinline__ void load(uint32_t chunk, int g, uint32_t tables_at)
        {
            if constexpr (SCALES == BRCI_SCALES_MX) {
                const uint2 v = load_words2(chunk + CODE_BYTES + g * 8);
                raw[0] = v.x;
                raw[1] = v.y;
                tables = tables_at;
            }
        }
    };

    static __device__ __forceinline__ float2 factors(const brci_narrow_args &args, uint32_t chunk, int g, int)
    {
        if constexpr (SCALES == BRCI_SCALES_MX) {              /* table 14 is 2^6 times the values */
            const int low = load_byte(chunk + CODE_BYTES + g * 8), high = load_byte(chunk + CODE_BYTES + g * 8 + 4);
            return make_float2(__uint_as_float(static_cast<uint32_t>(max(low - 6, 0)) << 23), __uint_as_float(static_cast<uint32_t>(max(high - 6, 0)) << 23));
        } else return plain_factors(args, chunk + CODE_BYTES, g, 0);
    }

    static __device__ __forceinline__ void operand(const brci_narrow_args &g, const uint32_t *x, const Scales &s, int i, uint32_t (&a)[4])
    {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const uint32_t y = x[r] & 0x77777777u, signs[2] = {x[r], x[r] * g.sixteen};
            uint2 t = make_uint2(0x44403800u, 0x4E4C4A48u);                               /* 0 to 7 */
            if constexpr (SCALES == BRCI_SCALES_MX) t = load_words2(s.tables + ((s.raw[r] >> (13 + 4 * i)) & 0x78u));
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const uint32_t choice = y >> 16 * h;
                uint32_t v = chosen(t.x, t.y, choice);
                if constexpr (CODES == BRCI_CODES_INT4) {
                    const uint32_t below = chosen(0xC8C4C0B8u, 0xD0CECCCAu, choice);          /* -1 to -8 */
                    const uint32_t mask = chosen(signs[h], signs[h], 0xBA98u);             /* a byte of ones under a sign */
                    v = (below & mask) | (v & ~mask);
                } else v = masked_or(signs[h], 0x80808080u, v);
                a[r + 2 * h] = v;
            }
        }
    }
};

/* Tables of NarrowWeights8, sixteen of eight bytes: 2^-8 to 2^6 times the values of E2M1, and zeros. By one warp. */
__device__ __forceinline__ void fill_tables(uint32_t at, int lane)
{
    uint32_t word = 0;
    if (lane < 30)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int c = lane % 2 * 4 + i, exponent = c / 2, e = max(exponent, 1) + lane / 2 - 9;       /* value = m * 2^(e - 1), m = 0, 1/2, 1, 3/2 */
            const float v = (exponent ? 1.0f + c % 2 * 0.5f : c % 2 * 0.5f) * __uint_as_float(static_cast<uint32_t>(e + 127) << 23);
            word |= e4m3_of_float(v) << 8 * i;
        }
    store_word(at + lane * 4, word);
}

}  // namespace brc
