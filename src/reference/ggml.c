/* SPDX-License-Identifier: Apache-2.0
 * The arithmetic of ggml's blocks. Codes come from the reciprocal of a scale before it is rounded to its stored format,
 * by truncation; a zero block has the scale 0 (or -0), and so has one too small for half precision.
 * Source: quantize_row_q4_0_ref and its kind, quantize_iq4_nl, ggml_fp32_to_ue4m3 (ggml-org/ggml, src/ggml-quants.c,
 * src/ggml-impl.h). Where ggml overflows, scales saturate here. */
#include "core/codec.h"
#include "reference/scale.h"

#define LARGEST 3.4028234663852886e38f /* FLT_MAX */

static float capped(float x) { return x > LARGEST ? LARGEST : x < -LARGEST ? -LARGEST : x; }

static int is_zero(float x) { return brci_magnitude(x) == 0; }

static float reciprocal(float d) { return is_zero(d) ? 0 : capped(1.0f / d); }

/* Nearest half-precision number; the largest one beyond. */
static uint64_t half(float x) {
    const brc_format_info *f = brci_format(BRC_F16);
    const uint64_t code = brci_encode(f, x), sign = code & 0x8000;
    return (code ^ sign) > f->max_code ? f->max_code | sign : code;
}

/* A number as it counts: infinity is the largest one, NaN is 0. */
static float counted(float x) { return brci_is_nan(x) ? 0 : capped(x); }

/* Of the numbers of a block that are no NaN: ends, and the first one of the largest magnitude. */
typedef struct ends {
    float low, high, peak;
} ends;

static ends ends_of(const float *x, int64_t n) {
    ends e = {LARGEST, -LARGEST, 0};
    int any = 0;
    for (int64_t i = 0; i < n; i++) {
        if (brci_is_nan(x[i])) continue;
        const float v = capped(x[i]);
        any = 1;
        if (v < e.low) e.low = v;
        if (v > e.high) e.high = v;
        if (brci_magnitude(v) > brci_magnitude(e.peak)) e.peak = v;
    }
    return any ? e : (ends){0};
}

/* Codes of a signed format below 0: 8 of 4 bits. */
static float below(const brc_format_info *element) { return -(float)element->min; }

/* E4M3 without a sign: half up from the bit below the last, whatever lies under it; 256 and more is 448. */
static uint64_t unsigned_e4m3(float x) {
    const uint32_t bits = brci_bits(x > 448 ? 448.0f : x);
    const int exponent = (int)(bits >> 23) - 127 + 7;
    if (!(x > 0)) return 0;
    if (exponent <= 0) {
        const float steps = x * 512.0f + 0.5f;
        return steps < 7 ? (uint64_t)steps : 7;
    }
    const uint64_t code = ((uint64_t)exponent << 3 | (bits >> 20 & 7)) + (bits >> 19 & 1);
    return code >= 15 << 3 ? 0x7E : code;
}

/* ------------------------------------------------------------------------------------------------- codebooks */

/* The nearest value; of two equally near ones the upper. */
static uint64_t nearest(const float *values, uint64_t last, float x) {
    uint64_t low = 0, high = last;
    if (x <= values[0]) return 0;
    if (x >= values[last]) return last;
    while (high - low > 1) {
        const uint64_t middle = (low + high) / 2;
        if (x < values[middle]) high = middle;
        else low = middle;
    }
    return x - values[low] < values[high] - x ? low : high;
}

/* Weighted by x*x: sums of x times value, and of value squared. */
typedef struct fit {
    float product, square;
} fit;

static fit fit_of(const float *values, uint64_t last, const float *x, int64_t n, float factor) {
    fit f = {0};
    for (int64_t i = 0; i < n; i++) {
        const float v = counted(x[i]), weight = v * v, q = values[nearest(values, last, v * factor)],
                    weighted = weight * q;
        f.product += weighted * v;
        f.square += weighted * q;
    }
    return f;
}

static float fitted_scale(const brc_format_info *element, const float *x, int64_t n, float peak) {
    const float *values = brci_codebook(BRC_IQ4_NL);
    const uint64_t last = element->max_code;
    float d = -peak / values[0], best;
    if (brci_absolute(peak) < BRCI_FIT_TINY) return 0;
    fit f = fit_of(values, last, x, n, reciprocal(d));
    d = f.square > 0 ? f.product / f.square : 0;
    best = d * f.product;
    for (int i = -BRCI_FIT_TRIES; i <= BRCI_FIT_TRIES; i++) {
        f = fit_of(values, last, x, n, ((float)i + values[0]) / peak);
        if (f.square > 0 && f.product * f.product > best * f.square) {
            d = f.product / f.square;
            best = d * f.product;
        }
    }
    return brci_magnitude(d) >= BRCI_F32_INFINITY ? -peak / values[0] : d; /* sums beyond F32 */
}

/* --------------------------------------------------------------------------------------------------- choosing */

brci_scaling brci_choose_ggml(const brci_casting *c, const float *x, int64_t n) {
    const brc_recipe *r = c->recipe;
    const brc_format_info *element = c->element;
    const ends e = ends_of(x, n);
    const float amax = brci_absolute(e.peak);
    brci_scaling s = {.coder = {.ggml = 1 + r->rule}};
    float d = 0;
    switch ((brc_rule)r->rule) {
    case BRC_RULE_PEAK: d = e.peak / -below(element); break;
    case BRC_RULE_MINMAX:
        d = capped(e.high - e.low) / (float)element->max;
        s.coder.zero = e.low;
        s.zero = half(e.low);
        break;
    case BRC_RULE_FIT: d = fitted_scale(element, x, n, e.peak); break;
    case BRC_RULE_FLOOR: /* powers of two below 2^-127 are 2^-127 */
        s.scale = brci_bits(amax) >> 23;
        s.scale = s.scale > 2 ? s.scale - 2 : 0;
        s.coder.factor = (float)brci_power((int)s.scale - 127);
        return s;
    default:
        if (element->family == BRC_FLOAT) {
            s.scale = unsigned_e4m3(amax / (float)element->max);
            s.coder.factor = (float)brci_decode(brci_format(BRC_E4M3), s.scale);
            return s;
        }
        d = amax / (float)element->max;
    }
    s.scale = half(d);
    s.coder.factor = reciprocal(d);
    return s;
}

/* --------------------------------------------------------------------------------------------------- encoding */

/* Towards zero, not below 0 and not above the last code. */
static uint64_t truncated(float y, uint64_t last) { return !(y > 0) ? 0 : y >= (float)last ? last : (uint64_t)y; }

/* The element with the smallest error, the first of several: never -0. */
static uint64_t least_error(const brc_format_info *element, float scale, float x) {
    uint64_t best = 0;
    float least = brci_absolute(x);
    for (uint64_t code = 1; code < (uint64_t)1 << element->bits; code++) {
        const float error = brci_absolute((float)brci_decode(element, code) * scale - x);
        if (error < least) {
            least = error;
            best = code;
        }
    }
    return best;
}

uint64_t brci_encode_ggml(const brc_format_info *element, const brci_coder *coder, float given) {
    const uint64_t mask = ((uint64_t)1 << element->bits) - 1, half_range = (uint64_t)below(element);
    const float x = counted(given), y = x * coder->factor;
    switch ((brc_rule)(coder->ggml - 1)) {
    case BRC_RULE_PEAK: return (truncated(y + (below(element) + 0.5f), mask) - half_range) & mask;
    case BRC_RULE_MINMAX: return truncated(capped(x - coder->zero) * coder->factor + 0.5f, mask);
    case BRC_RULE_FIT: return nearest(brci_codebook(BRC_IQ4_NL), mask, y);
    default:
        if (element->family == BRC_FLOAT) return least_error(element, coder->factor, x);
    }
    /* roundf: half away from zero */
    const float size = brci_absolute(y);
    uint64_t steps = truncated(size, element->max_code);
    steps += steps < element->max_code && size - (float)steps >= 0.5f;
    return (y < 0 ? 0 - steps : steps) & mask;
}
