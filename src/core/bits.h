/* SPDX-License-Identifier: Apache-2.0
 * Floats as bits. No libm: what is needed of it is a few exact operations. */
#ifndef BRCI_BITS_H
#define BRCI_BITS_H

#include <float.h>
#include <stdint.h>
#include <string.h>

_Static_assert(FLT_EVAL_METHOD == 0, "float arithmetic must round to float at every step");
_Static_assert(sizeof(float) == 4 && sizeof(double) == 8, "IEEE 754 binary32 and binary64");

#define BRCI_F32_INFINITY 0x7F800000u /* magnitude bits above this are NaN */

static inline uint32_t brci_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float brci_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t brci_magnitude(float x) { return brci_bits(x) & 0x7FFFFFFFu; }
static inline int brci_is_nan(float x) { return brci_magnitude(x) > BRCI_F32_INFINITY; }
static inline int brci_is_infinite(float x) { return brci_magnitude(x) == BRCI_F32_INFINITY; }
static inline float brci_absolute(float x) { return brci_float(brci_magnitude(x)); }

/* 2^exponent for -1022 <= exponent <= 1023. */
static inline double brci_power(int exponent) {
    uint64_t bits = (uint64_t)(exponent + 1023) << 52;
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Nearest integer, ties to even; the classic addition of 1.5 * 2^23 works below 2^22. Larger floats: 2^23 and up are
 * integers already, between them one step of the same kind is exact. */
static inline float brci_round_even(float x) {
    if (!(brci_absolute(x) < 0x1p22f))
        return brci_absolute(x) < 0x1p23f ? (x < 0 ? (x - 0x1p23f) + 0x1p23f : (x + 0x1p23f) - 0x1p23f) : x;
    return (x + 0x1.8p23f) - 0x1.8p23f;
}

static inline int brci_is_little_endian(void) {
    const uint16_t one = 1;
    uint8_t first;
    memcpy(&first, &one, 1);
    return first;
}

#endif
