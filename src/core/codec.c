/* SPDX-License-Identifier: Apache-2.0 */
#include "core/codec.h"

#include "core/status.h"

/* A finite nonzero float as significand * 2^exponent. */
typedef struct parts {
    uint64_t significand; /* below 2^24 */
    int exponent;
} parts;

static parts split(uint32_t magnitude) {
    uint32_t exponent = magnitude >> 23, fraction = magnitude & 0x7FFFFFu;
    return exponent == 0 ? (parts){fraction, -149} : (parts){fraction | 0x800000u, (int)exponent - 150};
}

/* significand / 2^shift to the nearest integer, ties to even; a negative shift multiplies. */
static uint64_t shift_round(uint64_t significand, int shift) {
    uint64_t half, rest, whole;
    if (shift <= 0) return significand << -shift;
    if (shift > 62) return 0; /* below a quarter */
    half = (uint64_t)1 << (shift - 1);
    whole = significand >> shift;
    rest = significand & ((half << 1) - 1);
    return whole + (rest > half || (rest == half && (whole & 1)));
}

/* Counting in steps of the result's exponent makes subnormals and the carry into the next exponent come out by
 * themselves. */
static uint64_t encode_float(const brc_format_info *f, uint32_t magnitude) {
    uint64_t code = 0;
    if (magnitude == BRCI_F32_INFINITY) {
        code = UINT64_MAX;
    } else if (magnitude != 0) {
        parts x = split(magnitude);
        int top = 63 - __builtin_clzll(x.significand) + x.exponent;
        int field = top + f->bias > 1 ? top + f->bias : 1;
        int quantum = field - f->bias - f->mantissa_bits;
        code = ((uint64_t)(field - 1) << f->mantissa_bits) + shift_round(x.significand, quantum - x.exponent);
    }
    if (code > f->max_code) code = f->role == BRC_HIGH ? f->max_code + 1 : f->max_code;
    return code;
}

/* Nearest power of two, ties up; what lies below 2^-127 becomes 2^-127 (as PyTorch's float8_e8m0fnu, but saturating).
 */
static uint64_t encode_exponent(uint32_t magnitude) {
    uint32_t exponent = magnitude >> 23, fraction = magnitude & 0x7FFFFFu;
    uint64_t code = exponent + (exponent > 0 ? fraction >= 0x400000u : fraction > 0x400000u);
    return code > 254 ? 254 : code;
}

static uint64_t encode_integer(const brc_format_info *f, uint32_t magnitude, int negative) {
    uint64_t limit = f->max_code, mask = f->bits == 64 ? UINT64_MAX : ((uint64_t)1 << f->bits) - 1, steps;
    if (negative) limit = f->family == BRC_UINT ? 0 : f->specials == BRC_SPECIALS_SYMMETRIC ? limit : limit + 1;
    if (magnitude >= 0x5F800000u) { /* 2^64 and infinity */
        steps = limit;
    } else {
        parts x = split(magnitude);
        int shift = -(x.exponent + f->mantissa_bits);
        steps = shift < -40 ? limit : shift_round(x.significand, shift);
        if (steps > limit) steps = limit;
    }
    return (negative ? 0 - steps : steps) & mask;
}

/* The nearest value; of two equally near ones the lower code. Outside the ends the end: far out all distances are
 * equal. */
static uint64_t encode_codebook(const brc_format_info *f, float x) {
    const float *values = brci_codebook((brc_format)(f - brci_format(0)));
    uint64_t best = 0;
    if (x >= values[f->max_code]) return f->max_code;
    if (x <= values[0]) return 0;
    for (uint64_t code = 1; code <= f->max_code; code++) {
        double distance = (double)x - (double)values[code], nearest = (double)x - (double)values[best];
        if ((distance < 0 ? -distance : distance) < (nearest < 0 ? -nearest : nearest)) best = code;
    }
    return best;
}

static uint64_t zero_code(const brc_format_info *f) {
    if (f->family != BRC_CODEBOOK) return 0;
    return encode_codebook(f, 0.0f);
}

uint64_t brci_encode(const brc_format_info *f, float x) {
    uint32_t magnitude = brci_magnitude(x);
    int negative = (brci_bits(x) >> 31) != 0;
    if (magnitude > BRCI_F32_INFINITY) return f->nan_code == -1 ? zero_code(f) : (uint64_t)f->nan_code;
    switch ((brc_family)f->family) {
    case BRC_FLOAT: {
        uint64_t code = encode_float(f, magnitude);
        if (!negative || (code == 0 && f->specials == BRC_SPECIALS_FNUZ)) return code;
        return code | (uint64_t)1 << (f->bits - 1);
    }
    case BRC_EXPONENT: return encode_exponent(magnitude);
    case BRC_INT:
    case BRC_UINT: return encode_integer(f, magnitude, negative);
    case BRC_CODEBOOK: return encode_codebook(f, x);
    case BRC_OPAQUE: break;
    }
    return 0;
}

static double not_a_number(void) {
    const uint64_t bits = 0x7FF8000000000000u;
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static double decode_float(const brc_format_info *f, uint64_t code) {
    uint64_t magnitude = code & (((uint64_t)1 << (f->bits - 1)) - 1);
    int negative = (code >> (f->bits - 1)) != 0;
    int field = (int)(magnitude >> f->mantissa_bits);
    uint64_t fraction = magnitude & (((uint64_t)1 << f->mantissa_bits) - 1);
    double value;
    if (f->bits == 64) {
        memcpy(&value, &code, sizeof value);
        return value;
    }
    if (f->specials == BRC_SPECIALS_FNUZ && negative && magnitude == 0) return not_a_number();
    if (magnitude > f->max_code) {
        if (f->specials != BRC_SPECIALS_IEEE || magnitude > f->max_code + 1) return not_a_number();
        value = 1e308 * 10;
    } else if (field == 0) {
        value = (double)fraction * brci_power(1 - f->bias - f->mantissa_bits);
    } else {
        value = (double)(fraction | (uint64_t)1 << f->mantissa_bits) * brci_power(field - f->bias - f->mantissa_bits);
    }
    return negative ? -value : value;
}

double brci_decode(const brc_format_info *f, uint64_t code) {
    switch ((brc_family)f->family) {
    case BRC_FLOAT: return decode_float(f, code);
    case BRC_EXPONENT: return code == 0xFF ? not_a_number() : brci_power((int)code - f->bias);
    case BRC_INT: {
        int64_t value = (int64_t)(code << (64 - f->bits)) >> (64 - f->bits); /* sign extension */
        return (double)value * brci_power(-(int)f->mantissa_bits);
    }
    case BRC_UINT: return (double)code;
    case BRC_CODEBOOK: return (double)brci_codebook((brc_format)(f - brci_format(0)))[code];
    case BRC_OPAQUE: break;
    }
    return 0;
}

uint64_t brci_code_at(const uint8_t *row, unsigned bits, int64_t i) {
    if (bits >= 8) { /* little-endian whole bytes */
        unsigned bytes = bits / 8;
        uint64_t code = 0;
        row += i * (int64_t)bytes;
        for (unsigned b = 0; b < bytes; b++) code |= (uint64_t)row[b] << (8 * b);
        return code;
    } else {
        int64_t first = i / 8 * (int64_t)bits + (i % 8 * (int64_t)bits) / 8;
        unsigned offset = (unsigned)(i % 8 * (int64_t)bits) % 8;
        unsigned window = row[first];
        if (offset + bits > 8) window |= (unsigned)row[first + 1] << 8;
        return (window >> offset) & ((1u << bits) - 1);
    }
}

void brci_code_put(uint8_t *row, unsigned bits, int64_t i, uint64_t code) {
    if (bits >= 8) {
        unsigned bytes = bits / 8;
        row += i * (int64_t)bytes;
        for (unsigned b = 0; b < bytes; b++) row[b] = (uint8_t)(code >> (8 * b));
    } else {
        int64_t first = i / 8 * (int64_t)bits + (i % 8 * (int64_t)bits) / 8;
        unsigned offset = (unsigned)(i % 8 * (int64_t)bits) % 8;
        row[first] = (uint8_t)(row[first] | (unsigned)(code << offset));
        if (offset + bits > 8) row[first + 1] = (uint8_t)(row[first + 1] | (unsigned)code >> (8 - offset));
    }
}
