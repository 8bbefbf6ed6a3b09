/* SPDX-License-Identifier: Apache-2.0
 * DeepSeek's checkpoints (V3, V3.1, V4 and those that transformers' FineGrainedFP8Config makes): X.weight F8_E4M3 [N,K]
 * and X.weight_scale_inv (V4: X.scale), which despite its name multiplies, one for each 128x128 block; edge blocks are
 * partial. Scales are F32 (BF16 in some), or exponents: F8_E8M0, or uint8 where the writer lacked the type.
 * config.json's quantization_config names the block; the shapes must agree with it. Experts may be E2M1 in the same
 * file: X.weight I8 [N,K/2], two codes a byte, the even one in the low bits, and an exponent for each 32 of a row. */
#include "dialect/deepseek.h"
#include "container/file.h"
#include "dialect/config_text.h"

#include <string.h>

#define BLOCK BRCI_DEEPSEEK_BLOCK
#define FP4_BLOCK 32

static const char scale_suffix[] = "_scale_inv";
static const char native_suffix[] = ".scale", weight_suffix[] = ".weight"; /* V4: X.scale beside X.weight */

/* ------------------------------------------------------------------------------------------------- reading */

/* Whether config.json says that the scales are powers of two, whatever stores them. */
static int says_exponents(const brci_reader *reader) {
    const char *fmt = json_string_value(json_object_get(reader->quantization, "scale_fmt"));
    return fmt != NULL && strcmp(fmt, "ue8m0") == 0;
}

/* Format of the scales; BRC_NONE = refused. */
static brc_format find_scale_format(brci_reader *reader, brci_reading *reading, const brc_named_array *scale) {
    switch ((brc_format)scale->array.format) {
    case BRC_F32:
    case BRC_F16:
    case BRC_BF16:
    case BRC_E8M0: return (brc_format)scale->array.format;
    case BRC_UINT8:
        if (!says_exponents(reader))
            brci_report(reader, BRC_WARNING, BRC_OK, reading->entry.name,
                        brci_pool_print(reader->pool,
                                        "%s is U8 and read as exponents, 2^(byte - 127); config.json does not say so "
                                        "(scale_fmt \"ue8m0\")",
                                        scale->name));
        return BRC_E8M0;
    default:
        brci_refuse(reader, reading, BRC_ERROR, BRC_FORMAT,
                    brci_pool_print(reader->pool, "%s is %s; a scale is F32, BF16, F16, F8_E8M0 or U8 (exponents)",
                                    scale->name, scale->dtype));
        return BRC_NONE;
    }
}

/* Whether a scale has one number for each FP4_BLOCK of the codes that I8 bytes hold two of: [.., N, K/2] and [.., N,
 * K/32]. */
static int fits_fp4(const brc_named_array *weight, const brc_named_array *scale) {
    const uint32_t r = weight->rank;
    if (r < 2 || r > BRC_MAX_RANK || scale->rank != r || weight->shape[r - 1] > INT64_MAX / 2) return 0;
    const int64_t cols = 2 * weight->shape[r - 1];
    return memcmp(weight->shape, scale->shape, (r - 1) * sizeof *weight->shape) == 0 &&
           scale->shape[r - 1] == cols / FP4_BLOCK + (cols % FP4_BLOCK != 0);
}

static int is_exponents(const brc_named_array *scale) {
    return scale->array.format == BRC_E8M0 || scale->array.format == BRC_UINT8;
}

/* config.json's expert_dtype "fp4": a member of its own, beside quantization_config. */
static int says_fp4(const brci_reader *reader) {
    const char *text = brc_file_config(reader->file), *value = NULL;
    size_t length = 0;
    return text != NULL && brci_config_member(text, "expert_dtype", &value, &length) && value != NULL && length == 5 &&
           memcmp(value, "\"fp4\"", 5) == 0;
}

/* The weight's own format, E4M3 or E2M1; BRC_NONE = refused. */
static brc_format find_format(brci_reader *reader, brci_reading *reading, const brc_named_array *weight,
                              const brc_named_array *scale) {
    const char *text, *w = weight == NULL ? "" : brci_array_text(reader->pool, weight),
                      *s = brci_array_text(reader->pool, scale);
    brc_severity severity = BRC_ERROR;
    brc_status status = BRC_FORMAT;
    if (weight == NULL) {
        text = brci_pool_print(reader->pool, "%s is a scale without its weight: %s is missing", scale->name,
                               reading->entry.name);
        status = BRC_MALFORMED;
    } else if (weight->array.format == BRC_INT8 && fits_fp4(weight, scale)) {
        if (is_exponents(scale) || says_fp4(reader)) return BRC_E2M1;
        text = brci_pool_print(reader->pool,
                               "two readings fit: E2M1 codes, two a byte, in blocks of 32, or 8-bit integers in groups "
                               "of 16 (%s with %s); put \"expert_dtype\": \"fp4\" into config.json if it is the former",
                               w, s);
        severity = BRC_AMBIGUITY;
        status = BRC_AMBIGUOUS;
    } else if (weight->array.format == BRC_INT8 || weight->array.format == BRC_UINT8) {
        text =
            brci_pool_print(reader->pool,
                            "%s with %s: neither F8_E4M3 codes nor E2M1 experts, which are I8 [N,K/2] with one scale "
                            "for each 32 of K",
                            w, s);
    } else if (weight->array.format != BRC_E4M3) {
        text = brci_pool_print(reader->pool, "%s is %s, yet %s is a scale for F8_E4M3 codes", weight->name,
                               weight->dtype, scale->name);
    } else if (weight->rank < 2 || weight->rank > BRC_MAX_RANK) {
        text = brci_pool_print(reader->pool, "%s is %s; blocks need two dimensions", weight->name, w);
        status = BRC_SHAPE;
    } else {
        return BRC_E4M3;
    }
    brci_refuse(reader, reading, severity, status, text);
    return BRC_NONE;
}

/* The name of a recipe whose formats and blocks a tensor has; how its numbers were computed is not known. */
static const char *recipe_of(const brc_tensor *t) {
    static const brc_recipe_id known[] = {BRC_RECIPE_FP8_BLOCK128, BRC_RECIPE_MXFP4};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const brc_recipe_info *info = brc_recipe_get(known[i]);
        const brc_recipe *r = &info->recipe;
        if (t->format == r->element && t->scale.format == r->scale && !t->recipe.pow2 &&
            t->scale.block.rows == r->block.rows && t->scale.block.cols == r->block.cols)
            return info->name;
    }
    return "";
}

/* Fills in a tensor whose codes and scales lie in the file as they are. */
static void set_tensor(const brci_reader *reader, brc_tensor *t, const brc_named_array *weight,
                       const brc_named_array *scale, brc_format format, brc_format scale_format, brc_block block) {
    const brc_layout layout = block.rows == 0 ? BRC_PER_TENSOR : BRC_PER_BLOCK_MN;
    *t = (brc_tensor){.size = sizeof *t,
                      .format = (uint8_t)format,
                      .rank = (uint8_t)weight->rank,
                      .layout = (uint8_t)layout,
                      .data = weight->array.data};
    memcpy(t->shape, weight->shape, weight->rank * sizeof *t->shape);
    t->row_pitch = t->shape[t->rank - 1];
    if (format == BRC_E2M1) t->shape[t->rank - 1] *= 2;
    t->scale = (brc_table){scale->array.data, (uint8_t)scale_format, BRC_KIND_MULTIPLIER, 0, block};
    t->recipe = (brc_recipe){.size = sizeof t->recipe,
                             .id = BRC_RECIPE_UNKNOWN,
                             .element = (uint8_t)format,
                             .scale = (uint8_t)scale_format,
                             .levels = 1,
                             .layout = (uint8_t)layout,
                             .pow2 = scale_format == BRC_F32 && says_exponents(reader),
                             .partial = 1,
                             .block = block};
}

static const char *evidence_of(brci_reader *reader, const brc_tensor *t, const brc_named_array *scale) {
    const brc_block block = t->scale.block;
    const char *text = brci_array_text(reader->pool, scale);
    if (block.rows == 0) return brci_pool_print(reader->pool, "%s %s: one number", scale->name, text);
    return brci_pool_print(reader->pool, "%s %s = ceil(%s / [%u,%u])%s", scale->name, text,
                           brci_pool_shape(reader->pool, t->rank, t->shape), block.rows, block.cols,
                           t->format == BRC_E2M1 ? ", two codes a byte"
                           : json_object_get(reader->quantization, "weight_block_size") != NULL
                               ? ", as config.json's weight_block_size says"
                               : "");
}

static void read_tensor(brci_reader *reader, brci_reading *reading, const brc_named_array *weight,
                        const brc_named_array *scale) {
    brc_block block = {1, 1, FP4_BLOCK};
    uint32_t sides[2];
    const brc_format format = find_format(reader, reading, weight, scale);
    if (format == BRC_NONE) return;
    if (format == BRC_E4M3) {
        if (!brci_deepseek_block(reader, reading, weight, scale, sides)) return;
        block = (brc_block){sides[0] != 0, sides[0], sides[1]};
    }
    const brc_format scale_format = find_scale_format(reader, reading, scale);
    if (scale_format == BRC_NONE) return;
    set_tensor(reader, &reading->entry.tensor, weight, scale, format, scale_format, block);
    reading->entry.evidence = evidence_of(reader, &reading->entry.tensor, scale);
    reading->entry.recipe = recipe_of(&reading->entry.tensor);
    brci_describe(reader->pool, &reading->entry);
}

/* The config's word for the format of the codes; the type in the file decides. */
static void check_fmt(brci_reader *reader) {
    const char *fmt = json_string_value(json_object_get(reader->quantization, "fmt"));
    if (fmt != NULL && strcmp(fmt, "e4m3") != 0)
        brci_report(reader, BRC_WARNING, BRC_OK, "",
                    brci_pool_print(reader->pool,
                                    "config.json's fmt is \"%.40s\", but the codes are F8_E4M3 and read as such", fmt));
}

/* Whether X.scale is the scale of X.weight: a common name, so that it counts only beside codes it fits. */
static int is_native(brci_reader *reader, const char *name, size_t length) {
    const brc_named_array *weight = brci_sibling(reader, name, length, weight_suffix);
    const brc_named_array *scale = brci_sibling(reader, name, length, native_suffix);
    if (weight == NULL || !brci_may_claim(reader, BRC_DIALECT_DEEPSEEK)) return 0;
    return weight->array.format == BRC_E4M3 || (weight->array.format == BRC_INT8 && fits_fp4(weight, scale));
}

/* The reading of the tensor that an array is the scale of; NULL = it is none. */
static brci_reading *read_scale(brci_reader *reader, const char *name) {
    int64_t length = brci_stem(name, scale_suffix), module = -1;
    const char *weight = "", *suffix = scale_suffix;
    if (length < 0) {
        length = brci_stem(name, native_suffix);
        if (length < 0 || !is_native(reader, name, (size_t)length)) return NULL;
        weight = weight_suffix;
        suffix = native_suffix;
    }
    const char *called = brci_pool_print(reader->pool, "%.*s%s", (int)length, name, weight);
    brci_reading *reading = brci_propose(reader, BRC_DIALECT_DEEPSEEK, called, strlen(called));
    if (reading == NULL) return NULL;
    const brc_named_array *data = brci_take(reader, reading, "data", name, (size_t)length, weight);
    const brc_named_array *scale = brci_take(reader, reading, "scale", name, (size_t)length, suffix);
    module = brci_stem(called, "weight");
    if (module >= 0) brci_take(reader, reading, "activation_scale", called, (size_t)module, "activation_scale");
    read_tensor(reader, reading, data, scale);
    return reading;
}

static brc_status read_all(brci_reader *reader, brc_error *err) {
    int any = 0;
    (void)err;
    for (size_t i = 0; i < reader->n; i++) {
        const brci_reading *reading = read_scale(reader, brc_file_at(reader->file, i)->name);
        any |= reading != NULL && reading->entry.tensor.format == BRC_E4M3;
    }
    if (any) check_fmt(reader);
    return BRC_OK;
}

/* ------------------------------------------------------------------------------------------------- writing */

/* What the scales of a source of this dialect are called and typed, where the value says the same of both. */
static void keep_habits(const brc_tensor *t, const brc_entry *origin, const char **suffix, int *cut,
                        brc_format *scale_format, const char *name) {
    const brc_named_array *scale =
        origin == NULL || origin->dialect != BRC_DIALECT_DEEPSEEK ? NULL : brci_part(origin, "scale");
    if (scale == NULL) return;
    if (t->scale.format == BRC_E8M0 && scale->array.format == BRC_UINT8) *scale_format = BRC_UINT8;
    if (brci_stem(scale->name, native_suffix) < 0 || brci_stem(name, weight_suffix) < 0) return;
    *suffix = native_suffix;
    *cut = (int)strlen(weight_suffix);
}

/* Readers expect E2M1 of experts alone. */
static int is_stored(const char *name, const brc_tensor *t, const brc_entry *origin) {
    const brc_block b = t->scale.block;
    const int own = origin != NULL && origin->dialect == BRC_DIALECT_DEEPSEEK; /* config.json has one block for all */
    const brc_format s = (brc_format)t->scale.format;
    if (t->scale.kind != BRC_KIND_MULTIPLIER || t->global.format != BRC_NONE || t->zero.format != BRC_NONE ||
        t->rank < 2)
        return 0;
    if (t->format == BRC_E2M1)
        return (own || strstr(name, "experts") != NULL) && b.rows == 1 && b.cols == FP4_BLOCK && s == BRC_E8M0 &&
               t->shape[t->rank - 1] % 2 == 0;
    if (t->format != BRC_E4M3) return 0;
    if (own) return s == BRC_F32 || s == BRC_E8M0 || s == BRC_BF16 || s == BRC_F16;
    return (s == BRC_F32 || s == BRC_E8M0) && b.batch == 1 && b.rows == BLOCK && b.cols == BLOCK;
}

static brc_status store(const char *name, const brc_tensor *t, const brc_entry *origin, brci_store *store,
                        brc_error *err) {
    const char *suffix = scale_suffix;
    brc_format scale_format = (brc_format)t->scale.format;
    int cut = 0;
    if (!is_stored(name, t, origin))
        return brci_fail(err, BRC_UNSUPPORTED, 0,
                         "deepseek stores e4m3 in 128x128 blocks, with f32 or e8m0 scales, and mxfp4 for experts; use "
                         "recipe fp8-block128");
    keep_habits(t, origin, &suffix, &cut, &scale_format, name);
    const int fp4 = t->format == BRC_E2M1;
    brci_stored *data = brci_stored_new(store, name, strlen(name), "", fp4 ? BRC_INT8 : BRC_E4M3);
    data->buffer = BRCI_DATA;
    data->rank = t->rank;
    memcpy(data->shape, t->shape, sizeof data->shape);
    if (fp4) data->shape[t->rank - 1] /= 2;
    brci_stored *scale = brci_stored_new(store, name, strlen(name) - (size_t)cut, suffix, scale_format);
    scale->buffer = BRCI_SCALE;
    const int64_t module = brci_stem(name, "weight");
    if (module >= 0) brci_carry(store, origin, "activation_scale", name, (size_t)module, "activation_scale");
    return brci_table_shape(t, t->scale.block, &scale->rank, scale->shape, err);
}

/* Whether every scale that was written is a power of two. */
static int writes_exponents(const brci_summary *summary) {
    size_t n = 0;
    for (size_t i = 0; i < summary->n_written; i++)
        n += summary->written[i].tensor->recipe.pow2 || summary->written[i].tensor->scale.format == BRC_E8M0;
    return n > 0 && n == summary->n_written;
}

static int writes_fp4(const brci_summary *summary) {
    for (size_t i = 0; i < summary->n_written; i++)
        if (summary->written[i].tensor->format == BRC_E2M1) return 1;
    return 0;
}

static int config(brci_pool *pool, const brci_summary *summary, brci_text *texts) {
    json_t *object = json_pack("{s:s, s:s, s:s, s:[i,i]}", "quant_method", "fp8", "fmt", "e4m3", "activation_scheme",
                               "dynamic", "weight_block_size", (int)BLOCK, (int)BLOCK);
    if (writes_exponents(summary)) json_object_set_new(object, "scale_fmt", json_string("ue8m0"));
    brci_set_kept_modules(object, "modules_to_not_convert", summary); /* transformers' FineGrainedFP8Config */
    const char *made = brci_json_text(pool, object);
    texts[0] = (brci_text){BRCI_CONFIG_NAME, "quantization_config", made};
    if (made == NULL || !writes_fp4(summary)) return made == NULL ? -1 : 1;
    texts[1] = (brci_text){BRCI_CONFIG_NAME, "expert_dtype", "\"fp4\""};
    return 2;
}

static const char *const recipes[] = {"fp8-block128", "fp8-block128:scale=e8m0,rule=rceil", "mxfp4", NULL};

const brci_dialect brci_dialect_DEEPSEEK = {
    .scale_suffix = scale_suffix, .recipes = recipes, .read = read_all, .store = store, .config = config};
