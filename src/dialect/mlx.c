/* SPDX-License-Identifier: Apache-2.0
 * MLX (mlx.nn.quantize): X.weight U32 [.., N, K*bits/32], each row one little-endian stream of codes, with
 *     affine        X.scales and X.biases F32, F16 or BF16 [.., N, K/group]: value = code * scale + bias; the scale may
 *                   be negative
 *     mxfp4, mxfp8  X.scales U8, exponents [.., N, K/32]
 *     nvfp4         X.scales U8, E4M3 [.., N, K/16]
 * config.json's "quantization" (and the same again as "quantization_config") says {"group_size", "bits", "mode"}, for
 * all layers and, under a layer's own name, for that one. The shapes must agree; without it they decide where only one
 * reading fits. Limit: 8 MiB of "quantization". */
#include "dialect/mlx.h"

#include "dialect/config_text.h"

#include <string.h>

#define QUANTIZATION_LIMIT ((size_t)8 << 20)
#define WORD_BITS 32

const char brci_mlx_key[] = "quantization";

const brci_mlx_mode brci_mlx_modes[BRCI_MLX_MODES] = {{{"mxfp4", 32, 4}, BRC_E2M1, BRC_E8M0},
                                                      {{"mxfp8", 32, 8}, BRC_E4M3, BRC_E8M0},
                                                      {{"nvfp4", 16, 4}, BRC_E2M1, BRC_E4M3}};
static const char affine[] = "affine";
static const int groups[] = {32, 64, 128};
static const struct {
    int bits;
    brc_format element;
} widths[] = {{2, BRC_UINT2}, {3, BRC_UINT3}, {4, BRC_UINT4}, {5, BRC_UINT5}, {6, BRC_UINT6}, {8, BRC_UINT8}};
#define GROUPS (sizeof groups / sizeof *groups)
#define WIDTHS (sizeof widths / sizeof *widths)

brc_format brci_mlx_element(int64_t bits) {
    for (size_t i = 0; i < WIDTHS; i++)
        if (widths[i].bits == bits) return widths[i].element;
    return BRC_NONE;
}

int brci_mlx_is_group(int64_t group) {
    for (size_t i = 0; i < GROUPS; i++)
        if (groups[i] == group) return 1;
    return 0;
}

/* ------------------------------------------------------------------------------------------------- the config */

/* "quantization" of config.json, else "quantization_config" if MLX wrote it, else the pair of __metadata__; NULL =
 * none. */
static json_t *read_config(const brci_reader *reader) {
    const char *text = brc_file_config(reader->file), *value = NULL;
    size_t length = 0;
    if (text != NULL && !brci_config_member(text, brci_mlx_key, &value, &length)) return NULL;
    if (value == NULL && reader->method == NULL && json_object_get(reader->quantization, "bits") != NULL)
        return json_incref(reader->quantization);
    if (value == NULL) {
        value = brc_file_metadata(reader->file, brci_mlx_key);
        length = value == NULL ? 0 : strlen(value);
    }
    json_t *config =
        value == NULL || length > QUANTIZATION_LIMIT ? NULL : json_loadb(value, length, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(config)) return config;
    json_decref(config);
    return NULL;
}

/* One layer, being read. */
typedef struct layer {
    brci_reader *reader;
    brci_reading *reading;
    const brc_named_array *weight, *scales, *biases; /* biases may be NULL */
    const char *module;
    const json_t *config; /* of the whole checkpoint; NULL = none */
    brci_mlx found;
} layer;

static int refuse(layer *l, brc_severity severity, brc_status status, const char *text) {
    brci_refuse(l->reader, l->reading, severity, status, text);
    return 0;
}
#define REFUSE(l, status, ...) refuse(l, BRC_ERROR, status, brci_pool_print((l)->reader->pool, __VA_ARGS__))

static const char *array_text(const layer *l, const brc_named_array *a) { return brci_array_text(l->reader->pool, a); }

/* A member for this layer, else for all. */
static const json_t *setting(const layer *l, const char *key) {
    const json_t *own = json_object_get(json_object_get(l->config, l->module), key);
    return own != NULL ? own : json_object_get(l->config, key);
}

/* ------------------------------------------------------------------------------------------------- the shapes */

static int64_t last(const brc_named_array *a) { return a->shape[a->rank - 1]; }

/* Whether words and scales are those of a mode: words * 32 = K * bits and groups * group = K. */
static int fits(const layer *l, int group, int bits) {
    int64_t stream, columns;
    return !__builtin_mul_overflow(last(l->weight), WORD_BITS, &stream) && stream % bits == 0 &&
           !__builtin_mul_overflow(last(l->scales), group, &columns) && columns == stream / bits;
}

static int is_high(const brc_named_array *a) {
    return a->array.format == BRC_F32 || a->array.format == BRC_F16 || a->array.format == BRC_BF16;
}

/* Arrays of the kinds that some mode has, each row of words with its row of scales. */
static int check_arrays(layer *l) {
    const brc_named_array *w = l->weight, *s = l->scales, *b = l->biases;
    if (w->rank < 2 || w->rank > BRC_MAX_RANK || s->rank != w->rank ||
        !brci_same_shape(w->rank - 1, w->shape, s->rank - 1, s->shape))
        return REFUSE(l, BRC_SHAPE, "%s %s has not the rows of %s %s", s->name, array_text(l, s), w->name,
                      array_text(l, w));
    if (s->array.format != BRC_UINT8 && !is_high(s))
        return REFUSE(l, BRC_FORMAT, "%s is %s; MLX has F32, F16 or BF16 there, or U8 (mxfp4, mxfp8, nvfp4)", s->name,
                      s->dtype);
    if (s->array.format == BRC_UINT8 && b != NULL)
        return REFUSE(l, BRC_FORMAT, "%s is U8, as in modes without biases, but %s is there", s->name, b->name);
    if (s->array.format != BRC_UINT8 && b == NULL)
        return REFUSE(l, BRC_MALFORMED, "%s %s needs biases, and %s.biases is missing", s->name, array_text(l, s),
                      l->module);
    if (b != NULL && b->array.format != s->array.format)
        return REFUSE(l, BRC_FORMAT, "%s is %s, but %s is %s", b->name, b->dtype, s->name, s->dtype);
    if (b != NULL && !brci_same_shape(s->rank, s->shape, b->rank, b->shape))
        return REFUSE(l, BRC_SHAPE, "%s %s has not the shape of %s %s", b->name, array_text(l, b), s->name,
                      array_text(l, s));
    return 1;
}

/* By the config: -1 = refused, 0 = it says nothing. */
static int take_config(layer *l) {
    const json_t *group = setting(l, "group_size"), *bits = setting(l, "bits"), *mode = setting(l, "mode");
    const char *word = mode == NULL || json_is_null(mode) ? NULL : json_string_value(mode);
    const int is_fp = l->scales->array.format == BRC_UINT8;
    if (group == NULL && bits == NULL && mode == NULL) return 0;
    l->found = (brci_mlx){affine, (int)json_integer_value(group), (int)json_integer_value(bits)};
    for (int i = 0; i < BRCI_MLX_MODES; i++) {
        const brci_mlx m = brci_mlx_modes[i].mlx;
        /* older writers gave no mode: U8 scales, group and bits tell */
        if (word != NULL ? strcmp(word, m.mode) == 0 : is_fp && m.group == l->found.group && m.bits == l->found.bits) {
            if (group == NULL) l->found.group = m.group;
            if (bits == NULL) l->found.bits = m.bits;
            if (l->found.group == m.group && l->found.bits == m.bits) l->found.mode = m.mode;
        }
    }
    const int known = word == NULL || strcmp(word, l->found.mode) == 0;
    if (!known || !json_is_integer(group == NULL ? bits : group) || !json_is_integer(bits == NULL ? group : bits) ||
        (l->found.mode == affine && (l->found.bits < 1 || l->found.group < 1))) {
        REFUSE(l, BRC_MALFORMED,
               "the config says group_size %lld, bits %lld, mode \"%.20s\" of %s: MLX has no such mode",
               (long long)json_integer_value(group), (long long)json_integer_value(bits), word == NULL ? "" : word,
               l->module);
        return -1;
    }
    if ((l->found.mode != affine) != is_fp) {
        REFUSE(l, BRC_FORMAT, "the config says mode %s, but %s is %s%s", l->found.mode, l->scales->name,
               array_text(l, l->scales), is_fp ? "" : ", with biases");
        return -1;
    }
    if (fits(l, l->found.group, l->found.bits)) return 1;
    REFUSE(
        l, BRC_SHAPE,
        "the config says group_size %d, bits %d of %s, but %s %s and %s %s are of other groups or widths; correct one "
        "of them",
        l->found.group, l->found.bits, l->module, l->weight->name, array_text(l, l->weight), l->scales->name,
        array_text(l, l->scales));
    return -1;
}

/* By the shapes alone: words a group tell the modes with U8 scales apart, but not all affine ones. */
static int take_shapes(layer *l) {
    const char *texts = "";
    int n = 0;
    if (l->scales->array.format == BRC_UINT8) {
        for (int i = 0; i < BRCI_MLX_MODES; i++) {
            const brci_mlx m = brci_mlx_modes[i].mlx;
            if (!fits(l, m.group, m.bits)) continue;
            l->found = m;
            return 1;
        }
    } else {
        for (size_t i = 0; i < GROUPS * WIDTHS; i++) {
            const int group = groups[i / WIDTHS], bits = widths[i % WIDTHS].bits;
            if (!fits(l, group, bits)) continue;
            l->found = (brci_mlx){affine, group, bits};
            texts = brci_pool_print(l->reader->pool, "%s%s%d bits in groups of %d", texts, n == 0 ? "" : ", or ", bits,
                                    group);
            n++;
        }
    }
    if (n == 1) return 1;
    if (n == 0)
        return REFUSE(l, BRC_SHAPE, "%s %s and %s %s are of no mode of MLX", l->weight->name, array_text(l, l->weight),
                      l->scales->name, array_text(l, l->scales));
    return refuse(l, BRC_AMBIGUITY, BRC_AMBIGUOUS,
                  brci_pool_print(l->reader->pool,
                                  "%s %s and %s %s: %s; put \"quantization\":{\"group_size\":..,\"bits\":..} into "
                                  "config.json",
                                  l->weight->name, array_text(l, l->weight), l->scales->name, array_text(l, l->scales),
                                  texts));
}

/* ------------------------------------------------------------------------------------------------- reading */

static void bind(layer *l, brc_format element, brc_format scale, int by_config) {
    brc_tensor *t = &l->reading->entry.tensor;
    const brc_block block = {1, 1, (uint32_t)l->found.group};
    const brc_layout layout = brci_layout_of(block, l->found.mode != affine);
    *t = (brc_tensor){.size = sizeof *t,
                      .format = (uint8_t)element,
                      .rank = (uint8_t)l->weight->rank,
                      .layout = (uint8_t)layout,
                      .data = l->weight->array.data,
                      .row_pitch = last(l->weight) * (WORD_BITS / 8)};
    memcpy(t->shape, l->weight->shape, l->weight->rank * sizeof *t->shape);
    t->shape[t->rank - 1] = last(l->weight) * WORD_BITS / l->found.bits;
    t->scale = (brc_table){l->scales->array.data, (uint8_t)scale, BRC_KIND_MULTIPLIER, 0, block};
    t->recipe = (brc_recipe){.size = sizeof t->recipe,
                             .id = BRC_RECIPE_UNKNOWN,
                             .element = (uint8_t)element,
                             .scale = (uint8_t)scale,
                             .levels = 1,
                             .layout = (uint8_t)layout,
                             .block = block};
    if (l->biases != NULL) {
        t->zero = (brc_table){l->biases->array.data, (uint8_t)scale, BRC_KIND_REAL, 0, block};
        t->recipe.zero = (uint8_t)scale;
        t->recipe.zero_kind = BRC_KIND_REAL;
    }
    l->reading->entry.evidence =
        brci_pool_print(l->reader->pool, "%s %s and %s %s: MLX's %s, %d bits in groups of %d%s", l->weight->name,
                        array_text(l, l->weight), l->scales->name, array_text(l, l->scales), l->found.mode,
                        l->found.bits, l->found.group, by_config ? ", as the config says" : "");
    l->reading->entry.recipe = brci_row_name(t);
    brci_describe(l->reader->pool, &l->reading->entry);
}

static void read_layer(layer *l) {
    int by_config;
    if (!check_arrays(l) || (by_config = take_config(l)) < 0 || (!by_config && !take_shapes(l))) return;
    if (l->found.mode == affine) {
        const brc_format element = brci_mlx_element(l->found.bits);
        if (element == BRC_NONE || !brci_mlx_is_group(l->found.group))
            REFUSE(l, BRC_UNSUPPORTED, "MLX's affine codes of %d bits in groups of %d are not read", l->found.bits,
                   l->found.group);
        else bind(l, element, (brc_format)l->scales->array.format, by_config);
        return;
    }
    for (int i = 0; i < BRCI_MLX_MODES; i++)
        if (strcmp(brci_mlx_modes[i].mlx.mode, l->found.mode) == 0)
            bind(l, (brc_format)brci_mlx_modes[i].element, (brc_format)brci_mlx_modes[i].scale, by_config);
}

static int is_words(const brc_named_array *a) {
    return a != NULL && (a->array.format == BRC_UINT32 || a->array.format == BRC_INT32);
}

/* Packed words without their scales, or scales without words, in a checkpoint of MLX. */
static void report_orphan(layer *l, const brc_named_array *array, size_t length, const char *suffix) {
    const char *name = brci_pool_print(l->reader->pool, "%.*s.weight", (int)length, array->name);
    l->reading = brci_propose(l->reader, BRC_DIALECT_MLX, name, strlen(name));
    if (l->reading == NULL) return;
    brci_take(l->reader, l->reading, is_words(array) ? "data" : "scale", array->name, strlen(array->name), "");
    REFUSE(l, BRC_MALFORMED, "%s, but %.*s%s is missing", array_text(l, array), (int)length, array->name, suffix);
}

static brc_status read_all(brci_reader *reader, brc_error *err) {
    json_t *config = read_config(reader);
    int any = reader->forced == BRC_DIALECT_MLX || json_object_get(config, "bits") != NULL;
    (void)err;
    for (size_t i = 0; i < reader->n && brci_may_claim(reader, BRC_DIALECT_MLX); i++) {
        const brc_named_array *scales = brc_file_at(reader->file, i);
        const int64_t length = brci_stem(scales->name, ".scales");
        if (length < 1 || !is_words(brci_sibling(reader, scales->name, (size_t)length, ".weight"))) continue;
        layer l = {.reader = reader, .config = config};
        l.module = brci_pool_copy(reader->pool, scales->name, (size_t)length);
        const char *name = brci_pool_print(reader->pool, "%s.weight", l.module);
        l.reading = brci_propose(reader, BRC_DIALECT_MLX, name, strlen(name));
        if (l.reading == NULL) break;
        l.weight = brci_take(reader, l.reading, "data", name, strlen(name), "");
        l.scales = brci_take(reader, l.reading, "scale", scales->name, strlen(scales->name), "");
        l.biases = brci_take(reader, l.reading, "zero_point", scales->name, (size_t)length, ".biases");
        read_layer(&l);
        any = 1;
    }
    for (size_t i = 0; i < reader->n && any && brci_may_claim(reader, BRC_DIALECT_MLX); i++) {
        const brc_named_array *array = brc_file_at(reader->file, i);
        const int64_t weight = brci_stem(array->name, ".weight"), scales = brci_stem(array->name, ".scales");
        layer l = {.reader = reader, .config = config};
        if (weight > 0 && is_words(array) && array->rank >= 2 &&
            brci_sibling(reader, array->name, (size_t)weight, ".scales") == NULL)
            report_orphan(&l, array, (size_t)weight, ".scales");
        if (scales > 0 && array->rank >= 2 && brci_sibling(reader, array->name, (size_t)scales, ".weight") == NULL &&
            brci_sibling(reader, array->name, (size_t)scales, ".qweight") == NULL)
            report_orphan(&l, array, (size_t)scales, ".weight");
    }
    json_decref(config);
    return BRC_OK;
}

/* The pair that stands in for config.json. */
static int64_t describes(const char *key, const char *value) {
    return strcmp(key, brci_mlx_key) == 0 && strstr(value, "\"group_size\"") != NULL ? 0 : -1;
}

/* MLX's own default, then what may keep the values of others. */
static const char *const recipes[] = {"int4:format=uint4,group=64,scale=bf16,rule=minmax,arith=mlx", "mxfp8:arith=mlx",
                                      "mxfp4:arith=mlx", "nvfp4:levels=1,arith=mlx", NULL};

const brci_dialect brci_dialect_MLX = {.signed_scales = 1,
                                       .recipes = recipes,
                                       .read = read_all,
                                       .store = brci_mlx_store,
                                       .config = brci_mlx_config,
                                       .describes = describes};
