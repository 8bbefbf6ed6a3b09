/* SPDX-License-Identifier: Apache-2.0
 * The table of formats, and what follows from each row. */
#include "core/format.h"

#include "core/bits.h"

#include <strings.h>

/* What follows from a row, as constant expressions, so that the table needs no initialisation at run time. */
#define MASK(bits) ((bits) >= 64 ? UINT64_MAX : (((uint64_t)1 << ((bits)&63)) - 1))
#define POWER(e) ((e) >= 0 ? POWER_UP((unsigned)((e) >= 0 ? (e) : 0)) : 1.0 / POWER_UP((unsigned)((e) < 0 ? -(e) : 0)))
#define POWER_UP(e)                                                                                                    \
    (BIT(e, 0) * BIT(e, 1) * BIT(e, 2) * BIT(e, 3) * BIT(e, 4) * BIT(e, 5) * BIT(e, 6) * BIT(e, 7) * BIT(e, 8) *       \
     BIT(e, 9))
#define BIT(e, i) (((e) >> (i)) & 1 ? POWER_##i : 1.0)
#define POWER_0 0x1p1
#define POWER_1 0x1p2
#define POWER_2 0x1p4
#define POWER_3 0x1p8
#define POWER_4 0x1p16
#define POWER_5 0x1p32
#define POWER_6 0x1p64
#define POWER_7 0x1p128
#define POWER_8 0x1p256
#define POWER_9 0x1p512

/* Largest finite code of a float: IEEE stops below the top exponent, ALL_ONES one code short, the others nowhere. */
#define FLOAT_MAX_CODE(exp, man, specials)                                                                             \
    (BRC_SPECIALS_##specials == BRC_SPECIALS_IEEE       ? ((MASK(exp)) << (man)) - 1                                   \
     : BRC_SPECIALS_##specials == BRC_SPECIALS_ALL_ONES ? MASK((exp) + (man)) - 1                                      \
                                                        : MASK((exp) + (man)))
#define FLOAT_VALUE(code, man, bias)                                                                                   \
    ((double)(((code)&MASK(man)) | ((uint64_t)1 << (man))) * POWER((int)((code) >> (man)) - (bias) - (man)))

#define MAX_CODE_FLOAT(bits, exp, man, specials) FLOAT_MAX_CODE(exp, man, specials)
#define MAX_CODE_EXPONENT(bits, exp, man, specials) 254
#define MAX_CODE_INT(bits, exp, man, specials) MASK((bits)-1)
#define MAX_CODE_UINT(bits, exp, man, specials) MASK(bits)
#define MAX_CODE_CODEBOOK(bits, exp, man, specials) MASK(bits)
#define MAX_CODE_OPAQUE(bits, exp, man, specials) 0

#define MAX_FLOAT(id, bits, exp, man, bias, specials) FLOAT_VALUE(FLOAT_MAX_CODE(exp, man, specials), man, bias)
#define MAX_EXPONENT(id, bits, exp, man, bias, specials) 0x1p127
#define MAX_INT(id, bits, exp, man, bias, specials) ((double)MASK((bits)-1) * POWER(-(man)))
#define MAX_UINT(id, bits, exp, man, bias, specials) ((double)MASK(bits))
#define MAX_CODEBOOK(id, bits, exp, man, bias, specials) (BRC_##id == BRC_NF4 ? 1.0 : 113.0)
#define MAX_OPAQUE(id, bits, exp, man, bias, specials) 0.0

#define MIN_FLOAT(id, bits, exp, man, bias, specials) (-MAX_FLOAT(id, bits, exp, man, bias, specials))
#define MIN_EXPONENT(id, bits, exp, man, bias, specials) 0x1p-127
#define MIN_INT(id, bits, exp, man, bias, specials)                                                                    \
    (-((double)MASK((bits)-1) + (BRC_SPECIALS_##specials == BRC_SPECIALS_SYMMETRIC ? 0.0 : 1.0)) * POWER(-(man)))
#define MIN_UINT(id, bits, exp, man, bias, specials) 0.0
#define MIN_CODEBOOK(id, bits, exp, man, bias, specials) (BRC_##id == BRC_NF4 ? -1.0 : -127.0)
#define MIN_OPAQUE(id, bits, exp, man, bias, specials) 0.0

/* The smallest subnormal of F64 is below what POWER builds from normal factors: two steps. */
#define NORMAL_FLOAT(man, bias) POWER(1 - (bias))
#define NORMAL_EXPONENT(man, bias) 0x1p-127
#define NORMAL_INT(man, bias) 0.0
#define NORMAL_UINT(man, bias) 0.0
#define NORMAL_CODEBOOK(man, bias) 0.0
#define NORMAL_OPAQUE(man, bias) 0.0
#define SMALLEST_FLOAT(id, man, bias) (POWER(1 - (bias)) * POWER(-(man)))
#define SMALLEST_EXPONENT(id, man, bias) 0x1p-127
#define SMALLEST_INT(id, man, bias) POWER(-(man))
#define SMALLEST_UINT(id, man, bias) 1.0
#define SMALLEST_CODEBOOK(id, man, bias) (BRC_##id == BRC_NF4 ? 0.07958029955625534 : 1.0)
#define SMALLEST_OPAQUE(id, man, bias) 0.0

static const brc_format_info rows[BRC_FORMAT_COUNT] = {
#define BRC_FORMAT_ROW(id, name_, family_, role_, bits_, exp, man, bias_, specials_, nan)                              \
    [BRC_##id] = {                                                                                                     \
        .size = sizeof(brc_format_info),                                                                               \
        .name = name_,                                                                                                 \
        .family = BRC_##family_,                                                                                       \
        .role = BRC_##role_,                                                                                           \
        .bits = bits_,                                                                                                 \
        .exponent_bits = exp,                                                                                          \
        .mantissa_bits = man,                                                                                          \
        .specials = BRC_SPECIALS_##specials_,                                                                          \
        .bias = bias_,                                                                                                 \
        .nan_code = nan,                                                                                               \
        .max_code = MAX_CODE_##family_(bits_, exp, man, specials_),                                                    \
        .max = MAX_##family_(id, bits_, exp, man, bias_, specials_),                                                   \
        .min = MIN_##family_(id, bits_, exp, man, bias_, specials_),                                                   \
        .smallest_normal = NORMAL_##family_(man, bias_),                                                               \
        .smallest = SMALLEST_##family_(id, man, bias_),                                                                \
    },
#include "breccia/formats.def"
#undef BRC_FORMAT_ROW
};

const brc_format_info *brci_format(unsigned format) { return &rows[format]; }

const brc_format_info *brc_format_get(brc_format format) {
    return (unsigned)format < BRC_FORMAT_COUNT ? &rows[format] : NULL;
}

brc_format brc_format_find(const char *name) {
    for (unsigned i = 1; name != NULL && i < BRC_FORMAT_COUNT; i++)
        if (strcasecmp(rows[i].name, name) == 0) return (brc_format)i;
    return BRC_NONE;
}

int64_t brc_row_bytes(brc_format format, int64_t n) {
    unsigned bits = (unsigned)format < BRC_FORMAT_COUNT ? rows[format].bits : 0;
    int64_t whole;
    if (n < 0 || bits == 0) return n < 0 ? -1 : 0;
    if (__builtin_mul_overflow(n / 8, (int64_t)bits, &whole) || whole > INT64_MAX - 64) return -1;
    return whole + (n % 8 * (int64_t)bits + 7) / 8;
}
