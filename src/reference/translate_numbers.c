/* SPDX-License-Identifier: Apache-2.0
 * Codes without zero points. Under the same multiplier a code becomes the code of the same number. Multipliers that are
 * powers of two apart may become one: codes then move by that power, where their format has such numbers. */
#include "reference/translate.h"

/* |m| = fraction * 2^exponent with fraction in [1, 2); m != 0. */
typedef struct parts {
    double fraction;
    int exponent;
} parts;

static parts split(float m) {
    const double x = (double)brci_absolute(m);
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    const int exponent = (int)(bits >> 52) - 1023; /* of a float: never subnormal as a double */
    return (parts){x * brci_power(-exponent), exponent};
}

/* What the elements of a region that are not zero have in common. */
typedef struct survey {
    const brci_translation *t;
    int any, same, mixed; /* any at all; all of one multiplier, but for its sign; fractions differ */
    double fraction;
    float m, scale; /* of the first */
    double largest; /* magnitude of a value */
} survey;

/* Largest magnitude of a run's elements, infinity among them; `special` where NaN or infinity is. */
static float largest_of(const brci_translation *t, const brci_run *run, int *special) {
    uint8_t codes[BRCI_CODES];
    uint32_t largest = 0, most = 0; /* magnitudes as bits: NaN is above all */
    for (int64_t i = 0, n; i < run->n; i += n) {
        n = brci_run_codes(t, run, i, codes);
        for (int64_t k = 0; k < n; k++) {
            const uint32_t x = brci_magnitude(t->value[codes[k]]);
            if (x > most) most = x;
            if (x > largest && x <= BRCI_F32_INFINITY) largest = x;
        }
    }
    *special = most >= BRCI_F32_INFINITY;
    return brci_float(largest);
}

static int look(void *user, const brci_run *run) {
    survey *s = user;
    int special;
    if (!brci_is_usable(run)) return 0;
    const float amax = largest_of(s->t, run, &special);
    if (special && !(run->m > 0 || run->m < 0)) return 0;
    if ((!(amax > 0) && !special) || !(run->m > 0 || run->m < 0)) return 1; /* zeros, under any multiplier */
    const parts p = split(run->m);
    if (!s->any) {
        s->any = s->same = 1;
        s->fraction = p.fraction;
        s->m = brci_absolute(run->m);
        s->scale = run->scale < 0 ? -run->scale : run->scale;
    }
    s->same &= brci_bits(brci_absolute(run->m)) == brci_bits(s->m);
    s->mixed |= p.fraction < s->fraction || p.fraction > s->fraction;
    if (!brci_is_infinite(amax) && (double)amax * (double)brci_absolute(run->m) > s->largest)
        s->largest = (double)amax * (double)brci_absolute(run->m);
    return 1;
}

static brci_code_map *map_of(brci_translation *t, int shift, int negative) {
    brci_code_map *map = &t->maps[(unsigned)(shift * 2 + negative) % BRCI_MAPS];
    if (map->used && map->shift == shift && map->negative == negative) return map;
    *map = (brci_code_map){.shift = shift, .negative = negative, .used = 1};
    for (unsigned i = 0; i < BRCI_CODES; i++) map->code[i] = -2;
    return map;
}

/* The destination's code for a number, -1 where it has none: it may lose the sign of zero, and nothing else. */
static int16_t code_of(const brc_format_info *to, double x) {
    const float wanted = (float)x;
    const uint64_t code = brci_encode(to, wanted);
    const double back = brci_decode(to, code);
    if (brci_is_nan(wanted)) return back != back ? (int16_t)code : -1;
    return (double)wanted <= x && (double)wanted >= x && back <= x && back >= x ? (int16_t)code : -1;
}

static int16_t look_up(brci_translation *t, brci_code_map *map, uint64_t code) {
    if (map->code[code] == -2) {
        const double x = (double)t->value[code] * brci_power(map->shift);
        map->code[code] = code_of(t->to, map->negative ? -x : x);
    }
    return map->code[code];
}

/* Writes codes under a multiplier. */
typedef struct writing {
    brci_translation *t;
    parts m;
} writing;

static int write_run(void *user, const brci_run *run) {
    const writing *w = user;
    brci_translation *t = w->t;
    const int nothing = !(run->m > 0 || run->m < 0);
    const int shift = nothing ? 0 : split(run->m).exponent - w->m.exponent, far = shift < -64 || shift > 64;
    brci_code_map *map = map_of(t, far ? 0 : shift, run->m < 0);
    uint8_t codes[BRCI_CODES];
    for (int64_t i = 0, n; i < run->n; i += n) {
        n = brci_run_codes(t, run, i, codes);
        for (int64_t k = 0; k < n; k++) {
            const float x = t->value[codes[k]];
            const int16_t to = nothing ? code_of(t->to, 0) : look_up(t, map, codes[k]);
            if (to < 0 || (far && (x < 0 || x > 0))) return 0;
            codes[k] = (uint8_t)to;
        }
        brci_put_codes(t, run, i, n, codes);
    }
    return 1;
}

/* Codes of the region that were written before an attempt failed. */
static int clear_run(void *user, const brci_run *run) {
    const writing *w = user;
    const brci_translation *t = w->t;
    uint8_t *out = (uint8_t *)t->dst->data + run->row * t->dst->row_pitch;
    if (t->to->bits >= 8) return 1; /* whole bytes are overwritten */
    for (int64_t i = 0; i < run->n; i++) {
        const int64_t bit = (run->col + i) * t->to->bits;
        const unsigned mask = ((1u << t->to->bits) - 1) << bit % 8;
        out[bit / 8] &= (uint8_t)~mask;
        if (mask > 0xFF) out[bit / 8 + 1] &= (uint8_t) ~(mask >> 8);
    }
    return 1;
}

static int write_codes(brci_translation *t, const brci_region *region, float m) {
    writing w = {t, split(m)};
    if (brci_each_run(t, region, write_run, &w)) return 1;
    brci_each_run(t, region, clear_run, &w);
    return 0;
}

/* The least multiplier of this fraction under which the largest value has a code and that the scale's format has: a
 * greater one would only bring smaller codes. */
static int write_shifted(brci_translation *t, const brci_region *region, const survey *s) {
    enum { STEPS = 32 }; /* more than the binades of E4M3 */
    const int exponents = t->recipe->pow2 || brci_format(t->dst->scale.format)->family == BRC_EXPONENT;
    const double least = s->largest / t->to->max;
    if (!(s->largest > 0) || (exponents && s->fraction > 1)) return 0;
    uint64_t bits;
    memcpy(&bits, &least, sizeof bits);
    double m = s->fraction * brci_power((int)(bits >> 52) - 1023 - 1);
    for (int step = 0; step < STEPS && m < 0x1p128; step++, m *= 2)
        if (m >= least && brci_put_multiplier(t, region->number, (float)m, (float)m))
            return write_codes(t, region, (float)m);
    return 0;
}

int brci_translate_numbers(brci_translation *t, const brci_region *region) {
    survey s = {.t = t};
    if (!brci_each_run(t, region, look, &s)) return 0;
    if (!s.any) {
        brci_table_put(&t->dst->scale, region->number, t->of_zeros);
        return write_codes(t, region, 1);
    }
    if (s.same && brci_put_multiplier(t, region->number, s.m, s.scale) && write_codes(t, region, s.m)) return 1;
    return !s.mixed && write_shifted(t, region, &s);
}
