/* SPDX-License-Identifier: Apache-2.0
 * Narrow weights in panels: 16 columns of a product beside each other, so that a vector's lanes are columns and the
 * other side's numbers are broadcast. A panel is a row of units of 64 bytes: 4 bits: 8 of k by 16 columns; dword c
 * holds column c, the i-th of k in its bits 4i..4i+3 8 bits: 4 of k by 16 columns; of each 16 bytes (columns 4l..4l+3)
 * byte 2c + (i & 1) + 8 (i >> 1) is the i-th of k of column 4l + c: interleaved with the other half of a 16-bit number
 * they lie as pairs of k and, beside it, one scale for each block of k and column. */
#ifndef BRCI_NARROW_H
#define BRCI_NARROW_H

#include <stdint.h>

/* 2^100 as bits: a magnitude of the other side from which sums of codes, without their scales, might overflow. */
#define BRCI_MOST_BITS 0x71800000u

#define BRCI_COLUMNS 16    /* of a panel */
#define BRCI_UNIT 64       /* bytes */
#define BRCI_STREAM_MOST 8 /* rows of the other side that a kernel takes at once */

/* How codes become numbers. */
typedef enum brci_narrow_kind {
    BRCI_NARROW_4,     /* by `values`, which BF16 holds */
    BRCI_NARROW_FINE,  /* the same, but that it does not */
    BRCI_NARROW_FLOAT, /* 8 bits: sign and magnitude; all codes finite */
    BRCI_NARROW_BYTE,  /* 8 bits: the unsigned byte less `offset` */
} brci_narrow_kind;

/* Codes of a column in a unit. */
static inline int brci_narrow_many(brci_narrow_kind kind) {
    return kind == BRCI_NARROW_4 || kind == BRCI_NARROW_FINE ? 8 : 4;
}

/* Zero points: what they do to an element e with the block's scale m. */
typedef enum brci_narrow_zero {
    BRCI_ZERO_NONE, /* e*m */
    BRCI_ZERO_CODE, /* (e + z)*m */
    BRCI_ZERO_REAL, /* e*m + z */
} brci_narrow_zero;

typedef struct brci_narrow {
    brci_narrow_kind kind;
    brci_narrow_zero zero;
    float values[16];        /* 4: by code */
    float offset;            /* BYTE */
    uint8_t high[128];       /* FLOAT: the upper byte of the number as BF16, by magnitude; */
    uint8_t low[128];        /* FLOAT: and the lower one: exact, 8 bits of significand hold it */
    uint32_t mantissa;       /* FLOAT: bits; */
    uint32_t exponent_shift; /* FLOAT: what moves the exponent to a float's, in units of the mantissa; */
    float quantum;           /* FLOAT: the smallest number */
    uint32_t scale_format; /* F32, or F16, BF16, E8M0 (0 stands for 0), E4M3 (not negative) where kernels read these */
    int64_t block;         /* of k that share a scale, whole units; 0 = all */
} brci_narrow;

/* A panel, or a part of it that begins with a block. */
typedef struct brci_panel {
    const brci_narrow *narrow;
    const uint8_t *codes;
    const uint8_t *scales; /* [blocks][16] of scale_format */
    const float *zeros;    /* [blocks][16], or NULL */
    int64_t left, skip;    /* bytes of codes from here to their end, and from there to the next panel's */
} brci_panel;

#endif
