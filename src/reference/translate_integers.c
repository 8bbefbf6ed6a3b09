/* SPDX-License-Identifier: Apache-2.0
 * Codes with zero points on either side: integers, so that code - zero point only moves. */
#include "reference/translate.h"

/* What the elements of a region have in common: one multiplier, and the ends of code - zero point. */
typedef struct survey {
    const brci_translation *t;
    int any, negative; /* negative: of the multiplier */
    float m, scale, low, high;
    float zero; /* the source's, of the first run */
} survey;

static int look(void *user, const brci_run *run) {
    survey *s = user;
    if (!brci_is_usable(run) || !(run->m > 0 || run->m < 0)) return 0;
    if (brci_round_even(run->zero) < run->zero || brci_round_even(run->zero) > run->zero) return 0;
    if (!s->any) {
        *s = (survey){.t = s->t, .any = 1, .m = run->m, .scale = run->scale, .zero = run->zero};
        s->negative = run->m < 0;
    }
    if (brci_bits(run->m) != brci_bits(s->m)) return 0;
    uint8_t codes[BRCI_CODES];
    for (int64_t i = 0, n; i < run->n; i += n) {
        n = brci_run_codes(s->t, run, i, codes);
        for (int64_t k = 0; k < n; k++) {
            const float e = s->t->value[codes[k]], x = s->negative ? run->zero - e : e - run->zero;
            if (x < s->low) s->low = x;
            if (x > s->high) s->high = x;
        }
    }
    return 1;
}

/* Where zero goes in the destination's codes: the source's own place if its codes move as they are, else where the
 * least number has the least code. */
static int choose_zero(const survey *s, float *zero) {
    const brci_translation *t = s->t;
    const float least = (float)t->to->min, most = (float)t->to->max;
    const int wider = t->from->min >= t->to->min && t->from->max <= t->to->max;
    const float tries[] = {s->zero + (wider ? 0 : least - (float)t->from->min), least - s->low};
    if (t->recipe->zero == BRC_NONE) {
        *zero = 0;
        return s->low >= least && s->high <= most;
    }
    const brc_format_info *f = brci_format(t->recipe->zero);
    for (int i = 0; i < 2; i++) {
        *zero = tries[i];
        if (s->low + *zero >= least && s->high + *zero <= most && (double)*zero >= f->min && (double)*zero <= f->max)
            return 1;
    }
    return 0;
}

typedef struct writing {
    const survey *s;
    float zero;
} writing;

/* Code of a whole number in the destination's range; whole codes are the low bits. 0 = it has none. */
static int encode(const brc_format_info *to, float x, uint8_t *code) {
    if (brci_is_integer(to) && to->mantissa_bits == 0) {
        *code = (uint8_t)((unsigned)(int)x & ((1u << to->bits) - 1));
        return 1;
    }
    *code = (uint8_t)brci_encode(to, x);
    const float back = (float)brci_decode(to, *code);
    return back <= x && back >= x;
}

static int write_run(void *user, const brci_run *run) {
    const writing *w = user;
    const brci_translation *t = w->s->t;
    uint8_t codes[BRCI_CODES];
    for (int64_t i = 0, n; i < run->n; i += n) {
        n = brci_run_codes(t, run, i, codes);
        for (int64_t k = 0; k < n; k++) {
            const float x = t->value[codes[k]] - run->zero;
            if (!encode(t->to, (w->s->negative ? -x : x) + w->zero, &codes[k])) return 0;
        }
        brci_put_codes(t, run, i, n, codes);
    }
    return 1;
}

int brci_translate_integers(brci_translation *t, const brci_region *region) {
    survey s = {.t = t};
    writing w = {.s = &s};
    if (!brci_each_run(t, region, look, &s) || !s.any || !choose_zero(&s, &w.zero)) return 0;
    if (!brci_put_multiplier(t, region->number, brci_absolute(s.m), s.negative ? -s.scale : s.scale)) return 0;
    if (t->recipe->zero != BRC_NONE)
        brci_table_put(&t->dst->zero, region->number, brci_encode(brci_format(t->recipe->zero), w.zero));
    return brci_each_run(t, region, write_run, &w);
}
