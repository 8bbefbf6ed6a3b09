/* SPDX-License-Identifier: Apache-2.0
 * compressed-tensors (llm-compressor, vLLM), read: X.weight or X.weight_packed with X.weight_scale, and more by format.
 * The arrays tell the format, and the block where only one fits; quantization_config must agree with them. Sources:
 * docs/dialects.md, compressed-tensors. */
#include "dialect/compressed.h"

#include "container/file.h"

#include <string.h>

/* --------------------------------------------------------------------------------------------------- block */

static int find_block(brci_ct_arrays *a, const brci_ct_format *f, brc_block *block) {
    brc_tensor *t = &a->reading->entry.tensor;
    brci_pool *pool = a->reader->pool;
    const char *says = brci_pool_print(pool, "%s's blocks of %u columns", f->word, f->columns);
    if (f->columns != 0) *block = (brc_block){1, 1, f->columns};
    if (a->scheme != NULL) {
        if (f->columns != 0 && memcmp(block, &a->scheme->block, sizeof *block) != 0)
            return brci_ct_contradicts(
                a, brci_pool_print(pool, "one scale for each %s", brci_block_text(pool, a->scheme->block, t->rank)),
                a->scale);
        *block = a->scheme->block;
        says = brci_pool_print(pool, "config.json's %.60s (one scale for each %s)", a->scheme->group,
                               brci_block_text(pool, *block, t->rank));
    } else if (f->columns == 0 && brci_guess_block(t, a->scale, block)) {
        return 1;
    }
    if ((a->scheme != NULL || f->columns != 0) && brci_table_fits(t, *block, a->scale)) return 1;
    brci_refuse_table(a->reader, a->reading, a->scale, a->scheme != NULL || f->columns != 0 ? block : NULL, says);
    return 0;
}

/* --------------------------------------------------------------------------------- global scale, zero point */

static int bind_global(brci_ct_arrays *a, int format) {
    brc_tensor *t = &a->reading->entry.tensor;
    const brc_block whole = {0, 0, 0}, each = {1, 0, 0};
    if (format != BRCI_CT_NVFP4)
        return a->global == NULL ||
               brci_ct_malformed(a, brci_pool_print(a->reader->pool, "%s has no place in %s", a->global->name,
                                                    brci_ct_formats[format].word));
    if (a->global == NULL)
        return brci_ct_malformed(a, "its weight_global_scale is missing: without it the data means nothing");
    const int one = brci_table_fits(t, whole, a->global);
    if (a->global->array.format != BRC_F32 || (!one && !brci_table_fits(t, each, a->global)))
        return brci_ct_refuse(a, BRC_ERROR, BRC_SHAPE,
                              brci_pool_print(a->reader->pool, "%s is %s; it must be one F32", a->global->name,
                                              brci_array_text(a->reader->pool, a->global)));
    t->global = (brc_table){a->global->array.data, BRC_F32, BRC_KIND_DIVISOR, 0, one ? whole : each};
    return 1;
}

static int is_all_zero(const brc_named_array *a) {
    for (int64_t i = 0; i < a->bytes; i++)
        if (((const uint8_t *)a->array.data)[i] != 0) return 0;
    return 1;
}

/* The zero points of words are packed along the rows. */
static int zero_fits(const brci_ct_arrays *a, const brci_ct_layout *layout) {
    const brc_tensor *t = &a->reading->entry.tensor;
    if (layout->format == BRCI_CT_INT)
        return a->zero->array.format == BRC_INT8 && brci_table_fits(t, t->scale.block, a->zero);
    int64_t shape[BRC_MAX_RANK];
    int rank;
    if (a->zero->array.format != BRC_INT32 || brci_table_shape(t, t->scale.block, &rank, shape, NULL) != BRC_OK ||
        rank < 2)
        return 0;
    shape[rank - 2] = brci_ct_words(shape[rank - 2], layout->bits, layout->old_words);
    return brci_same_shape(rank, shape, a->zero->rank, a->zero->shape);
}

/* Older versions keep zero points of 0 beside symmetric codes. */
static int bind_zero(brci_ct_arrays *a, const brci_ct_layout *layout) {
    brc_tensor *t = &a->reading->entry.tensor;
    brci_pool *pool = a->reader->pool;
    const int integer = brci_ct_formats[layout->format].element == BRC_NONE,
              symmetric = a->scheme != NULL && a->scheme->symmetric;
    if (a->zero == NULL)
        return a->scheme == NULL || symmetric ||
               brci_ct_malformed(
                   a, brci_pool_print(
                          pool, "its weight_zero_point is missing, though config.json's %.60s says symmetric false",
                          a->scheme->group));
    if (symmetric || !integer) {
        if (layout->format != BRCI_CT_PACK && is_all_zero(a->zero)) return 1;
        if (integer) return brci_ct_contradicts(a, "symmetric true", a->zero);
        return brci_ct_refuse(
            a, BRC_ERROR, BRC_UNSUPPORTED,
            brci_pool_print(pool, "%s: zero points of floating-point codes are not read", a->zero->name));
    }
    if (!zero_fits(a, layout))
        return brci_ct_refuse(a, BRC_ERROR, BRC_SHAPE,
                              brci_pool_print(pool, "%s is %s, which does not fit the scale %s", a->zero->name,
                                              brci_array_text(pool, a->zero), brci_array_text(pool, a->scale)));
    t->zero = (brc_table){a->zero->array.data, BRC_INT8, BRC_KIND_CODE, 0, t->scale.block};
    return 1;
}

/* Files of versions up to 0.17 may name each column's group; -1 stands for the plain order. */
static int bind_index(brci_ct_arrays *a) {
    brc_tensor *t = &a->reading->entry.tensor;
    int32_t first = 0;
    if (a->index == NULL) return 1;
    if (a->index->array.format != BRC_INT32 ||
        !brci_same_shape(1, &t->shape[t->rank - 1], a->index->rank, a->index->shape) || t->scale.block.rows != 1 ||
        t->scale.block.cols == 0)
        return brci_ct_refuse(
            a, BRC_ERROR, BRC_SHAPE,
            brci_pool_print(a->reader->pool,
                            "%s is %s; it must be I32 with the group of each column, of codes in groups",
                            a->index->name, brci_array_text(a->reader->pool, a->index)));
    memcpy(&first, a->index->array.data, sizeof first);
    if (first != -1) t->group_index = a->index->array.data;
    return 1;
}

/* ----------------------------------------------------------------------------------------------- one tensor */

static void describe(brci_ct_arrays *a, const brci_ct_layout *layout) {
    brci_pool *pool = a->reader->pool;
    const brc_tensor *t = &a->reading->entry.tensor;
    const char *words = layout->old_words ? ", words of whole codes" : "";
    a->reading->entry.evidence = brci_pool_print(
        pool, "%s %s, %s %s: %s%s of %s, one scale for each %s%s%s", a->data->name, brci_array_text(pool, a->data),
        a->scale->name, brci_array_text(pool, a->scale), brci_ct_formats[layout->format].word, words,
        brci_pool_shape(pool, t->rank, t->shape), brci_block_text(pool, t->scale.block, t->rank),
        a->scheme == NULL ? "" : ", as config.json says in ", a->scheme == NULL ? "" : a->scheme->group);
    brci_describe(pool, &a->reading->entry);
}

static void read_tensor(brci_ct_arrays *a) {
    brci_ct_layout *layout = brci_pool_alloc(a->reader->pool, sizeof *layout);
    brc_block block = {0, 0, 0};
    if (layout == NULL) return;
    if (a->data == NULL || a->scale == NULL) {
        (void)brci_ct_malformed(
            a, brci_pool_print(a->reader->pool, "its %s is missing: without it the %s means nothing",
                               a->data == NULL ? "weight" : "weight_scale", a->data == NULL ? "scale" : "data"));
        return;
    }
    if (!brci_ct_find_layout(a, layout)) return;
    brc_tensor *t = &a->reading->entry.tensor;
    const brci_ct_format *f = &brci_ct_formats[layout->format];
    if (!find_block(a, f, &block)) return;
    const brc_format scale = f->scale != BRC_NONE ? (brc_format)f->scale : (brc_format)a->scale->array.format;
    t->layout = (uint8_t)brci_layout_of(block, f->columns != 0);
    t->scale = (brc_table){a->scale->array.data, (uint8_t)scale, BRC_KIND_MULTIPLIER, 0, block};
    if (!bind_global(a, layout->format) || !bind_zero(a, layout) || !bind_index(a)) return;
    const int in_order = layout->format != BRCI_CT_PACK && layout->bits * (layout->format == BRCI_CT_INT) % 8 == 0;
    t->data = in_order && t->group_index == NULL ? a->data->array.data : NULL;
    t->recipe = brci_recipe_of(t);
    a->reading->detail = layout;
    describe(a, layout);
}

/* Arrays beside a tensor's own, of the module that it belongs to. */
static const struct {
    const char *role, *suffix;
} companions[] = {{"input_scale", "input_scale"},
                  {"input_zero_point", "input_zero_point"},
                  {"input_divisor", "input_global_scale"},
                  {"output_scale", "output_scale"},
                  {"output_zero_point", "output_zero_point"}};

static void read_arrays(brci_reader *reader, const brci_ct_schemes *schemes, const brc_named_array *data,
                        size_t length) {
    brci_reading *reading = brci_propose(reader, BRC_DIALECT_COMPRESSED, data->name, length);
    if (reading == NULL) return;
    const char *name = reading->entry.name;
    brci_ct_arrays a = {.reader = reader, .reading = reading};
    a.data = brci_take(reader, reading, "data", name, length, data->name + length);
    a.scale = brci_take(reader, reading, "scale", name, length, "_scale");
    a.global = brci_take(reader, reading, "global_scale", name, length, "_global_scale");
    a.zero = brci_take(reader, reading, "zero_point", name, length, "_zero_point");
    a.index = brci_take(reader, reading, "group_index", name, length, "_g_idx");
    a.shape = brci_take(reader, reading, "shape", name, length, "_shape");
    a.scheme = brci_ct_scheme_of(schemes, name);
    const int64_t module = brci_stem(name, "weight");
    for (size_t i = 0; module >= 0 && i < sizeof companions / sizeof *companions; i++)
        brci_take(reader, reading, companions[i].role, name, (size_t)module, companions[i].suffix);
    read_tensor(&a);
    if (reading->entry.tensor.format != BRC_NONE && brci_ct_is_ignored(schemes, name))
        brci_report(reader, BRC_WARNING, BRC_OK, name,
                    "config.json says to ignore this module, but its weight is quantized: loaders will not read it");
}

/* ------------------------------------------------------------------------------------------------ all arrays */

/* Arrays that no other system has beside codes. */
static int has_own_names(brci_reader *reader, const char *name, size_t length) {
    static const char *const own[] = {"_zero_point", "_g_idx", "_shape", "_global_scale"};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (brci_sibling(reader, name, length, own[i]) != NULL) return 1;
    return 0;
}

/* Whether a scale beside codes could be this system's, where nothing but their shapes says so. */
static int could_be(const brc_named_array *data, const brc_named_array *scale) {
    const brc_format meaning = brci_ct_meaning(scale);
    brc_tensor t = {.rank = (uint8_t)data->rank};
    brc_block block = {1, 1, brci_ct_formats[BRCI_CT_MXFP8].columns};
    if (data->rank < 2 || data->rank > BRC_MAX_RANK || scale->rank == 0) return 0;
    memcpy(t.shape, data->shape, data->rank * sizeof *t.shape);
    if (meaning == BRC_E8M0) return data->array.format == BRC_E4M3 && brci_table_fits(&t, block, scale);
    return meaning == BRC_NONE && brci_guess_block(&t, scale, &block);
}

/* Codes in an array called as the tensor: its scale's name is common to several systems. */
static int is_mine(brci_reader *reader, const brc_named_array *data, int said) {
    const size_t length = strlen(data->name);
    const brc_named_array *scale = brci_sibling(reader, data->name, length, "_scale");
    const unsigned format = data->array.format;
    if (format != BRC_E4M3 && format != BRC_INT8 && !(said && format == BRC_E5M2)) return 0;
    if (brci_sibling(reader, data->name, length, "_packed") != NULL) return 0;
    if (scale == NULL) /* FP8 codes without any scale are reported for all dialects */
        return said && format == BRC_INT8 && data->rank >= 2 && brci_stem(data->name, "weight") >= 0;
    if (said || has_own_names(reader, data->name, length)) return 1;
    return brci_may_claim(reader, BRC_DIALECT_COMPRESSED) && !brci_has_foreign_scale(reader, data->name, length) &&
           could_be(data, scale);
}

static void report_transform(brci_reader *reader) {
    if (json_object_size(json_object_get(reader->quantization, "transform_config")) > 0)
        brci_report(
            reader, BRC_WARNING, BRC_OK, "",
            "config.json has a transform_config: weights are stored in a rotated basis, and are read as stored");
}

static brc_status read_all(brci_reader *reader, brc_error *err) {
    const int said = reader->forced == BRC_DIALECT_COMPRESSED ||
                     (reader->forced == BRC_DIALECT_COUNT && brci_method_dialect(reader) == BRC_DIALECT_COMPRESSED);
    brci_ct_schemes *schemes = said ? brci_ct_schemes_new(reader, reader->quantization) : NULL;
    (void)err;
    for (size_t i = 0; i < reader->n; i++) {
        const brc_named_array *data = brc_file_at(reader->file, i);
        const int64_t packed = brci_stem(data->name, "_packed");
        if (packed > 0 && (brci_sibling(reader, data->name, (size_t)packed, "_scale") != NULL ||
                           brci_stem(data->name, "weight_packed") >= 0))
            read_arrays(reader, schemes, data, (size_t)packed);
        else if (is_mine(reader, data, said)) read_arrays(reader, schemes, data, strlen(data->name));
    }
    if (said) report_transform(reader);
    brci_ct_schemes_free(schemes);
    return BRC_OK;
}

static const char *const recipes[] = {"fp8-row:arith=ct",
                                      "fp8-block128",
                                      "fp8:arith=ct",
                                      "mxfp8:rule=even,arith=ct",
                                      "mxfp4:rule=even,arith=ct",
                                      "mxfp6-e2m3:rule=even,arith=ct",
                                      "nvfp4:arith=ct",
                                      "int8",
                                      "int4:scale=f32",
                                      NULL};

const brci_dialect brci_dialect_COMPRESSED = {.scale_suffix = "_scale",
                                              .global_kind = BRC_KIND_DIVISOR,
                                              .recipes = recipes,
                                              .read = read_all,
                                              .load = brci_ct_load,
                                              .store = brci_ct_store,
                                              .config = brci_ct_config};
