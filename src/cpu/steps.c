/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/steps.h"

#include "core/codec.h"
#include "reference/scale.h"

#include <pthread.h>

static const struct {
    unsigned format;
    int ggml;
} rows[] = {{BRC_NF4, 0}, {BRC_IQ4_NL, 0}, {BRC_IQ4_NL, 1}, {BRC_E2M1, 1}};
#define ROWS (sizeof rows / sizeof *rows)
static brci_steps tables[ROWS];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static float infinity(void) { return brci_float(BRCI_F32_INFINITY); }

/* A format's codes by the values they stand for, rising; -0 is none of them. */
typedef struct ranking {
    const brc_format_info *format;
    int ggml;
    unsigned count, codes[16];
} ranking;

static ranking rank(unsigned format, int ggml) {
    ranking r = {.format = brci_format(format), .ggml = ggml};
    if (r.format->family == BRC_FLOAT)
        for (unsigned code = 15; code > 8; code--) r.codes[r.count++] = code;
    for (unsigned code = 0; code <= r.format->max_code; code++) r.codes[r.count++] = code;
    return r;
}

static float value_of(const ranking *r, unsigned place) { return (float)brci_decode(r->format, r->codes[place]); }

static unsigned place_of(const ranking *r, float x) {
    const brc_rule rule = r->format->family == BRC_CODEBOOK ? BRC_RULE_FIT : BRC_RULE_AMAX;
    const brci_coder coder = {.factor = 1, .ggml = 1 + (unsigned)rule};
    const uint64_t code = r->ggml ? brci_encode_ggml(r->format, &coder, x) : brci_encode(r->format, x);
    unsigned place = 0;
    while (place + 1 < r->count && r->codes[place] != code) place++;
    return place;
}

/* Floats in their order as integers, and back: they are the same function. */
static int32_t turned(int32_t x) { return x < 0 ? (int32_t)(0x80000000u - (uint32_t)x) : x; }
static float at(int64_t order) { return brci_float((uint32_t)turned((int32_t)order)); }
static int64_t order_of(float x) { return turned((int32_t)brci_bits(x)); }

/* Found by the encoder that is to be equalled, whatever it does about ties and rounding: between two values. */
static float first_of(const ranking *r, unsigned place) {
    int64_t below = order_of(value_of(r, place - 1)), reached = order_of(value_of(r, place));
    while (reached - below > 1) {
        const int64_t middle = below + (reached - below) / 2;
        if (place_of(r, at(middle)) >= place) reached = middle;
        else below = middle;
    }
    return at(reached);
}

/* As a multiply-add of floats rounds whose sum is 1.5 * 2^23 and more: the product is exact, ties go to even. */
static int cell_of(const brci_steps *s, float x) { return (int)((double)x * (double)s->cells + 0x1.8p52 - 0x1.8p52); }

static void make(unsigned format, int ggml, brci_steps *s) {
    const ranking r = rank(format, ggml);
    for (unsigned i = 0; i < 16; i++) {
        s->value[i] = value_of(&r, i < r.count ? i : r.count - 1);
        s->from[i] = i == 0 ? -infinity() : i < r.count ? first_of(&r, i) : infinity();
    }
    for (unsigned node = 1, step = 8; step > 0; step /= 2)
        for (unsigned i = step; i < 16; i += 2 * step) s->tree[node++] = s->from[i];
    for (unsigned pair = 0; pair < 8; pair++) {
        s->even[pair] = s->value[2 * pair];
        s->turn[pair] = brci_bits(s->value[2 * pair]) ^ brci_bits(s->value[2 * pair + 1]);
    }
    /* In cells of 1/12.5 of the outermost step every step is alone: they are at least 1/11 of it apart. */
    const float low = brci_absolute(s->from[1]), high = brci_absolute(s->from[r.count - 1]);
    s->cells = 12.5f / (low > high ? low : high);
    s->limit = 15 / s->cells;
    for (int cell = -16; cell < 16; cell++) {
        unsigned place = 0;
        float step = infinity();
        for (unsigned i = 1; i < r.count; i++) {
            if (cell_of(s, s->from[i]) < cell) place = i;
            if (cell_of(s, s->from[i]) == cell) step = s->from[i];
        }
        s->within[cell & 31] = step;
        s->beginning[cell & 31] = r.codes[place];
        s->beginning_value[cell & 31] = s->value[place];
    }
}

static void prepare(void) {
    for (size_t i = 0; i < ROWS; i++) make(rows[i].format, rows[i].ggml, &tables[i]);
}

const brci_steps *brci_steps_of(unsigned format, int ggml) {
    pthread_once(&once, prepare);
    for (size_t i = 0; i < ROWS; i++)
        if (rows[i].format == format && rows[i].ggml == ggml) return &tables[i];
    return NULL;
}
