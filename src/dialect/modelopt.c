/* SPDX-License-Identifier: Apache-2.0
 * NVIDIA ModelOpt's exported checkpoints, read: X.weight with X.weight_scale, NVFP4 with a second scale that
 * multiplies. The arrays tell how a weight is stored; quant_algo of config.json or hf_quant_config.json must agree.
 * Sources: docs/dialects.md, modelopt. */
#include "dialect/modelopt.h"

#include "container/file.h"

#include <string.h>
#include <strings.h>

const brci_mo_format brci_mo_formats[BRCI_MO_KINDS] = {
    /*                     stored     element   scale     block */
    [BRCI_MO_FP8] = {BRC_E4M3, BRC_E4M3, BRC_NONE, {0, 0, 0}},
    [BRCI_MO_FP8_ROW] = {BRC_E4M3, BRC_E4M3, BRC_NONE, {1, 1, 0}},
    [BRCI_MO_FP8_BLOCK] = {BRC_E4M3, BRC_E4M3, BRC_NONE, {1, 128, 128}},
    [BRCI_MO_MXFP8] = {BRC_E4M3, BRC_E4M3, BRC_E8M0, {1, 1, 32}},
    [BRCI_MO_NVFP4] = {BRC_UINT8, BRC_E2M1, BRC_E4M3, {1, 1, 16}},
    [BRCI_MO_MXFP4] = {BRC_UINT8, BRC_E2M1, BRC_E8M0, {1, 1, 32}},
    [BRCI_MO_INT4] = {BRC_UINT8, BRC_INT4, BRC_NONE, {1, 1, BRC_FREE}},
    [BRCI_MO_INT8] = {BRC_INT8, BRC_INT8, BRC_NONE, {1, 1, 0}}};

const brci_mo_algo brci_mo_algos[] = {{"FP8", BRCI_MO_FP8, NULL, 0},
                                      {"FP8_PER_CHANNEL_PER_TOKEN", BRCI_MO_FP8_ROW, NULL, 0},
                                      {"fp8_pb_wo", BRCI_MO_FP8_BLOCK, NULL, 0},
                                      {"fp8_pb_real", BRCI_MO_FP8_BLOCK, NULL, 0},
                                      {"MXFP8", BRCI_MO_MXFP8, NULL, 1},
                                      {"NVFP4_AWQ", BRCI_MO_NVFP4, "pre_quant_scale", 1},
                                      {"NVFP4", BRCI_MO_NVFP4, "input_scale", 1},
                                      {"W4A16_NVFP4", BRCI_MO_NVFP4, NULL, 1},
                                      {"W4A8_NVFP4_FP8", BRCI_MO_NVFP4, NULL, 1},
                                      {"mxfp4", BRCI_MO_MXFP4, NULL, 0},
                                      {"W4A8_MXFP4_FP8", BRCI_MO_MXFP4, NULL, 1},
                                      {"W4A8_AWQ", BRCI_MO_INT4, "inner_scale", 1},
                                      {"W4A16_AWQ", BRCI_MO_INT4, NULL, 1},
                                      {"W8A8_SQ_PER_CHANNEL", BRCI_MO_INT8, "input_scale", 0},
                                      {"W8A16", BRCI_MO_INT8, NULL, 0}};
const size_t brci_mo_n_algos = sizeof brci_mo_algos / sizeof *brci_mo_algos;

/* -------------------------------------------------------------------------------------------- configuration */

const json_t *brci_mo_layer(const json_t *config, const char *tensor) {
    const json_t *layers = json_object_get(config, "quantized_layers");
    const int64_t length = brci_stem(tensor, ".weight");
    if (!json_is_object(layers)) return config;
    return json_object_getn(layers, tensor, length < 0 ? strlen(tensor) : (size_t)length);
}

/* --------------------------------------------------------------------------------------------------- shapes */

/* The shape of the scales of a weight as they are exported: rows without an axis of 1, blocks with two of them, one
 * number for each expert. */
static int fits(const brc_tensor *t, brc_block block, const brc_named_array *scale, int *flat) {
    int64_t shape[BRC_MAX_RANK];
    int rank;
    if (brci_table_shape(t, block, &rank, shape, NULL) != BRC_OK) return 0;
    *flat = brci_table_fits(t, block, scale);
    if (*flat) return 1;
    if (block.rows == 1 && block.cols == 0) return brci_same_shape(rank - 1, shape, scale->rank, scale->shape);
    if (block.rows == 0 && rank == 3) return brci_same_shape(1, shape, scale->rank, scale->shape);
    return block.rows > 1 && rank == 2 && scale->rank == 4 && scale->shape[0] == shape[0] && scale->shape[1] == 1 &&
           scale->shape[2] == shape[1] && scale->shape[3] == 1;
}

static brc_format meaning_of(const brc_named_array *scale) {
    switch ((brc_format)scale->array.format) {
    case BRC_F32:
    case BRC_F16:
    case BRC_BF16: return BRC_NONE;
    case BRC_E4M3: return BRC_E4M3;
    case BRC_UINT8:
    case BRC_E8M0: return BRC_E8M0;
    default: return BRC_FORMAT_COUNT;
    }
}

/* The weight's own shape, if it were of this kind. */
static int logical_shape(const brc_named_array *data, brci_mo_kind kind, brc_tensor *t) {
    if (data->rank < 2 || data->rank > BRC_MAX_RANK) return 0;
    *t = (brc_tensor){.size = sizeof *t, .format = brci_mo_formats[kind].element, .rank = (uint8_t)data->rank};
    memcpy(t->shape, data->shape, data->rank * sizeof *t->shape);
    int64_t *packed = &t->shape[t->rank - (kind == BRCI_MO_INT4 ? 2 : 1)];
    if (*packed > INT64_MAX / 4) return 0;
    if (brci_mo_formats[kind].stored == BRC_UINT8) *packed *= 2;
    t->row_pitch = brc_row_bytes((brc_format)t->format, t->shape[t->rank - 1]);
    return 1;
}

/* Columns of a group that give the scales of packed rows; 0 = none. */
static uint32_t group_of(const brc_tensor *t, const brc_named_array *scale, int64_t given) {
    const int64_t columns = t->shape[t->rank - 1], count = scale->rank == 0 ? 0 : scale->shape[scale->rank - 1];
    const int64_t group = given > 0 ? given : count > 0 && columns % count == 0 ? columns / count : 0;
    return group > INT32_MAX ? 0 : (uint32_t)group;
}

/* ------------------------------------------------------------------------------------------------ one tensor */

typedef struct arrays {
    brci_reader *reader;
    brci_reading *reading;
    const json_t *layer; /* what the configuration says of it */
    const brc_named_array *data, *scale, *second;
} arrays;

/* Columns of a group as the configuration has them, 0 = it does not say: beside quant_algo, or among the arguments of
 * its only group. */
static int64_t said_group(const arrays *a) {
    const json_int_t said = json_integer_value(json_object_get(a->layer, "group_size"));
    if (said > 0) return said;
    return json_integer_value(json_object_get(brci_quantization_weights(a->reader->quantization), "group_size"));
}

/* Whether the arrays are those of a kind; fills in shape and block. */
static int is_kind(const arrays *a, brci_mo_kind kind, brc_tensor *t, brc_block *block, int *flat) {
    const brci_mo_format *f = &brci_mo_formats[kind];
    if (f->stored != a->data->array.format || f->scale != meaning_of(a->scale) || !logical_shape(a->data, kind, t))
        return 0;
    *block = f->block;
    if (block->cols == BRC_FREE) block->cols = group_of(t, a->scale, said_group(a));
    if (kind == BRCI_MO_FP8 && t->rank == 3 && !fits(t, *block, a->scale, flat)) *block = (brc_block){1, 0, 0};
    return (kind != BRCI_MO_INT4 || block->cols != 0) && fits(t, *block, a->scale, flat);
}

static const brci_mo_algo *algo_of(const json_t *layer) {
    const char *word = json_string_value(json_object_get(layer, "quant_algo"));
    for (size_t i = 0; word != NULL && i < brci_mo_n_algos; i++)
        if (strcasecmp(brci_mo_algos[i].word, word) == 0) return &brci_mo_algos[i];
    return NULL;
}

static int refuse(arrays *a, brc_severity severity, brc_status status, const char *text) {
    brci_refuse(a->reader, a->reading, severity, status, text);
    return 0;
}

/* The kind that fits, and that the configuration does not deny; BRCI_MO_KINDS = refused. */
static brci_mo_kind find_kind(arrays *a, brc_tensor *t, brc_block *block, int *flat) {
    brci_pool *pool = a->reader->pool;
    const char *word = json_string_value(json_object_get(a->layer, "quant_algo"));
    const brci_mo_algo *said = algo_of(a->layer);
    const char *has = brci_pool_print(pool, "%s %s with %s %s", a->data->name, brci_array_text(pool, a->data),
                                      a->scale->name, brci_array_text(pool, a->scale));
    const int64_t group = said_group(a) > INT32_MAX ? 0 : said_group(a);
    brci_mo_kind kind = BRCI_MO_FP8;
    if (said != NULL && is_kind(a, said->kind, t, block, flat)) {
        const int64_t cols = block->rows == 1 && block->cols > 1 ? block->cols : group;
        if (group <= 0 || group == cols) return said->kind;
        (void)refuse(a, BRC_AMBIGUITY, BRC_AMBIGUOUS,
                     brci_pool_print(pool,
                                     "the configuration says groups of %lld, but %s gives groups of %lld; correct one "
                                     "of them",
                                     (long long)group, has, (long long)cols));
        return BRCI_MO_KINDS;
    }
    while (kind < BRCI_MO_KINDS && !is_kind(a, kind, t, block, flat)) kind++;
    if (kind < BRCI_MO_KINDS && word == NULL) return kind;
    if (kind < BRCI_MO_KINDS) {
        (void)refuse(
            a, BRC_AMBIGUITY, BRC_AMBIGUOUS,
            brci_pool_print(pool, "the configuration says quant_algo %.40s%s, but %s is another; correct one of them",
                            word, said == NULL ? ", which is not known" : "", has));
        return BRCI_MO_KINDS;
    }
    for (kind = said != NULL ? said->kind : BRCI_MO_FP8; kind < BRCI_MO_KINDS; kind++) {
        const brci_mo_format *f = &brci_mo_formats[kind];
        if (f->stored != a->data->array.format || f->scale != meaning_of(a->scale) || !logical_shape(a->data, kind, t))
            continue;
        brc_block expected = f->block;
        if (expected.cols == BRC_FREE) expected.cols = group > 0 ? (uint32_t)group : 128;
        a->reading->entry.tensor = *t;
        brci_refuse_table(a->reader, a->reading, a->scale, said != NULL ? &expected : NULL,
                          said != NULL ? said->word : "");
        return BRCI_MO_KINDS;
    }
    (void)refuse(a, BRC_ERROR, BRC_FORMAT, brci_pool_print(pool, "%s: ModelOpt stores no weight so", has));
    return BRCI_MO_KINDS;
}

/* NVFP4's second scale multiplies. INT4's, of W4A8_AWQ, is the one of FP8 values within a kernel: the value has no use
 * for it. */
static int bind_second(arrays *a, brci_mo_kind kind, brc_tensor *t) {
    brci_pool *pool = a->reader->pool;
    const brc_block whole = {0, 0, 0}, each = {1, 0, 0};
    int unused;
    if (kind == BRCI_MO_INT4) return 1;
    if (kind != BRCI_MO_NVFP4)
        return a->second == NULL || refuse(a, BRC_ERROR, BRC_MALFORMED,
                                           brci_pool_print(pool, "%s has no place beside %s", a->second->name,
                                                           brci_array_text(pool, a->data)));
    if (a->second == NULL)
        return refuse(a, BRC_ERROR, BRC_MALFORMED, "its weight_scale_2 is missing: without it the data means nothing");
    const int one = fits(t, whole, a->second, &unused);
    if (a->second->array.format != BRC_F32 || (!one && (t->rank != 3 || !fits(t, each, a->second, &unused))))
        return refuse(
            a, BRC_ERROR, BRC_SHAPE,
            brci_pool_print(pool, "%s is %s; it must be one F32", a->second->name, brci_array_text(pool, a->second)));
    t->global = (brc_table){a->second->array.data, BRC_F32, BRC_KIND_MULTIPLIER, 0, one ? whole : each};
    return 1;
}

static void read_tensor(arrays *a) {
    brci_pool *pool = a->reader->pool;
    brci_mo_layout *layout = brci_pool_alloc(pool, sizeof *layout);
    brc_tensor *t = &a->reading->entry.tensor, found;
    brc_block block;
    int flat = 0;
    if (layout == NULL) return;
    if (a->scale == NULL) {
        (void)refuse(a, BRC_ERROR, BRC_MALFORMED, "its weight_scale is missing: without it the data means nothing");
        return;
    }
    const brci_mo_kind kind = find_kind(a, &found, &block, &flat);
    if (kind == BRCI_MO_KINDS) return;
    *t = found;
    const brci_mo_format *f = &brci_mo_formats[kind];
    const brc_format scale = f->scale != BRC_NONE ? (brc_format)f->scale : (brc_format)a->scale->array.format;
    t->layout = (uint8_t)brci_layout_of(block, f->scale != BRC_NONE);
    t->scale = (brc_table){a->scale->array.data, (uint8_t)scale, BRC_KIND_MULTIPLIER, 0, block};
    if (!bind_second(a, kind, t)) return;
    t->data = kind == BRCI_MO_INT4 ? NULL : a->data->array.data;
    t->recipe = brci_recipe_of(t);
    *layout = (brci_mo_layout){kind, flat};
    a->reading->detail = layout;
    const char *word = json_string_value(json_object_get(a->layer, "quant_algo"));
    a->reading->entry.evidence =
        brci_pool_print(pool, "%s %s, %s %s: one scale for each %s of %s%s%s", a->data->name,
                        brci_array_text(pool, a->data), a->scale->name, brci_array_text(pool, a->scale),
                        brci_block_text(pool, block, t->rank), brci_pool_shape(pool, t->rank, t->shape),
                        word == NULL ? "" : ", as quant_algo says: ", word == NULL ? "" : word);
    brci_describe(pool, &a->reading->entry);
}

/* A residual of low rank is part of the weight's value, and has no place in a scaled tensor. */
static int has_residual(arrays *a, const char *name, size_t module) {
    if (brci_sibling(a->reader, name, module, "svdquant_lora_a") == NULL) return 0;
    (void)refuse(a, BRC_ERROR, BRC_UNSUPPORTED,
                 "not read: SVDQuant's residual (svdquant_lora_a, svdquant_lora_b) is part of its value");
    return 1;
}

static void read_arrays(brci_reader *reader, const json_t *config, const brc_named_array *data) {
    const size_t length = strlen(data->name);
    brci_reading *reading = brci_propose(reader, BRC_DIALECT_MODELOPT, data->name, length);
    if (reading == NULL) return;
    arrays a = {.reader = reader, .reading = reading, .layer = brci_mo_layer(config, data->name)};
    a.data = brci_take(reader, reading, "data", data->name, length, "");
    a.scale = brci_take(reader, reading, "scale", data->name, length, "_scale");
    const int codes_of_four = data->array.format == BRC_UINT8 && a.scale != NULL && meaning_of(a.scale) == BRC_NONE;
    a.second =
        brci_take(reader, reading, codes_of_four ? "inner_scale" : "global_scale", data->name, length, "_scale_2");
    const int64_t module = brci_stem(data->name, "weight");
    if (module >= 0) {
        brci_take(reader, reading, "input_scale", data->name, (size_t)module, "input_scale");
        brci_take(reader, reading, "pre_quant_scale", data->name, (size_t)module, "pre_quant_scale");
        if (has_residual(&a, data->name, (size_t)module)) return;
    }
    read_tensor(&a);
}

/* ------------------------------------------------------------------------------------------------ all arrays */

/* Whether the arrays fit, where nothing but their shapes says whose they are. */
static int could_be(brci_reader *reader, const brc_named_array *data, const brc_named_array *scale) {
    arrays a = {.reader = reader, .data = data, .scale = scale};
    brc_tensor t;
    brc_block block;
    int flat;
    for (brci_mo_kind kind = BRCI_MO_FP8; kind < BRCI_MO_KINDS; kind++)
        if (is_kind(&a, kind, &t, &block, &flat)) return 1;
    return 0;
}

static int is_mine(brci_reader *reader, const brc_named_array *data, int said) {
    const size_t length = strlen(data->name);
    const unsigned format = data->array.format;
    if (format != BRC_E4M3 && format != BRC_INT8 && format != BRC_UINT8) return 0;
    const int64_t module = brci_stem(data->name, "weight");
    const brc_named_array *scale = brci_sibling(reader, data->name, length, "_scale");
    if (!said && brci_is_comfyui(reader, data->name)) return 0;
    if (scale == NULL) return said && module >= 0 && data->rank >= 2 && format != BRC_E4M3;
    if (said || brci_sibling(reader, data->name, length, "_scale_2") != NULL) return 1;
    return brci_may_claim(reader, BRC_DIALECT_MODELOPT) && could_be(reader, data, scale);
}

static brc_status read_all(brci_reader *reader, brc_error *err) {
    const int said = reader->forced == BRC_DIALECT_MODELOPT ||
                     (reader->forced == BRC_DIALECT_COUNT && brci_method_dialect(reader) == BRC_DIALECT_MODELOPT);
    const json_t *config = said ? brci_quantization_members(reader->quantization) : NULL;
    (void)err;
    for (size_t i = 0; i < reader->n; i++) {
        const brc_named_array *data = brc_file_at(reader->file, i);
        if (is_mine(reader, data, said)) read_arrays(reader, config, data);
    }
    return BRC_OK;
}

/* Two rows a byte -> rows of pairs. */
static brc_status load(const brci_reading *reading, brc_owned *owned, brc_error *err) {
    const brc_named_array *data = brci_part(&reading->entry, "data"), *scale = brci_part(&reading->entry, "scale");
    TRY(brci_owned_of(&reading->entry.tensor, 0, owned, err));
    const brc_tensor *t = &owned->tensor;
    const int64_t columns = t->shape[t->rank - 1], rows = columns == 0 ? 0 : data->bytes / columns * 2;
    if (scale->bytes > 0) memcpy(t->scale.data, scale->array.data, (size_t)scale->bytes);
    for (int64_t n = 0; n < rows; n++) {
        const uint8_t *from = (const uint8_t *)data->array.data + n / 2 * columns;
        uint8_t *to = (uint8_t *)t->data + n * t->row_pitch;
        for (int64_t k = 0; k < columns; k++) to[k / 2] |= (uint8_t)((from[k] >> (n % 2 * 4) & 15) << (k % 2 * 4));
    }
    return BRC_OK;
}

static const char *const recipes[] = {"fp8:arith=div",
                                      "fp8-row",
                                      "fp8-block128",
                                      "mxfp8",
                                      "nvfp4:arith=modelopt",
                                      "mxfp4:arith=modelopt",
                                      "int8:arith=modelopt",
                                      "int4:arith=modelopt,scale=f32",
                                      NULL};

const brci_dialect brci_dialect_MODELOPT = {.scale_suffix = "_scale",
                                            .global_kind = BRC_KIND_MULTIPLIER,
                                            .recipes = recipes,
                                            .read = read_all,
                                            .load = load,
                                            .store = brci_mo_store,
                                            .config = brci_mo_texts};
