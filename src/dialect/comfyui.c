/* SPDX-License-Identifier: Apache-2.0
 * ComfyUI's files, read. X.weight has a description: the JSON text X.comfy_quant, or X in the layers that the pair
 * _quantization_metadata of the file lists. Its "format" says what the scales are; in older files X.scale_weight does,
 * beside FP8 codes. Sources: docs/dialects.md, comfyui.
 * Limits: 64 KiB of a description, 16 MiB of the pair. */
#include "dialect/comfyui.h"

#include "dialect/packing.h"

#include <stdlib.h>
#include <string.h>

#define TEXT_LIMIT ((int64_t)64 << 10)
#define PAIR_LIMIT ((size_t)16 << 20)

const brci_comfy_format brci_comfy_formats[] = {
    /*                 stored      element   scale     rows block        side */
    {"float8_e4m3fn", BRC_E4M3, BRC_E4M3, BRC_NONE, 0, {0, 0, 0}, 1},
    {"float8_e5m2", BRC_E5M2, BRC_E5M2, BRC_NONE, 0, {0, 0, 0}, 1},
    {"int8_tensorwise", BRC_INT8, BRC_INT8, BRC_NONE, 1, {0, 0, 0}, 1},
    {"nvfp4", BRC_UINT8, BRC_E2M1, BRC_E4M3, 0, {1, 1, 16}, 16},
    {"mxfp8", BRC_E4M3, BRC_E4M3, BRC_E8M0, 0, {1, 1, 32}, 32}};
const size_t brci_comfy_n_formats = sizeof brci_comfy_formats / sizeof *brci_comfy_formats;

static const char quant_suffix[] = ".comfy_quant", older_suffix[] = ".scale_weight", marker_suffix[] = "scaled_fp8";

/* ------------------------------------------------------------------------------------------------ one tensor */

typedef struct layer {
    brci_reader *reader;
    brci_reading *reading;
    const brc_named_array *data, *scale, *second; /* the last two may be NULL */
    brci_comfy *found;
} layer;

static int refuse(layer *l, brc_status status, const char *text) {
    brci_refuse(l->reader, l->reading, BRC_ERROR, status, text);
    return 0;
}
#define REFUSE(l, status, ...) refuse(l, status, brci_pool_print((l)->reader->pool, __VA_ARGS__))

static const char *array_text(const layer *l, const brc_named_array *a) { return brci_array_text(l->reader->pool, a); }

/* Whether stored scales are of the kind that the format means; bytes stand for either one-byte type. */
static int is_scale(const brci_comfy_format *f, const brc_named_array *scale) {
    const unsigned stored = scale->array.format;
    if (f->scale == BRC_NONE) return stored == BRC_F32 || stored == BRC_F16 || stored == BRC_BF16;
    return stored == f->scale || stored == BRC_UINT8;
}

/* The weight's own shape, of its codes. */
static int take_shape(layer *l) {
    const brci_comfy_format *f = l->found->format;
    brc_tensor *t = &l->reading->entry.tensor;
    const int grouped = f->block.cols != 0, rank = (int)l->data->rank;
    if (l->data->array.format != f->stored)
        return REFUSE(l, BRC_FORMAT, "%s is %s, but its format is %s", l->data->name, l->data->dtype, f->word);
    if (rank < 1 || rank > BRC_MAX_RANK || (grouped && rank != 2))
        return REFUSE(l, BRC_SHAPE, "%s is %s; in %s it has %s", l->data->name, array_text(l, l->data), f->word,
                      grouped ? "two dimensions" : "1 to 8 dimensions");
    *t = (brc_tensor){.size = sizeof *t, .format = f->element, .rank = (uint8_t)rank};
    memcpy(t->shape, l->data->shape, (size_t)rank * sizeof *t->shape);
    if (f->stored == BRC_UINT8 && __builtin_mul_overflow(t->shape[rank - 1], 2, &t->shape[rank - 1]))
        return REFUSE(l, BRC_OVERFLOW, "%s is too large", l->data->name);
    if (grouped && t->shape[rank - 1] % f->block.cols != 0)
        return REFUSE(l, BRC_SHAPE, "%s is %s; rows of %s come in whole blocks of %u", l->data->name,
                      array_text(l, l->data), f->word, f->block.cols);
    t->row_pitch = brc_row_bytes((brc_format)t->format, t->shape[rank - 1]);
    return 1;
}

/* Scales in tiles are as many as the tiles hold. */
static int check_tiles(layer *l, const brc_tensor *t, brc_block block) {
    const int64_t rows = t->shape[0], cols = t->shape[1] / block.cols;
    if (rows > INT64_MAX - 128) return REFUSE(l, BRC_OVERFLOW, "%s is too large", l->data->name);
    const int64_t tiled[2] = {(rows + 127) / 128 * 128, (cols + 3) / 4 * 4};
    if (brci_same_shape(2, tiled, l->scale->rank, l->scale->shape)) return 1;
    return REFUSE(l, BRC_SHAPE, "%s is %s; scales of %s in 128x4 tiles are [%lld,%lld]", l->scale->name,
                  array_text(l, l->scale), brci_pool_shape(l->reader->pool, 2, t->shape), (long long)tiled[0],
                  (long long)tiled[1]);
}

static int take_scale(layer *l) {
    const brci_comfy_format *f = l->found->format;
    brc_tensor *t = &l->reading->entry.tensor;
    brc_block block = f->block;
    const brc_block row = {1, 1, 0};
    if (l->scale == NULL)
        return REFUSE(l, BRC_MALFORMED, "its weight_scale is missing: without it the data means nothing");
    if (!is_scale(f, l->scale))
        return REFUSE(l, BRC_FORMAT, "%s is %s; %s has %s there", l->scale->name, l->scale->dtype, f->word,
                      f->scale == BRC_NONE ? "F32, F16 or BF16" : brc_safetensors_dtype((brc_format)f->scale));
    if (f->rows && l->scale->rank > 1) block = row;
    if (block.rows == 1 && block.cols != 0) {
        if (!check_tiles(l, t, block)) return 0;
    } else if (!brci_table_fits(t, block, l->scale)) {
        brci_refuse_table(l->reader, l->reading, l->scale, &block, f->word);
        return 0;
    }
    t->layout = (uint8_t)brci_layout_of(block, f->scale != BRC_NONE);
    t->scale = (brc_table){.format = f->scale != BRC_NONE ? f->scale : l->scale->array.format,
                           .kind = BRC_KIND_MULTIPLIER,
                           .block = block};
    return 1;
}

static int take_second(layer *l) {
    const brci_comfy_format *f = l->found->format;
    brc_tensor *t = &l->reading->entry.tensor;
    const brc_block whole = {0, 0, 0};
    if (f->element != BRC_E2M1)
        return l->second == NULL ||
               REFUSE(l, BRC_MALFORMED, "%s has no place in the format %s", l->second->name, f->word);
    if (l->second == NULL)
        return REFUSE(l, BRC_MALFORMED, "its weight_scale_2 is missing: without it the data means nothing");
    if (l->second->array.format != BRC_F32 || !brci_table_fits(t, whole, l->second))
        return REFUSE(l, BRC_SHAPE, "%s is %s; it must be one F32", l->second->name, array_text(l, l->second));
    t->global = (brc_table){l->second->array.data, BRC_F32, BRC_KIND_MULTIPLIER, 0, whole};
    return 1;
}

static void read_tensor(layer *l, const char *evidence) {
    brc_tensor *t = &l->reading->entry.tensor;
    if (!take_shape(l) || !take_scale(l) || !take_second(l)) return;
    const int tiled = l->found->format->block.cols != 0;
    if (!tiled) {
        t->data = l->data->array.data;
        t->scale.data = l->scale->array.data;
    }
    t->recipe = brci_recipe_of(t);
    l->reading->detail = l->found;
    l->reading->entry.evidence =
        brci_pool_print(l->reader->pool, "%s; %s %s, %s %s%s", evidence, l->data->name, array_text(l, l->data),
                        l->scale->name, array_text(l, l->scale), tiled ? " in 128x4 tiles" : "");
    l->reading->entry.recipe = brci_row_name(t);
    brci_describe(l->reader->pool, &l->reading->entry);
}

/* ------------------------------------------------------------------------------------------- the descriptions */

static int take_arrays(layer *l, const char *module, size_t length, const char *scale, const char *input) {
    const char *name = brci_pool_print(l->reader->pool, "%.*s.weight", (int)length, module);
    l->reading = brci_propose(l->reader, BRC_DIALECT_COMFYUI, name, strlen(name));
    l->found = brci_pool_alloc(l->reader->pool, sizeof *l->found);
    if (l->reading == NULL || l->found == NULL) return 0;
    l->data = brci_take(l->reader, l->reading, "data", name, strlen(name), "");
    l->scale = brci_take(l->reader, l->reading, "scale", module, length, scale);
    l->second = brci_take(l->reader, l->reading, "global_scale", name, strlen(name), "_scale_2");
    brci_take(l->reader, l->reading, "description", module, length, quant_suffix);
    brci_take(l->reader, l->reading, "input_scale", module, length, input);
    return 1;
}

/* ConvRot multiplies groups of each row by a Hadamard matrix: what is stored is no encoding of the weight itself. */
static int is_rotated(const json_t *root) {
    return json_is_true(json_object_get(root, "convrot")) ||
           json_is_true(json_object_get(json_object_get(root, "params"), "convrot"));
}

static const brci_comfy_format *find_format(const char *word) {
    for (size_t i = 0; i < brci_comfy_n_formats; i++)
        if (strcmp(brci_comfy_formats[i].word, word) == 0) return &brci_comfy_formats[i];
    return NULL;
}

static int take_description(layer *l, const json_t *root, brci_comfy_place place) {
    const char *word = json_string_value(json_object_get(root, "format"));
    char *text = root == NULL ? NULL : json_dumps(root, 0);
    l->found->place = place;
    l->found->text = text == NULL ? NULL : brci_pool_copy(l->reader->pool, text, strlen(text));
    free(text);
    if (word == NULL) return REFUSE(l, BRC_MALFORMED, "its description is no JSON object with a \"format\"");
    l->found->format = find_format(word);
    if (l->found->format == NULL) return REFUSE(l, BRC_UNSUPPORTED, "ComfyUI's format \"%.60s\" is not read", word);
    if (is_rotated(root)) return REFUSE(l, BRC_UNSUPPORTED, "its rows are rotated (\"convrot\"), which is not read");
    if (l->data == NULL) return REFUSE(l, BRC_MALFORMED, "its description is there, but its weight is missing");
    return 1;
}

static json_t *parse(const brc_named_array *description) {
    if (description == NULL || description->array.format != BRC_UINT8 || description->bytes > TEXT_LIMIT) return NULL;
    return json_loadb(description->array.data, (size_t)description->bytes, JSON_REJECT_DUPLICATES, NULL);
}

static void read_array(brci_reader *reader, const brc_named_array *description, size_t length) {
    layer l = {.reader = reader};
    if (!take_arrays(&l, description->name, length, ".weight_scale", ".input_scale")) return;
    json_t *root = parse(description);
    if (take_description(&l, root, BRCI_COMFY_ARRAY))
        read_tensor(&l, brci_pool_print(reader->pool, "%s says %s", description->name, l.found->format->word));
    json_decref(root);
}

/* Where both are there. ComfyUI believes the pair; but one of them speaks of other bytes. */
static int check_agreement(layer *l) {
    const brc_named_array *array = brci_part(&l->reading->entry, "description");
    json_t *said = parse(array);
    const char *word = json_string_value(json_object_get(said, "format"));
    const int agree = array == NULL || (word != NULL && strcmp(word, l->found->format->word) == 0);
    if (!agree)
        brci_refuse(l->reader, l->reading, BRC_AMBIGUITY, BRC_AMBIGUOUS,
                    brci_pool_print(l->reader->pool, "metadata \"%s\" says %s, but %s says %.60s; correct one of them",
                                    BRCI_COMFYUI_KEY, l->found->format->word, array->name,
                                    word == NULL ? "no format" : word));
    json_decref(said);
    return agree;
}

static void read_pair(brci_reader *reader, const char *module, const json_t *root) {
    layer l = {.reader = reader};
    if (!take_arrays(&l, module, strlen(module), ".weight_scale", ".input_scale")) return;
    if (l.reading->entry.n_parts == 0) { /* one shard of several has the metadata of all */
        l.reading->dropped = 1;
        brci_report(reader, BRC_WARNING, BRC_OK, l.reading->entry.name,
                    "the metadata describe it, but none of its arrays is here");
        return;
    }
    if (take_description(&l, root, BRCI_COMFY_PAIR) && check_agreement(&l))
        read_tensor(&l,
                    brci_pool_print(reader->pool, "metadata \"%s\" says %s", BRCI_COMFYUI_KEY, l.found->format->word));
}

/* Older files: the names tell. A scale beside numbers that are no codes is told by recognise.def. */
static void read_names(brci_reader *reader, const brc_named_array *scale, size_t length) {
    const brc_named_array *data = brci_sibling(reader, scale->name, length, ".weight");
    layer l = {.reader = reader};
    const brci_comfy_format *f = brci_comfy_formats;
    if (data == NULL) return;
    while (f < brci_comfy_formats + 2 && data->array.format != f->stored) f++;
    if (f == brci_comfy_formats + 2 || !take_arrays(&l, scale->name, length, older_suffix, ".scale_input")) return;
    *l.found = (brci_comfy){.format = f, .place = BRCI_COMFY_NAMES};
    read_tensor(&l, brci_pool_print(reader->pool, "the name %s", scale->name));
}

/* ------------------------------------------------------------------------------------------------- all arrays */

/* The layers that the pair lists; NULL = there is no pair, or it cannot be read. */
static json_t *read_layers(brci_reader *reader) {
    const char *text = brc_file_metadata(reader->file, BRCI_COMFYUI_KEY);
    const size_t length = text == NULL ? 0 : strlen(text);
    json_t *root = text == NULL || length > PAIR_LIMIT ? NULL : json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
    json_t *layers = json_incref(json_object_get(root, "layers"));
    json_decref(root);
    if (json_is_object(layers) || text == NULL) return layers;
    json_decref(layers);
    brci_report(reader, BRC_ERROR, BRC_MALFORMED, "",
                "the metadata pair \"" BRCI_COMFYUI_KEY "\" is no JSON object with \"layers\", or over 16 MiB");
    return NULL;
}

/* The array scaled_fp8 says that a file, or the part of it under a prefix, is one of the older ones: it goes with the
 * first of these tensors. */
static void take_marker(brci_reader *reader, const brc_named_array *marker, size_t prefix) {
    for (brci_reading *r = reader->first; r != NULL; r = r->next) {
        if (r->entry.dialect != BRC_DIALECT_COMFYUI || strncmp(r->entry.name, marker->name, prefix) != 0 ||
            r->detail == NULL || ((const brci_comfy *)r->detail)->place != BRCI_COMFY_NAMES)
            continue;
        brci_take(reader, r, "marker", marker->name, strlen(marker->name), "");
        return;
    }
}

static brc_status read_all(brci_reader *reader, brc_error *err) {
    json_t *layers = read_layers(reader), *said;
    const char *module;
    (void)err;
    json_object_foreach(layers, module, said) read_pair(reader, module, said);
    for (size_t i = 0; i < reader->n; i++) {
        const brc_named_array *array = brc_file_at(reader->file, i);
        const int64_t quant = brci_stem(array->name, quant_suffix), older = brci_stem(array->name, older_suffix);
        const int64_t length = quant > 0 ? quant : older;
        if (length < 1 || json_object_getn(layers, array->name, (size_t)length) != NULL) continue;
        if (quant > 0) read_array(reader, array, (size_t)length);
        else if (brci_sibling(reader, array->name, (size_t)length, quant_suffix) == NULL)
            read_names(reader, array, (size_t)length);
    }
    for (size_t i = 0; i < reader->n; i++) {
        const brc_named_array *array = brc_file_at(reader->file, i);
        const int64_t prefix = strcmp(array->name, marker_suffix) == 0 ? 0 : brci_stem(array->name, marker_suffix);
        if (prefix == 0 || (prefix > 0 && array->name[prefix - 1] == '.')) take_marker(reader, array, (size_t)prefix);
    }
    json_decref(layers);
    return BRC_OK;
}

/* --------------------------------------------------------------------------------------------------- loading */

/* Tiles become rows; the first code of a pair, in the high bits, goes into the low ones. Other codes stay in the map.
 */
static brc_status load(const brci_reading *reading, brc_owned *owned, brc_error *err) {
    const brc_named_array *data = brci_part(&reading->entry, "data"), *scale = brci_part(&reading->entry, "scale");
    const brc_tensor *t = &reading->entry.tensor;
    const int pairs = t->format == BRC_E2M1;
    brc_tensor mapped = *t;
    brc_sizes all;
    mapped.data = data->array.data;
    mapped.scale.data = scale->array.data;
    TRY(brc_tensor_sizes(&mapped, &all, err));
    const brc_sizes sizes = {.data = pairs ? all.data : 0,
                             .scale = all.scale,
                             .total = (pairs ? (all.data + 63) / 64 * 64 : 0) + (all.scale + 63) / 64 * 64};
    TRY(brci_owned_new(&mapped, &sizes, owned, err));
    owned->tensor.global.data = t->global.data;
    if (!pairs) owned->tensor.data = mapped.data;
    for (int64_t i = 0; pairs && i < all.data; i++) {
        const unsigned byte = ((const uint8_t *)mapped.data)[i];
        ((uint8_t *)owned->tensor.data)[i] = (uint8_t)(byte >> 4 | byte << 4);
    }
    brci_untile(mapped.scale.data, t->shape[0], t->shape[1] / t->scale.block.cols, owned->tensor.scale.data);
    return BRC_OK;
}

static int64_t describes(const char *key, const char *value) {
    (void)value;
    return strcmp(key, BRCI_COMFYUI_KEY) == 0 ? 0 : -1;
}

/* What comfy-kitchen's quantizers give, bit for bit. */
static const char *const recipes[] = {"fp8:arith=deepgemm", "mxfp8", "nvfp4:arith=modelopt", "int8:arith=modelopt",
                                      NULL};

const brci_dialect brci_dialect_COMFYUI = {.recipes = recipes,
                                           .read = read_all,
                                           .load = load,
                                           .store = brci_comfy_store,
                                           .config = brci_comfy_texts,
                                           .describes = describes};
