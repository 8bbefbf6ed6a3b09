/* SPDX-License-Identifier: Apache-2.0
 * DeepSeek's FP8 checkpoints (V3, V3.1 and those that transformers' FineGrainedFP8Config makes): X.weight F8_E4M3 [N,K]
 * and X.weight_scale_inv, which despite its name multiplies, one for each 128x128 block; edge blocks are partial.
 * Scales are F32 (BF16 in some), or exponents: F8_E8M0, or uint8 where the writer lacked the type. config.json's
 * quantization_config names the block; the shapes must agree with it. */
#include "container/file.h"
#include "dialect/dialect.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK 128u /* both sides, where nothing says otherwise */

static const char scale_suffix[] = "_scale_inv";

/* ------------------------------------------------------------------------------------------------- reading */

/* weight_block_size of config.json: 1 = given, 0 = not given, -1 = something else stands there. null = per tensor =
 * {0,0}. */
static int config_block(const brci_reader *reader, uint32_t block[2]) {
    const json_t *size = json_object_get(reader->quantization, "weight_block_size");
    block[0] = block[1] = 0;
    if (size == NULL) return 0;
    if (json_is_null(size)) return 1;
    for (size_t i = 0; i < 2; i++) {
        const json_t *side = json_array_get(size, i);
        if (json_array_size(size) != 2 || !json_is_integer(side) || json_integer_value(side) < 1 ||
            json_integer_value(side) > INT32_MAX)
            return -1;
        block[i] = (uint32_t)json_integer_value(side);
    }
    return 1;
}

static int64_t ceil_divide(int64_t n, int64_t by) { return n / by + (n % by != 0); }

static int64_t blocks(int64_t n, uint32_t side) { return side == 0 ? 1 : ceil_divide(n, side); }

static int is_scalar(const brc_named_array *scale) {
    return scale->rank == 0 || (scale->rank == 1 && scale->shape[0] == 1);
}

/* Whether blocks of this size give the scale's shape: leading dimensions as the weight's, the last two ceil-divided. */
static int fits(const brc_named_array *weight, const brc_named_array *scale, const uint32_t block[2]) {
    uint32_t r = weight->rank;
    if (block[0] == 0) return is_scalar(scale);
    return scale->rank == r && (r == 2 || memcmp(weight->shape, scale->shape, (r - 2) * sizeof *weight->shape) == 0) &&
           scale->shape[r - 2] == blocks(weight->shape[r - 2], block[0]) &&
           scale->shape[r - 1] == blocks(weight->shape[r - 1], block[1]);
}

/* The same with rows and columns exchanged. */
static int fits_transposed(const brc_named_array *weight, const brc_named_array *scale, const uint32_t block[2]) {
    uint32_t r = weight->rank;
    return block[0] != 0 && r == 2 && scale->rank == 2 && scale->shape[0] == blocks(weight->shape[1], block[1]) &&
           scale->shape[1] == blocks(weight->shape[0], block[0]);
}

/* Whether any block at all could give as many scales along an axis. */
static int possible(int64_t n, int64_t count) {
    if (count < 1 || count > n) return 0;
    return ceil_divide(n, ceil_divide(n, count)) == count;
}

static const char *shape_of(brci_reader *reader, const brc_named_array *a) {
    return brci_pool_shape(reader->pool, a->rank, a->shape);
}

/* Neither the config's block nor 128 gives the scale's shape, or they contradict each other. */
static void refuse_shape(brci_reader *reader, brci_reading *reading, const brc_named_array *weight,
                         const brc_named_array *scale, int given, const uint32_t block[2]) {
    const uint32_t usual[2] = {BLOCK, BLOCK};
    const char *w = shape_of(reader, weight), *s = shape_of(reader, scale);
    const char *says =
        given ? brci_pool_print(reader->pool, "config.json's weight_block_size [%u,%u]", block[0], block[1])
              : "128x128 blocks";
    const uint32_t *tried = given ? block : usual;
    if (given && block[0] == 0) says = "config.json's weight_block_size null (one scale a tensor)";
    if (given && (fits(weight, scale, usual) || is_scalar(scale)))
        brci_refuse(reader, reading, BRC_AMBIGUITY, BRC_AMBIGUOUS,
                    brci_pool_print(reader->pool,
                                    "the scale %s of the weight %s fits %s, but %s contradicts it; correct one of them",
                                    s, w, is_scalar(scale) ? "one scale for the tensor" : "128x128 blocks", says));
    else if (fits_transposed(weight, scale, tried))
        brci_refuse(reader, reading, BRC_ERROR, BRC_SHAPE,
                    brci_pool_print(reader->pool,
                                    "%s is transposed: %s of the weight %s give [%lld,%lld], the scale is %s",
                                    scale->name, says, w, (long long)blocks(weight->shape[0], tried[0]),
                                    (long long)blocks(weight->shape[1], tried[1]), s));
    else if (!given && weight->rank == 2 && scale->rank == 2 && possible(weight->shape[0], scale->shape[0]) &&
             possible(weight->shape[1], scale->shape[1]))
        brci_refuse(
            reader, reading, BRC_AMBIGUITY, BRC_AMBIGUOUS,
            brci_pool_print(reader->pool,
                            "the scale %s of the weight %s fits no 128x128 blocks, and several other sizes; put "
                            "weight_block_size into config.json's quantization_config",
                            s, w));
    else
        brci_refuse(reader, reading, BRC_ERROR, BRC_SHAPE,
                    brci_pool_print(reader->pool, "the scale %s does not belong to the weight %s: it does not fit %s",
                                    s, w, says));
}

/* The block of a weight and its scale; 0 = refused. */
static int find_block(brci_reader *reader, brci_reading *reading, const brc_named_array *weight,
                      const brc_named_array *scale, uint32_t block[2]) {
    static const uint32_t usual[2] = {BLOCK, BLOCK}, whole[2] = {0, 0};
    int given = config_block(reader, block);
    if (given < 0) {
        brci_refuse(reader, reading, BRC_ERROR, BRC_MALFORMED,
                    "config.json's weight_block_size is neither two positive numbers nor null");
        return 0;
    }
    if (given && fits(weight, scale, block)) return 1;
    if (!given && (fits(weight, scale, usual) || is_scalar(scale))) {
        memcpy(block, fits(weight, scale, usual) ? usual : whole, sizeof usual);
        return 1;
    }
    refuse_shape(reader, reading, weight, scale, given, block);
    return 0;
}

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

/* The weight's own format; 0 = refused. */
static int check_weight(brci_reader *reader, brci_reading *reading, const brc_named_array *weight,
                        const brc_named_array *scale) {
    const char *text = NULL;
    brc_status status = BRC_FORMAT;
    if (weight == NULL) {
        text = brci_pool_print(reader->pool, "%s is a scale without its weight: %s is missing", scale->name,
                               reading->entry.name);
        status = BRC_MALFORMED;
    } else if (weight->array.format == BRC_INT8 || weight->array.format == BRC_UINT8) {
        text = brci_pool_print(reader->pool,
                               "%s with %s: not read yet: deepseek's packed FP4 experts, or FP8 codes stored as bytes",
                               brci_array_text(reader->pool, weight), brci_array_text(reader->pool, scale));
        status = BRC_UNSUPPORTED;
    } else if (weight->array.format != BRC_E4M3) {
        text = brci_pool_print(reader->pool, "%s is %s, yet %s is a scale for F8_E4M3 codes", weight->name,
                               weight->dtype, scale->name);
    } else if (weight->rank < 2 || weight->rank > BRC_MAX_RANK) {
        text = brci_pool_print(reader->pool, "%s is %s; blocks need two dimensions", weight->name,
                               brci_array_text(reader->pool, weight));
        status = BRC_SHAPE;
    }
    if (text != NULL) brci_refuse(reader, reading, BRC_ERROR, status, text);
    return text == NULL;
}

/* Whether the numbers are those of the recipe: how they were computed is not known. */
static int is_fp8_block128(const brc_tensor *t) {
    const brc_recipe *r = &brc_recipe_get(BRC_RECIPE_FP8_BLOCK128)->recipe;
    return t->scale.format == r->scale && !t->recipe.pow2 && t->scale.block.rows == r->block.rows &&
           t->scale.block.cols == r->block.cols;
}

static void read_tensor(brci_reader *reader, brci_reading *reading, const brc_named_array *weight,
                        const brc_named_array *scale) {
    brc_tensor *t = &reading->entry.tensor;
    brc_format scale_format;
    uint32_t block[2];
    if (!check_weight(reader, reading, weight, scale) || !find_block(reader, reading, weight, scale, block)) return;
    scale_format = find_scale_format(reader, reading, scale);
    if (scale_format == BRC_NONE) return;
    const brc_block sides = {block[0] != 0, block[0], block[1]};
    const brc_layout layout = block[0] == 0 ? BRC_PER_TENSOR : BRC_PER_BLOCK_MN;
    *t = (brc_tensor){.size = sizeof *t,
                      .format = BRC_E4M3,
                      .rank = (uint8_t)weight->rank,
                      .layout = (uint8_t)layout,
                      .data = weight->array.data};
    memcpy(t->shape, weight->shape, weight->rank * sizeof *t->shape);
    t->row_pitch = t->shape[t->rank - 1];
    t->scale = (brc_table){scale->array.data, (uint8_t)scale_format, BRC_KIND_MULTIPLIER, 0, sides};
    t->recipe = (brc_recipe){.size = sizeof t->recipe,
                             .id = BRC_RECIPE_UNKNOWN,
                             .element = BRC_E4M3,
                             .scale = (uint8_t)scale_format,
                             .levels = 1,
                             .layout = (uint8_t)layout,
                             .pow2 = scale_format == BRC_F32 && says_exponents(reader),
                             .partial = 1,
                             .block = sides};
    reading->entry.evidence =
        block[0] == 0
            ? brci_pool_print(reader->pool, "%s %s: one number", scale->name, brci_array_text(reader->pool, scale))
            : brci_pool_print(reader->pool, "%s %s = ceil(%s / [%u,%u])%s", scale->name,
                              brci_array_text(reader->pool, scale), shape_of(reader, weight), block[0], block[1],
                              json_object_get(reader->quantization, "weight_block_size") != NULL
                                  ? ", as config.json's weight_block_size says"
                                  : "");
    if (is_fp8_block128(t)) reading->entry.recipe = brc_recipe_get(BRC_RECIPE_FP8_BLOCK128)->name;
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

static brc_status read_all(brci_reader *reader, brc_error *err) {
    int any = 0;
    (void)err;
    for (size_t i = 0; i < reader->n; i++) {
        const char *name = brc_file_at(reader->file, i)->name;
        int64_t length = brci_stem(name, scale_suffix);
        brci_reading *reading = length < 0 ? NULL : brci_propose(reader, BRC_DIALECT_DEEPSEEK, name, (size_t)length);
        if (reading == NULL) continue;
        const brc_named_array *weight = brci_take(reader, reading, "data", name, (size_t)length, "");
        const brc_named_array *scale = brci_take(reader, reading, "scale", name, (size_t)length, scale_suffix);
        int64_t module = brci_stem(reading->entry.name, "weight");
        if (module >= 0) brci_take(reader, reading, "activation_scale", name, (size_t)module, "activation_scale");
        read_tensor(reader, reading, weight, scale);
        any |= reading->entry.tensor.format != BRC_NONE;
    }
    if (any) check_fmt(reader);
    return BRC_OK;
}

/* ------------------------------------------------------------------------------------------------- writing */

static brc_status store(const char *name, const brc_tensor *t, const brc_entry *origin, brci_store *store,
                        brc_error *err) {
    const brc_block b = t->scale.block;
    if (t->format != BRC_E4M3 || b.batch != 1 || b.rows != BLOCK || b.cols != BLOCK ||
        t->scale.kind != BRC_KIND_MULTIPLIER || (t->scale.format != BRC_F32 && t->scale.format != BRC_E8M0) ||
        t->global.format != BRC_NONE || t->zero.format != BRC_NONE)
        return brci_fail(err, BRC_UNSUPPORTED, 0,
                         "deepseek stores e4m3 in 128x128 blocks with f32 or e8m0 scales and nothing else; use the "
                         "recipe fp8-block128");
    brci_stored *data = brci_stored_new(store, name, strlen(name), "", (brc_format)t->format);
    data->buffer = BRCI_DATA;
    data->rank = t->rank;
    memcpy(data->shape, t->shape, sizeof data->shape);
    brci_stored *scale = brci_stored_new(store, name, strlen(name), scale_suffix, (brc_format)t->scale.format);
    scale->buffer = BRCI_SCALE;
    const int64_t module = brci_stem(name, "weight");
    if (module >= 0) brci_carry(store, origin, "activation_scale", name, (size_t)module, "activation_scale");
    return brci_table_shape(t, b, &scale->rank, scale->shape, err);
}

/* transformers' FineGrainedFP8Config replaces every linear layer but these by one with scales. */
static json_t *kept_modules(const brci_summary *summary) {
    json_t *modules = json_array();
    for (size_t i = 0; i < summary->n_kept; i++) {
        int64_t length = brci_stem(summary->kept[i], ".weight");
        if (length > 0) json_array_append_new(modules, json_stringn(summary->kept[i], (size_t)length));
    }
    return modules;
}

/* Whether every scale that was written is a power of two. */
static int writes_exponents(const brci_summary *summary) {
    size_t n = 0;
    for (size_t i = 0; i < summary->n_written; i++)
        n += summary->written[i].tensor->recipe.pow2 || summary->written[i].tensor->scale.format == BRC_E8M0;
    return n > 0 && n == summary->n_written;
}

static int config(brci_pool *pool, const brci_summary *summary, brci_text *texts) {
    json_t *object = json_pack("{s:s, s:s, s:s, s:[i,i]}", "quant_method", "fp8", "fmt", "e4m3", "activation_scheme",
                               "dynamic", "weight_block_size", (int)BLOCK, (int)BLOCK);
    json_t *modules = kept_modules(summary);
    if (writes_exponents(summary)) json_object_set_new(object, "scale_fmt", json_string("ue8m0"));
    if (json_array_size(modules) > 0) json_object_set(object, "modules_to_not_convert", modules);
    json_decref(modules);
    char *text = object == NULL ? NULL : json_dumps(object, JSON_INDENT(2));
    const char *made = text == NULL ? NULL : brci_pool_copy(pool, text, strlen(text));
    json_decref(object);
    free(text);
    texts[0] = (brci_text){BRCI_CONFIG_NAME, "quantization_config", made};
    return made == NULL ? -1 : 1;
}

const brci_dialect brci_dialect_DEEPSEEK = {
    .scale_suffix = scale_suffix, .read = read_all, .store = store, .config = config};
