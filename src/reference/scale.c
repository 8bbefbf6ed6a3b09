/* SPDX-License-Identifier: Apache-2.0
 * One function a family of rules. All arithmetic is binary32, each operation rounded; docs/numerics.md has the formulas
 * and the systems they equal. */
#include "reference/scale.h"

#include "core/codec.h"

#define LARGEST 3.4028234663852886e38f /* FLT_MAX */
#define SMALLEST_NORMAL 0x1p-126f

void brci_extend(brci_extent *e, const float *x, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        uint32_t magnitude = brci_magnitude(x[i]);
        if (magnitude > BRCI_F32_INFINITY) {
            e->nan++;
            continue;
        }
        e->infinite += magnitude == BRCI_F32_INFINITY;
        if (magnitude > brci_bits(e->amax)) e->amax = brci_float(magnitude);
        if (x[i] < e->low) e->low = x[i];
        if (x[i] > e->high) e->high = x[i];
    }
}

static float capped(float x) { return x > LARGEST ? LARGEST : x; }

/* A positive scale in its stored format: never 0, infinite or NaN. Underflow -> smallest normal, overflow -> largest
 * finite. */
static uint64_t store(unsigned format, float scale) {
    const brc_format_info *f = brci_format(format);
    uint64_t code;
    if ((double)scale > f->max) return f->max_code;
    code = brci_encode(f, scale);
    if (code > f->max_code) return f->max_code; /* rounded up to infinity */
    if (f->family == BRC_FLOAT && code == 0) code = (uint64_t)1 << f->mantissa_bits;
    return code;
}

static float stored(unsigned format, uint64_t code) { return (float)brci_decode(brci_format(format), code); }

/* Distance from 1 to the next number of the format: torch.finfo(dtype).eps. Powers of two have none: their smallest. */
static float machine_epsilon(unsigned format) {
    const brc_format_info *f = brci_format(format);
    return (float)(f->family == BRC_EXPONENT ? f->smallest : brci_power(-(int)f->mantissa_bits));
}

/* A power of two not below x, as a biased exponent: the next one up unless x is one. Below 2^-127 it is 2^-127. */
static uint32_t exponent_up(float x) {
    uint32_t bits = brci_magnitude(x), exponent = bits >> 23, fraction = bits & 0x7FFFFFu;
    return exponent + (fraction > 0 && !(exponent == 0 && fraction <= 0x400000u));
}

static uint32_t clamp_exponent(int64_t exponent) {
    return exponent < 0 ? 0 : exponent > 254 ? 254 : (uint32_t)exponent;
}

static int floor_log2(double x) { /* of a normal number */
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (int)(bits >> 52) - 1023;
}

/* compressed-tensors adds a zero point of 0 before it encodes, but for FP6. */
static int is_ct_with_zero(const brci_casting *c) { return c->recipe->arith == BRC_ARITH_CT && c->element->bits != 6; }

static int ties_of(const brci_casting *c) {
    if (c->recipe->arith == BRC_ARITH_MODELOPT) return BRCI_TIES_MINUS_ZERO;
    return c->recipe->arith == BRC_ARITH_MLX && c->element->bits == 4 ? BRCI_TIES_PLUS_ZERO : BRCI_TIES_EVEN;
}

/* E8M0 scales of OCP MX. RCEIL encodes by x*2^(127-S) as TransformerEngine does, the others by x/s with s >= 2^-126 as
 * torchao does (compressed-tensors: with s as it is); a zero block is byte 0 (MLX: 127). Infinity takes the largest
 * scale. */
static brci_scaling choose_mx(const brci_casting *c, const brci_extent *e) {
    const brc_recipe *r = c->recipe;
    uint32_t amax = brci_bits(e->amax), exponent;
    brci_scaling s = {0};
    if (amax == BRCI_F32_INFINITY) {
        exponent = 254;
    } else if (r->rule == BRC_RULE_RCEIL) {
        exponent = clamp_exponent(exponent_up(e->amax / brci_element_reach(c->element)));
    } else {
        /* compressed-tensors rounds amax to one mantissa bit even where the element has three (E4M3) */
        const unsigned kept = r->arith == BRC_ARITH_CT && c->element->bits != 6 ? 1 : c->element->mantissa_bits;
        int64_t up = 0;
        if (r->rule == BRC_RULE_EVEN) amax += (uint32_t)1 << (22 - kept);
        if (r->rule == BRC_RULE_CEIL) up = (amax & 0x7FFFFFu) > 0;
        exponent = clamp_exponent((int64_t)(amax >> 23) + up - floor_log2(c->element->max));
    }
    if (r->arith == BRC_ARITH_MLX && brci_bits(e->amax) == 0) exponent = 127;
    s.scale = exponent;
    s.coder.divide = r->rule != BRC_RULE_RCEIL;
    if (s.coder.divide && r->arith != BRC_ARITH_CT && exponent == 0) exponent = 1;
    s.coder.factor = (float)brci_power(s.coder.divide ? (int)exponent - 127 : 127 - (int)exponent);
    s.coder.no_minus_zero = is_ct_with_zero(c);
    s.coder.ties_below = ties_of(c);
    return s;
}

/* TransformerEngine: the quantization scale k comes first, the dequantization scale is its reciprocal. */
static brci_scaling choose_te(const brci_casting *c, const brci_extent *e) {
    const brc_recipe *r = c->recipe;
    float reach = (float)c->element->max * (float)brci_power(-r->margin);
    float amax = e->amax < r->epsilon ? r->epsilon : e->amax;
    float k = c->delayed;
    brci_scaling s = {0};
    if (!(k > 0)) {
        uint32_t bits = brci_bits(amax);
        k = bits == 0 || bits == BRCI_F32_INFINITY ? 1.0f : reach / amax;
        /* Per tensor FLT_MAX, in blocks the largest number of the input's own type. */
        if (brci_is_infinite(k)) k = r->block.rows == 0 && r->block.cols == 0 ? LARGEST : c->input_max;
        if (r->pow2) k = brci_float(brci_bits(k) & 0xFF800000u);
        if (brci_bits(k) == 0) k = SMALLEST_NORMAL; /* a subnormal cut to a power of two; only with a large margin */
    }
    s.scale = store(r->scale, 1.0f / k);
    s.coder.factor = k;
    return s;
}

/* compressed-tensors' and ModelOpt's NVFP4. Their scales go down to E4M3's smallest subnormal; what would be 0 is 2^-3
 * resp. 1. */
static brci_scaling choose_e4m3_of_system(const brci_casting *c, const brci_extent *e) {
    const brc_recipe *r = c->recipe;
    const brc_format_info *scale = brci_format(BRC_E4M3);
    const int ct = r->arith == BRC_ARITH_CT, two = r->levels == 2;
    const float reach = brci_element_reach(c->element), amax = capped(e->amax);
    float block = ct ? amax / reach : amax / (two ? reach * c->global : reach), s, whole;
    brci_scaling result = {.coder = {.divide = 1, .no_minus_zero = !ct || is_ct_with_zero(c)}};
    if (ct && two) block *= c->global;
    if (!ct && brci_bits(block) == 0) block = 1;
    if (!ct && block < (float)scale->smallest) block = (float)scale->smallest;
    result.scale = brci_encode(scale, block);
    if (result.scale == 0) result.scale = brci_encode(scale, 0.125f);
    s = stored(BRC_E4M3, result.scale);
    whole = !two ? s : ct ? s / c->global : s * c->global;
    result.coder.factor = brci_bits(whole) == 0 ? SMALLEST_NORMAL : whole;
    return result;
}

/* The smallest scale a two-level or one-level NVFP4 block may have: E4M3's smallest normal number, 2^-6 (torchao). */
static brci_scaling choose_e4m3(const brci_casting *c, const brci_extent *e) {
    const brc_recipe *r = c->recipe;
    const brc_format_info *scale = brci_format(BRC_E4M3);
    float block = capped(e->amax) / brci_element_reach(c->element), s, whole;
    brci_scaling result = {0};
    if (r->levels == 2) block = r->arith == BRC_ARITH_DIV ? block * c->global : block / c->global;
    if (block < (float)scale->smallest_normal) block = (float)scale->smallest_normal;
    result.scale = store(BRC_E4M3, block);
    s = stored(BRC_E4M3, result.scale);
    if (r->arith == BRC_ARITH_DIV) {
        whole = r->levels == 2 ? s / c->global : s;
        result.coder = (brci_coder){.factor = brci_bits(whole) == 0 ? SMALLEST_NORMAL : whole, .divide = 1};
    } else {
        whole = r->levels == 2 ? 1.0f / c->global / s : 1.0f / s;
        result.coder.factor = capped(whole);
    }
    return result;
}

/* MLX's NVFP4: a scale may be 0, where amax is 0 or too small, and so are its codes then. */
static brci_scaling choose_e4m3_of_mlx(const brci_casting *c, const brci_extent *e) {
    brci_scaling s = {.scale = brci_encode(brci_format(BRC_E4M3), capped(e->amax) / brci_element_reach(c->element)),
                      .coder = {.divide = 1, .ties_below = ties_of(c)}};
    s.coder.factor = s.scale == 0 ? LARGEST : stored(BRC_E4M3, s.scale);
    return s;
}

/* A number of either sign in its stored format, never infinite. */
static uint64_t store_signed(unsigned format, float x) {
    const brc_format_info *f = brci_format(format);
    const uint64_t sign = (uint64_t)1 << (f->bits - 1), code = brci_encode(f, x);
    return (code & ~sign) > f->max_code ? f->max_code | (code & sign) : code;
}

/* MLX's affine blocks: the end of larger magnitude is a code exactly, the scale counts from there. Codes come from
 * scale and offset before these are rounded to their format. Source: quantize, mode affine (ml-explore/mlx,
 * mlx/backend/cpu/quantized.cpp). */
brci_scaling brci_choose_affine(const brci_casting *c, const float *x, int64_t count) {
    const brc_recipe *r = c->recipe;
    float low = LARGEST, high = -LARGEST, scale, edge, steps;
    for (int64_t i = 0; i < count; i++) {
        if (brci_is_nan(x[i])) continue;
        const float v = x[i] < 0 ? -capped(-x[i]) : capped(x[i]);
        low = v < low ? v : low;
        high = v > high ? v : high;
    }
    if (low > high) low = high = 0; /* nothing but NaN */
    const int down = brci_magnitude(low) > brci_magnitude(high);
    scale = capped(high - low) / (float)c->element->max;
    if (scale < 1e-7f) scale = 1e-7f;
    if (!down) scale = -scale;
    edge = down ? low : high;
    steps = brci_round_even(edge / scale);
    if (brci_bits(steps + 0.0f) == 0) edge = 0;
    else scale = edge / steps;
    return (brci_scaling){.scale = store_signed(r->scale, scale),
                          .zero = store_signed(r->zero, edge),
                          .coder = {.factor = scale, .zero = edge, .is_offset = 1}};
}

float brci_choose_global(const brc_recipe *r, float amax) {
    float reach = (float)(brci_format(BRC_E4M3)->max * (double)brci_element_reach(brci_format(r->element)));
    float g;
    amax = capped(amax);
    if (brci_bits(amax) == 0) return 1.0f;
    if (r->arith == BRC_ARITH_CT) return brci_is_infinite(reach / amax) ? 1.0f : reach / amax;
    if (r->arith == BRC_ARITH_DIV) return capped(reach / amax);
    g = amax / reach;
    return g < SMALLEST_NORMAL ? SMALLEST_NORMAL : g;
}

/* x/s rather than x*(1/s), where neither rule nor format say more. */
static int divides(const brc_recipe *r) {
    return r->arith == BRC_ARITH_DIV || r->arith == BRC_ARITH_CT || r->arith == BRC_ARITH_MODELOPT;
}

static brci_coder coder_of(const brc_recipe *r, float scale) {
    brci_coder coder = {.factor = scale, .divide = divides(r)};
    if (!coder.divide) {
        coder.factor = capped(1.0f / scale);
        coder.round_first = r->rule == BRC_RULE_MINMAX;
    }
    return coder;
}

/* Floating-point elements: s = amax/max. A zero block: 1; compressed-tensors: the machine epsilon. */
static brci_scaling choose_float(const brci_casting *c, const brci_extent *e) {
    const brc_recipe *r = c->recipe;
    float amax = e->amax, scale;
    brci_scaling s = {0};
    if (r->arith == BRC_ARITH_DEEPGEMM && amax < 1e-4f) amax = 1e-4f;
    scale = brci_bits(amax) == 0 || brci_is_infinite(amax) ? 1.0f : amax / brci_element_reach(c->element);
    if (r->arith == BRC_ARITH_CT && (brci_bits(amax) == 0 || brci_bits(scale) == 0)) scale = machine_epsilon(r->scale);
    if (r->scale == BRC_E8M0) {
        s.scale = brci_bits(e->amax) == 0 ? 0 : brci_is_infinite(e->amax) ? 254 : clamp_exponent(exponent_up(scale));
    } else {
        if (r->pow2) scale = (float)brci_power((int)clamp_exponent(exponent_up(scale)) - 127);
        s.scale = store(r->scale, scale);
    }
    s.coder = coder_of(r, stored(r->scale, s.scale));
    s.coder.no_minus_zero = is_ct_with_zero(c);
    return s;
}

/* Integers: half the code range (ModelOpt: the last code), or the ends. An infinite number counts as the largest finite
 * one. */
static brci_scaling choose_integer(const brci_casting *c, const brci_extent *e) {
    const brc_recipe *r = c->recipe;
    const float lowest = (float)c->element->min, highest = (float)c->element->max;
    const float low = -capped(-e->low), high = capped(e->high);
    const int recip = r->arith == BRC_ARITH_RECIP;
    float scale, least = recip ? (r->epsilon > 0 ? r->epsilon : machine_epsilon(r->scale)) : 0, real;
    brci_scaling s = {0};
    if (r->rule == BRC_RULE_MINMAX) scale = capped(high - low) / (highest - lowest);
    else if (r->rule == BRC_RULE_NO_CLIP) {
        float down = low < 0 && lowest < 0 ? low / lowest : 0, up = high / highest;
        scale = down > up ? down : up;
    } else scale = capped(e->amax) / (r->arith == BRC_ARITH_MODELOPT ? highest : brci_element_reach(c->element));
    if (scale < least) scale = least;
    if (brci_bits(e->amax) == 0 && !recip) scale = machine_epsilon(r->scale);
    if (r->scale == BRC_E8M0) s.scale = brci_bits(e->amax) == 0 ? 0 : clamp_exponent(exponent_up(scale));
    else s.scale = store(r->scale, scale);
    real = stored(r->scale, s.scale);
    s.coder = coder_of(r, real);
    if (r->rule == BRC_RULE_MINMAX) {
        float zero = recip ? lowest - brci_round_even(low / real) : lowest - low / real;
        /* compressed-tensors: a zero block divides 0 by 0, and the NaN is stored as signed 0, the middle of the codes.
         */
        if (brci_bits(e->amax) == 0 && !recip) zero = brci_round_even((lowest + highest + 1) / 2);
        zero = brci_round_even(zero < lowest ? lowest : zero > highest ? highest : zero);
        s.coder.zero = zero;
        s.zero = brci_encode(brci_format(r->zero), zero);
    }
    return s;
}

brci_scaling brci_choose(const brci_casting *c, const brci_extent *e) {
    const brc_recipe *r = c->recipe;
    if (r->arith == BRC_ARITH_GGML)
        return brci_choose_ggml(c, NULL, 0); /* a block of zeros: others have their numbers */
    if (brci_is_mx_rule(r->rule)) return choose_mx(c, e);
    if (r->arith == BRC_ARITH_MLX)
        return r->rule == BRC_RULE_MINMAX ? brci_choose_affine(c, NULL, 0) : choose_e4m3_of_mlx(c, e);
    if (brci_has_fraction_scales(r))
        return r->arith == BRC_ARITH_CT || r->arith == BRC_ARITH_MODELOPT ? choose_e4m3_of_system(c, e)
                                                                          : choose_e4m3(c, e);
    if (r->arith == BRC_ARITH_TE) return choose_te(c, e);
    return brci_is_integer(c->element) ? choose_integer(c, e) : choose_float(c, e);
}

/* The element below where the one chosen is just as far. */
static uint64_t encode_below(const brc_format_info *element, float y, int ties) {
    const uint64_t sign = (uint64_t)1 << (element->bits - 1);
    const double magnitude = (double)brci_float(brci_magnitude(y));
    uint64_t code = brci_encode(element, brci_float(brci_magnitude(y)));
    if (code > 0 && brci_decode(element, code) > magnitude &&
        brci_decode(element, code) - magnitude >= magnitude - brci_decode(element, code - 1))
        code--;
    return y > 0 || (code == 0 && ties == BRCI_TIES_PLUS_ZERO) ? code : code | sign;
}

uint64_t brci_encode_scaled(const brc_format_info *element, const brci_coder *coder, float x) {
    if (coder->ggml != 0) return brci_encode_ggml(element, coder, x);
    if (coder->is_offset) return brci_encode(element, ((brci_is_nan(x) ? 0 : x) - coder->zero) / coder->factor);
    float y = coder->divide ? x / coder->factor : x * coder->factor;
    if (coder->round_first) y = brci_round_even(y);
    if (coder->no_minus_zero) y += 0.0f;
    if (coder->ties_below != BRCI_TIES_EVEN && !brci_is_nan(x)) return encode_below(element, y, coder->ties_below);
    if (brci_is_integer(element)) y = brci_is_nan(x) ? coder->zero : y + coder->zero; /* NaN becomes the code of 0 */
    return brci_encode(element, y);
}
