/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/steps.h"

#include "core/codec.h"
#include "reference/scale.h"

#include <pthread.h>

enum { NF4, IQ4_NL, IQ4_NL_OF_GGML, TABLES };
static brci_steps tables[TABLES];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static float infinity(void) { return brci_float(BRCI_F32_INFINITY); }

static uint64_t code_of(unsigned format, int ggml, float x) {
    const brci_coder coder = {.factor = 1, .ggml = 1 + BRC_RULE_FIT};
    return ggml ? brci_encode_ggml(brci_format(format), &coder, x) : brci_encode(brci_format(format), x);
}

/* Floats in their order as integers, and back: they are the same function. */
static int32_t turned(int32_t x) { return x < 0 ? (int32_t)(0x80000000u - (uint32_t)x) : x; }
static float at(int64_t order) { return brci_float((uint32_t)turned((int32_t)order)); }
static int64_t order_of(float x) { return turned((int32_t)brci_bits(x)); }

/* Found by the encoder that is to be equalled, whatever it does about ties and rounding: between two values. */
static float first_of(unsigned format, int ggml, unsigned code) {
    const float *values = brci_codebook((brc_format)format);
    int64_t below = order_of(values[code - 1]), reached = order_of(values[code]);
    while (reached - below > 1) {
        const int64_t middle = below + (reached - below) / 2;
        if (code_of(format, ggml, at(middle)) >= code) reached = middle;
        else below = middle;
    }
    return at(reached);
}

/* As a multiply-add of floats rounds whose sum is 1.5 * 2^23 and more: the product is exact, ties go to even. */
static int cell_of(const brci_steps *s, float x) { return (int)((double)x * (double)s->cells + 0x1.8p52 - 0x1.8p52); }

static void make(unsigned format, int ggml, brci_steps *s) {
    const float *values = brci_codebook((brc_format)format);
    for (unsigned code = 0; code < 16; code++) {
        s->value[code] = values[code];
        s->from[code] = code == 0 ? -infinity() : first_of(format, ggml, code);
    }
    for (unsigned node = 1, step = 8; step > 0; step /= 2)
        for (unsigned code = step; code < 16; code += 2 * step) s->tree[node++] = s->from[code];
    for (unsigned pair = 0; pair < 8; pair++) {
        s->even[pair] = values[2 * pair];
        s->turn[pair] = brci_bits(values[2 * pair]) ^ brci_bits(values[2 * pair + 1]);
    }
    /* In cells of 1/12.5 of the outermost step every step is alone: they are at least 11.5 of 115.5 apart (IQ4_NL). */
    const float low = brci_absolute(s->from[1]), high = brci_absolute(s->from[15]);
    s->cells = 12.5f / (low > high ? low : high);
    s->limit = 15 / s->cells;
    for (int cell = -16; cell < 16; cell++) {
        uint32_t code = 0;
        float step = infinity();
        for (unsigned c = 1; c < 16; c++) {
            if (cell_of(s, s->from[c]) < cell) code = c;
            if (cell_of(s, s->from[c]) == cell) step = s->from[c];
        }
        s->within[cell & 31] = step;
        s->beginning[cell & 31] = code;
        s->beginning_value[cell & 31] = values[code];
    }
}

static void prepare(void) {
    make(BRC_NF4, 0, &tables[NF4]);
    make(BRC_IQ4_NL, 0, &tables[IQ4_NL]);
    make(BRC_IQ4_NL, 1, &tables[IQ4_NL_OF_GGML]);
}

const brci_steps *brci_steps_of(unsigned format, int ggml) {
    pthread_once(&once, prepare);
    if (format == BRC_IQ4_NL) return &tables[ggml ? IQ4_NL_OF_GGML : IQ4_NL];
    return format == BRC_NF4 && !ggml ? &tables[NF4] : NULL;
}
