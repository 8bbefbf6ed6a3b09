/* SPDX-License-Identifier: Apache-2.0
 * Recipes: the table, which fields go together. Their text form is in recipe_text.c. */
#include "core/recipe.h"

#include "core/layout.h"

#include <string.h>

static const brc_recipe_info rows[BRC_RECIPE_COUNT] = {
#define BRC_RECIPE_ROW(id_, name, file, klass, element_, scale_, zero_, levels_, layout_, b, r, c, rule_, arith_,      \
                       history)                                                                                        \
    [BRC_RECIPE_##id_] = {sizeof(brc_recipe_info),                                                                     \
                          name,                                                                                        \
                          file,                                                                                        \
                          klass,                                                                                       \
                          {.size = sizeof(brc_recipe),                                                                 \
                           .id = BRC_RECIPE_##id_,                                                                     \
                           .element = BRC_##element_,                                                                  \
                           .scale = BRC_##scale_,                                                                      \
                           .zero = BRC_##zero_,                                                                        \
                           .levels = levels_,                                                                          \
                           .layout = BRC_##layout_,                                                                    \
                           .rule = BRC_RULE_##rule_,                                                                   \
                           .arith = BRC_ARITH_##arith_,                                                                \
                           .block = {b, r, c},                                                                         \
                           .history_length = history}},
#include "breccia/recipes.def"
#undef BRC_RECIPE_ROW
};

static const char *const rule_names[BRC_RULE_COUNT] = {
#define BRC_RULE_ROW(id, name, text) name,
#define BRC_ARITH_ROW(id, name, text)
#define BRC_KIND_ROW(id, name, text)
#include "breccia/rules.def"
};
static const char *const arith_names[BRC_ARITH_COUNT] = {
#define BRC_RULE_ROW(id, name, text)
#define BRC_ARITH_ROW(id, name, text) name,
#define BRC_KIND_ROW(id, name, text)
#include "breccia/rules.def"
};
static const char *const kind_names[BRC_KIND_COUNT] = {
#define BRC_RULE_ROW(id, name, text)
#define BRC_ARITH_ROW(id, name, text)
#define BRC_KIND_ROW(id, name, text) name,
#include "breccia/rules.def"
};

const char *brc_rule_name(brc_rule rule) { return (unsigned)rule < BRC_RULE_COUNT ? rule_names[rule] : NULL; }
const char *brc_arith_name(brc_arith arith) { return (unsigned)arith < BRC_ARITH_COUNT ? arith_names[arith] : NULL; }
const char *brc_kind_name(brc_kind kind) { return (unsigned)kind < BRC_KIND_COUNT ? kind_names[kind] : NULL; }

const brc_recipe_info *brc_recipe_get(brc_recipe_id id) { return (unsigned)id < BRC_RECIPE_COUNT ? &rows[id] : NULL; }

brc_recipe_id brc_recipe_find(const char *name) {
    for (unsigned i = 0; name != NULL && i < BRC_RECIPE_COUNT; i++)
        if (strcmp(rows[i].name, name) == 0) return (brc_recipe_id)i;
    return BRC_RECIPE_UNKNOWN;
}

brc_status brc_recipe_init(brc_recipe_id id, brc_recipe *recipe, brc_error *err) {
    if (recipe == NULL || (unsigned)id >= BRC_RECIPE_COUNT)
        return brci_fail(err, BRC_ARGUMENT, 0, "there is no recipe %d", (int)id);
    *recipe = rows[id].recipe;
    return BRC_OK;
}

static int same_block(brc_block a, brc_block b) { return a.batch == b.batch && a.rows == b.rows && a.cols == b.cols; }

int brci_recipe_equal(const brc_recipe *a, const brc_recipe *b) {
    return a->id == b->id && a->element == b->element && a->scale == b->scale && a->zero == b->zero &&
           a->levels == b->levels && a->layout == b->layout && a->rule == b->rule && a->arith == b->arith &&
           a->pow2 == b->pow2 && a->partial == b->partial && a->history == b->history &&
           a->block.batch == b->block.batch && a->block.rows == b->block.rows && a->block.cols == b->block.cols &&
           a->margin == b->margin && a->history_length == b->history_length &&
           !(a->epsilon < b->epsilon || a->epsilon > b->epsilon) && a->zero_kind == b->zero_kind &&
           a->global_kind == b->global_kind &&
           !(a->global_constant < b->global_constant || a->global_constant > b->global_constant) &&
           same_block(a->global_block, b->global_block);
}

/* One condition of a valid recipe: WANT(field, condition, "what is wrong"). */
#define WANT(field, condition, ...)                                                                                    \
    do {                                                                                                               \
        if (!(condition)) return brci_fail(err, BRC_RECIPE, 0, "recipe: " field ": " __VA_ARGS__);                     \
    } while (0)

/* What ggml has an arithmetic for: integers and its codebook under half-precision scales, MXFP4 and NVFP4. */
static brc_status check_ggml(const brc_recipe *r, const brc_format_info *element, brc_error *err) {
    const int whole = brci_is_integer(element) && element->mantissa_bits == 0, halves = r->scale == BRC_F16;
    const int is_signed = element->family == BRC_INT;
    WANT("rule",
         (r->rule == BRC_RULE_PEAK && whole && is_signed && halves) ||
             (r->rule == BRC_RULE_MINMAX && whole && !is_signed && halves) ||
             (r->rule == BRC_RULE_AMAX && whole && is_signed && halves) ||
             (r->rule == BRC_RULE_AMAX && r->element == BRC_E2M1 && r->scale == BRC_E4M3) ||
             (r->rule == BRC_RULE_FIT && r->element == BRC_IQ4_NL && halves) ||
             (r->rule == BRC_RULE_FLOOR && r->element == BRC_E2M1),
         "arith=ggml takes peak or amax for signed integers, minmax for unsigned ones, fit for iq4_nl, each with f16 "
         "scales; for e2m1 floor with e8m0 and amax with e4m3 scales");
    WANT("levels", r->levels == 1, "arith=ggml has no global scale");
    WANT("zero", r->zero == BRC_NONE || r->zero == BRC_F16, "must be f16 with arith=ggml");
    WANT("block", r->block.batch == 1 && r->block.rows == 1 && r->block.cols >= 1 && r->block.cols <= BRCI_GGML_BLOCK,
         "with arith=ggml 1 to %u columns of one row", BRCI_GGML_BLOCK);
    return BRC_OK;
}

/* MLX's modes: mxfp4, mxfp8, nvfp4 without a global scale, and affine. */
static brc_status check_mlx(const brc_recipe *r, const brc_format_info *element, brc_error *err) {
    const int affine = r->rule == BRC_RULE_MINMAX && element->family == BRC_UINT && element->mantissa_bits == 0;
    WANT("rule",
         (affine && brci_format(r->scale)->role == BRC_HIGH) ||
             (r->rule == BRC_RULE_RCEIL && (r->element == BRC_E2M1 || r->element == BRC_E4M3)) ||
             (r->rule == BRC_RULE_AMAX && r->element == BRC_E2M1 && r->scale == BRC_E4M3),
         "arith=mlx takes rceil for e2m1 and e4m3, amax for e2m1 with e4m3 scales, and minmax for unsigned integers "
         "with f32, f16 or bf16 scales");
    WANT("levels", r->levels == 1, "arith=mlx has no global scale");
    WANT("zero", r->zero == BRC_NONE || r->zero == r->scale, "must be of the scale's format with arith=mlx");
    WANT("block",
         !affine ||
             (r->block.batch == 1 && r->block.rows == 1 && r->block.cols >= 1 && r->block.cols <= BRCI_MLX_BLOCK),
         "with rule=minmax,arith=mlx 1 to %u columns of one row", BRCI_MLX_BLOCK);
    return BRC_OK;
}

static brc_status check_formats(const brc_recipe *r, brc_error *err) {
    const brc_format_info *element = brc_format_get((brc_format)r->element);
    const brc_format_info *scale = brc_format_get((brc_format)r->scale);
    WANT("format", element != NULL && element->role == BRC_ELEMENT && element->family != BRC_EXPONENT,
         "not an element format that can hold a sign and zero");
    WANT("scale",
         r->scale == BRC_F32 || r->scale == BRC_F16 || r->scale == BRC_BF16 || r->scale == BRC_E8M0 ||
             r->scale == BRC_E4M3,
         "must be f32, f16, bf16, e8m0 or e4m3");
    WANT("rule", r->rule < BRC_RULE_COUNT, "there is no rule %u", r->rule);
    WANT("arith", r->arith < BRC_ARITH_COUNT, "there is no arithmetic %u", r->arith);
    WANT("rule", !brci_is_mx_rule(r->rule) || r->scale == BRC_E8M0, "%s gives e8m0 scales, not %s", rule_names[r->rule],
         scale->name);
    WANT("rule", r->rule != BRC_RULE_EVEN || element->family == BRC_FLOAT, "even needs a floating-point element");
    WANT("rule",
         (r->rule != BRC_RULE_NO_CLIP && r->rule != BRC_RULE_MINMAX && r->rule != BRC_RULE_PEAK) ||
             brci_is_integer(element),
         "%s is for integer elements", rule_names[r->rule]);
    WANT("rule", (r->rule != BRC_RULE_PEAK && r->rule != BRC_RULE_FIT) || r->arith == BRC_ARITH_GGML,
         "%s goes with arith=ggml", rule_names[r->rule]);
    WANT("rule", r->rule != BRC_RULE_MINMAX || element->mantissa_bits == 0, "minmax needs whole numbers");
    WANT("zero", (r->rule == BRC_RULE_MINMAX) == (r->zero != BRC_NONE),
         "a zero point goes with rule=minmax and only with it");
    if (r->arith == BRC_ARITH_GGML) return check_ggml(r, element, err);
    if (r->arith == BRC_ARITH_MLX) return check_mlx(r, element, err);
    WANT("zero", r->zero == BRC_NONE || r->zero == (element->family == BRC_INT ? BRC_INT8 : BRC_UINT8),
         "must be int8 for signed and uint8 for unsigned elements");
    return BRC_OK;
}

/* MX rules that some systems carry out in their own way. */
static int is_mx_of_system(const brc_recipe *r) {
    return (r->arith == BRC_ARITH_CT && r->rule == BRC_RULE_EVEN) ||
           (r->arith == BRC_ARITH_MODELOPT && r->rule == BRC_RULE_RCEIL && r->element == BRC_E2M1) ||
           (r->arith == BRC_ARITH_GGML && r->rule == BRC_RULE_FLOOR) ||
           (r->arith == BRC_ARITH_MLX && r->rule == BRC_RULE_RCEIL);
}

static brc_status check_arithmetic(const brc_recipe *r, brc_error *err) {
    const brc_format_info *element = brci_format(r->element);
    int amax_f32 = r->rule == BRC_RULE_AMAX && r->scale == BRC_F32;
    WANT("arith", r->arith != BRC_ARITH_TE || (amax_f32 && element->family == BRC_FLOAT),
         "te is for floating-point elements with f32 scales");
    WANT("arith", r->arith != BRC_ARITH_DEEPGEMM || (r->rule == BRC_RULE_AMAX && element->family == BRC_FLOAT),
         "deepgemm is for floating-point elements with rule=amax");
    WANT("arith", r->arith != BRC_ARITH_DEEPGEMM || r->levels == 1, "deepgemm has no global scale");
    WANT("arith", !brci_is_mx_rule(r->rule) || r->arith == BRC_ARITH_RECIP || is_mx_of_system(r),
         "rule=%s implies its arithmetic", rule_names[r->rule]);
    WANT("arith", r->arith != BRC_ARITH_CT || element->family == BRC_FLOAT,
         "ct is for floating-point elements; compressed-tensors' integers are div");
    WANT("arith", r->arith != BRC_ARITH_CT || brci_is_mx_rule(r->rule) || r->scale != BRC_E8M0,
         "ct has e8m0 scales with rule=even only");
    WANT("arith",
         r->arith != BRC_ARITH_MODELOPT || brci_is_mx_rule(r->rule) ||
             (element->family == BRC_FLOAT ? r->scale == BRC_E4M3
                                           : element->family == BRC_INT && element->mantissa_bits == 0 &&
                                                 r->rule == BRC_RULE_AMAX && r->scale != BRC_E8M0),
         "modelopt is for floating-point elements with e4m3 scales, for e2m1 with rule=rceil, and for signed integers "
         "with "
         "rule=amax");
    WANT("pow2", r->pow2 <= 1, "must be 0 or 1");
    WANT("pow2", !r->pow2 || amax_f32, "is for f32 scales with rule=amax");
    WANT("pow2", !r->pow2 || r->history_length == 0, "delayed scaling keeps the scale of its state");
    WANT("partial", r->partial <= 1, "must be 0 or 1");
    WANT("levels", r->levels == 1 || r->levels == 2, "must be 1 or 2");
    WANT("levels", r->levels == 1 || (r->scale == BRC_E4M3 && r->rule == BRC_RULE_AMAX),
         "2 needs e4m3 scales and rule=amax");
    WANT("margin", r->margin == 0 || r->arith == BRC_ARITH_TE, "is for arith=te");
    WANT("margin", r->margin >= -64 && r->margin <= 64, "must be from -64 to 64");
    WANT("epsilon", r->epsilon >= 0 && r->epsilon <= 3.4028234663852886e38f, "must be finite and not negative");
    WANT("epsilon",
         !(r->epsilon > 0) || r->arith == BRC_ARITH_TE ||
             (r->arith == BRC_ARITH_RECIP && brci_is_integer(element) && !brci_is_mx_rule(r->rule)),
         "is for arith=te, and for integers with arith=recip");
    return BRC_OK;
}

static brc_status check_block(const brc_recipe *r, brc_error *err) {
    WANT("block", r->block.batch <= 1, "the batch side must be 0 or 1");
    WANT("block", r->block.rows <= INT32_MAX && r->block.cols <= INT32_MAX, "a side is too large");
    if (brc_layout_check((brc_layout)r->layout, r->block, err) != BRC_OK) {
        if (err != NULL) err->status = BRC_RECIPE;
        return BRC_RECIPE;
    }
    return BRC_OK;
}

static int holds_numbers(unsigned format) {
    const brc_format_info *f = brc_format_get((brc_format)format);
    return f != NULL && f->bits >= 8 && f->bits <= 32 && f->family != BRC_OPAQUE && f->family != BRC_CODEBOOK;
}

/* What is stored may have any tables that a tensor may have. */
static brc_status check_stored(const brc_recipe *r, brc_error *err) {
    const brc_format_info *element = brc_format_get((brc_format)r->element);
    const int zero_kind = r->zero_kind >= BRC_KIND_CODE && r->zero_kind < BRC_KIND_COUNT;
    WANT("format", element != NULL && element->role == BRC_ELEMENT, "not an element format");
    WANT("scale", holds_numbers(r->scale), "not a format of scales");
    WANT("zero", r->zero == BRC_NONE || (holds_numbers(r->zero) && zero_kind), "not a format and kind of zero points");
    WANT("levels", r->levels == 1 || r->levels == 2, "must be 1 or 2");
    WANT("global", r->levels == 1 || r->global_kind < BRC_KIND_CODE, "not a kind of global scale");
    WANT("global", r->levels == 1 || r->global_kind != BRC_KIND_AMAX || r->global_constant > 0,
         "an amax needs its constant");
    WANT("global", r->global_block.batch <= 1 && r->global_block.rows <= INT32_MAX && r->global_block.cols <= INT32_MAX,
         "a side is too large");
    WANT("pow2", r->pow2 <= 1, "must be 0 or 1");
    WANT("partial", r->partial <= 1, "must be 0 or 1");
    return check_block(r, err);
}

brc_status brc_recipe_check(const brc_recipe *r, brc_error *err) {
    if (r == NULL || r->size < sizeof *r)
        return brci_fail(err, BRC_RECIPE, 0, "recipe: size: missing or of another version");
    if (r->id == BRC_RECIPE_UNKNOWN) return check_stored(r, err);
    WANT("id", r->id < BRC_RECIPE_COUNT || r->id == BRC_RECIPE_CUSTOM, "the recipe %u is unknown", r->id);
    TRY(check_formats(r, err));
    TRY(check_arithmetic(r, err));
    TRY(check_block(r, err));
    WANT("history", r->history <= BRC_HISTORY_MOST_RECENT, "must be max or most_recent");
    WANT("length", r->history_length == 0 || (r->layout == BRC_PER_TENSOR && r->arith == BRC_ARITH_TE),
         "an amax history needs one scale a tensor and arith=te");
    WANT("length", r->history_length <= BRCI_MAX_HISTORY, "must be at most %d", BRCI_MAX_HISTORY);
    WANT("length", r->id != BRC_RECIPE_DELAYED || r->history_length >= 1, "must be at least 1");
    return BRC_OK;
}

brc_status brci_recipe_castable(const brc_recipe *r, brc_error *err) {
    TRY(brc_recipe_check(r, err));
    WANT("id", r->id != BRC_RECIPE_UNKNOWN,
         "it says what stored numbers mean, not how they are made: nothing can be cast to it");
    return BRC_OK;
}

static int same_table(const brc_table *a, const brc_table *b) {
    if (a->format == BRC_NONE || b->format == BRC_NONE) return a->format == b->format;
    return a->format == b->format && a->kind == b->kind && same_block(a->block, b->block) &&
           (a->kind != BRC_KIND_AMAX || !(a->constant < b->constant || a->constant > b->constant));
}

int brc_recipe_describes(const brc_recipe *recipe, const brc_tensor *t) {
    brc_tensor plan;
    if (recipe == NULL || t == NULL) return 0;
    brc_recipe loose = *recipe;
    loose.partial = 1;
    return brc_tensor_plan(&loose, t->rank, t->shape, &plan, NULL, NULL) == BRC_OK && plan.format == t->format &&
           same_table(&plan.scale, &t->scale) && same_table(&plan.global, &t->global) &&
           same_table(&plan.zero, &t->zero);
}

brc_status brc_recipe_of(const brc_tensor *t, brc_recipe *recipe, brc_error *err) {
    if (t == NULL || recipe == NULL) return brci_fail(err, BRC_ARGUMENT, 0, "tensor and recipe must be given");
    *recipe = t->recipe;
    if (recipe->id != BRC_RECIPE_UNKNOWN && brc_recipe_describes(recipe, t)) return BRC_OK;
    const int two_levels = t->global.format != BRC_NONE;
    if (t->zero.format != BRC_NONE && !same_block(t->zero.block, t->scale.block))
        return brci_fail(err, BRC_UNSUPPORTED, 0, "zero points and scales have blocks of different size");
    if (two_levels && t->global.format != BRC_F32)
        return brci_fail(err, BRC_UNSUPPORTED, 0, "a global scale that is no f32");
    *recipe = (brc_recipe){.size = sizeof *recipe,
                           .id = BRC_RECIPE_UNKNOWN,
                           .element = t->format,
                           .scale = t->scale.format,
                           .zero = t->zero.format,
                           .levels = two_levels ? 2 : 1,
                           .layout = t->layout,
                           .pow2 = t->recipe.pow2,
                           .partial = 1,
                           .block = t->scale.block,
                           .zero_kind = t->zero.format != BRC_NONE ? t->zero.kind : 0};
    if (two_levels) {
        recipe->global_kind = t->global.kind;
        recipe->global_constant = t->global.kind == BRC_KIND_AMAX ? t->global.constant : 0;
        recipe->global_block = t->global.block;
    }
    return brc_recipe_check(recipe, err);
}
