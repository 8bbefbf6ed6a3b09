/* SPDX-License-Identifier: Apache-2.0
 * BF16 to 8-bit floats and back by tables of 128 bytes, which lie in two registers (VPERMI2B looks at 7 bits of each
 * byte). Worth their making where many numbers share a factor. */
#define ISA avx512_vbmi
#include "cpu/vector.inc"

#define AHEAD 4096 /* bytes of codes that are asked for in advance, for the second-level cache */

typedef struct bytes128 {
    __m512i low, high;
} bytes128;

INLINE bytes128 load_table(const uint8_t table[128]) {
    return (bytes128){_mm512_loadu_si512(table), _mm512_loadu_si512(table + 64)};
}
INLINE __m512i look_up(bytes128 t, __m512i at) { return _mm512_permutex2var_epi8(t.low, at, t.high); }
/* a where the mask has ones, else b. */
INLINE __m512i merge(__m512i mask, __m512i a, __m512i b) { return _mm512_ternarylogic_epi64(mask, a, b, 0xCA); }

/* The significands are tried on numbers about as large as the scale, whose codes are normal. */
static int tabulate(const brci_encoding *e, float factor, uint32_t amax, brci_code_table *t) {
    const uint32_t exponent = brci_bits(factor) >> 23, probe = e->divide ? exponent : 254 - exponent,
                   step = 1u << e->format.mantissa;
    uint16_t numbers[128];
    uint8_t codes[128];
    if (exponent < 32 || exponent > 222) return 0; /* of scales whose reciprocals are subnormal, or negative */
    for (uint32_t i = 0; i < 128; i++) numbers[i] = (uint16_t)(probe << 7 | i);
    if (!brci_encode_bf16_avx512(e, numbers, 1, 128, &factor, codes)) return 0;
    for (uint32_t i = 0; i < 128; i++) t->offset[i] = (uint8_t)(codes[i] - probe * step);
    if (codes[0] / step > probe || codes[0] < step) return 0;
    t->least = (probe - codes[0] / step + 1) << 23;
    const uint32_t largest = codes[amax >> 16 & 127] + ((amax >> 23) - probe) * step;
    return amax < t->least || largest <= e->format.finite;
}

void KERNEL_NAME(tabulate)(const brci_encoding *e, const float *factors, const uint32_t *amax, int64_t blocks,
                           brci_code_table *tables) {
    for (int64_t i = 0; i < blocks; i++)
        if (!tabulate(e, factors[i], amax[i], &tables[i])) tables[i].least = UINT32_MAX;
}

/* Kept in registers: the compiler would make it again in each round. */
INLINE __m512i constant(__m512i v) {
    __asm__("" : "+v"(v));
    return v;
}

typedef struct constants {
    __m512i even, size, low, exponent, order;
} constants;

static constants constants_of(void) {
    static const uint8_t order[64] = {0,  2,  4,  6,  8,  10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30,
                                      32, 34, 36, 38, 40, 42, 44, 46, 48, 50, 52, 54, 56, 58, 60, 62,
                                      1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                      33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
    return (constants){.even = constant(_mm512_set1_epi16(0xFF)),
                       .size = constant(_mm512_set1_epi16(0x7FFF)),
                       .low = constant(_mm512_set1_epi8(0x7F)),
                       .exponent = constant(_mm512_set1_epi8((char)0xF8)),
                       .order = constant(_mm512_loadu_si512(order))};
}

/* 64 numbers to E4M3; 0 where one is smaller than the table's. Their bytes lie alternately until the end. */
INLINE int encode_64(const constants *c, const uint8_t *x, bytes128 table, __m512i least, int past, uint8_t *out) {
    const __m512i a = _mm512_loadu_si512(x), b = _mm512_loadu_si512(x + 64),
                  smallest = _mm512_min_epu16(_mm512_and_si512(a, c->size), _mm512_and_si512(b, c->size));
    if (_mm512_cmplt_epu16_mask(smallest, least)) return 0;
    const __m512i significand = merge(c->even, a, _mm512_slli_epi16(b, 8)),
                  exponent = merge(c->even, _mm512_srli_epi16(a, 4), _mm512_slli_epi16(b, 4)),
                  sign = merge(c->even, _mm512_srli_epi16(a, 8), b),
                  code = _mm512_add_epi8(look_up(table, significand), _mm512_and_si512(exponent, c->exponent)),
                  codes = _mm512_permutexvar_epi8(c->order, merge(c->low, code, sign));
    if (past) _mm512_stream_si512((void *)out, codes);
    else _mm512_storeu_si512(out, codes);
    return 1;
}

#define ROWS_AHEAD 8 /* which are asked for in advance, for the second-level cache */

/* The larger numbers of a and of 64 numbers, without their signs. */
INLINE __m512i measure_64(const constants *c, __m512i a, const uint8_t *x) {
    const __m512i larger = _mm512_max_epu16(_mm512_and_si512(_mm512_loadu_si512(x), c->size),
                                            _mm512_and_si512(_mm512_loadu_si512(x + 64), c->size));
    return _mm512_max_epu16(a, larger);
}

static uint32_t largest_of(__m512i v) {
    return _mm512_reduce_max_epu32(
        _mm512_max_epu32(_mm512_slli_epi32(v, 16), _mm512_and_si512(v, _mm512_set1_epi32((int)0xFFFF0000u))));
}

INLINE int encode(const brci_tabled *t, int past, int measured) {
    const constants c = constants_of();
    __m512i largest[BRCI_TABLES];
    for (int64_t i = 0; measured && i < t->blocks; i++) largest[i] = _mm512_setzero_si512();
    for (int64_t row = 0; row < t->rows; row++) {
        const uint8_t *x = t->x + row * t->pitch, *next = measured ? t->next + row * t->pitch : NULL;
        const int64_t ahead = row + ROWS_AHEAD < t->rows ? ROWS_AHEAD * t->pitch : 0;
        uint8_t *out = t->out + row * t->out_pitch;
        for (int64_t i = 0; i < t->blocks; i++) {
            const bytes128 table = load_table(t->tables[i].offset);
            const __m512i least = _mm512_set1_epi16((short)(t->tables[i].least >> 16));
            __m512i larger = measured ? largest[i] : c.size;
            for (int64_t k = 0; k < t->length; k += 64, x += 128, out += 64) {
                if (measured) {
                    __builtin_prefetch(next + ahead, 0, 2);
                    __builtin_prefetch(next + ahead + 64, 0, 2);
                    larger = measure_64(&c, larger, next);
                    next += 128;
                }
                if (!encode_64(&c, x, table, least, past, out) &&
                    !brci_encode_bf16_avx512(t->encoding, x, 1, 64, t->factors + i, out))
                    return 0;
            }
            if (measured) largest[i] = larger;
        }
    }
    for (int64_t i = 0; measured && i < t->blocks; i++) t->amax[i] = largest_of(largest[i]);
    return 1;
}

int KERNEL_NAME(encode_tabled)(const brci_tabled *t) {
    if (t->next != NULL) return t->past ? encode(t, 1, 1) : encode(t, 0, 1);
    return t->past ? encode(t, 1, 0) : encode(t, 0, 0);
}

int KERNEL_NAME(look_up)(const brci_vector_format *f, const brci_value_table *table, const uint8_t *codes, int64_t n,
                         int past, uint8_t *out) {
    const bytes128 high = load_table(table->high), low = load_table(table->low);
    const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), sign = _mm512_set1_epi8((char)0x80),
                  over = _mm512_set1_epi8((char)(0x7F - f->finite));
    const int aligned = past && (uintptr_t)out % 64 == 0;
    for (; n > 0; n -= 64, codes += 64, out += 128) {
        __builtin_prefetch(codes + AHEAD, 0, 2);
        const __mmask64 some = n < 64 ? ((__mmask64)1 << n) - 1 : ~(__mmask64)0;
        const __m512i code = _mm512_permutexvar_epi64(order, _mm512_maskz_loadu_epi8(some, codes));
        if (_mm512_test_epi8_mask(_mm512_add_epi8(_mm512_andnot_si512(sign, code), over), sign)) return 0;
        const __m512i upper = _mm512_ternarylogic_epi64(look_up(high, code), code, sign, 0x78),
                      lower = look_up(low, code), first = _mm512_unpacklo_epi8(lower, upper),
                      second = _mm512_unpackhi_epi8(lower, upper);
        if (n < 64) {
            _mm512_mask_storeu_epi16(out, (__mmask32)some, first);
            _mm512_mask_storeu_epi16(out + 64, (__mmask32)(some >> 32), second);
        } else if (aligned) {
            _mm512_stream_si512((void *)out, first);
            _mm512_stream_si512((void *)(out + 64), second);
        } else {
            _mm512_storeu_si512(out, first);
            _mm512_storeu_si512(out + 64, second);
        }
    }
    return 1;
}
