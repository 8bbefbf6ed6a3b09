/* SPDX-License-Identifier: Apache-2.0
 * breccia's own: name.data, name.scale, optional name.zero_point, name.global_scale, name.group_index, described by the
 * metadata pair name.config (breccia_config.c, docs/dialects.md). Files of the Python package 0.1 are of the same kind,
 * with 4-bit codes one a byte, BF16 scales at times as F32, and zero points as F32. */
#include "dialect/breccia_config.h"
#include "dialect/dialect.h"

#include <stdlib.h>
#include <string.h>

static const char config_suffix[] = ".config";

/* What a number is stored as: many readers of safetensors lack F4, F6 and F8_E8M0, so these are plain bytes. */
static brc_format stored_format(unsigned format) {
    const brc_format_info *f = brc_format_get((brc_format)format);
    if (f->bits < 8 || f->family == BRC_EXPONENT) return BRC_UINT8;
    return format == BRC_INT8_Q6 ? BRC_INT8 : (brc_format)format;
}

static int stored_as(const brc_named_array *array, unsigned format) {
    const brc_format_info *f = brc_format_get((brc_format)format);
    unsigned found = array->array.format;
    return found == (unsigned)stored_format(format) || found == format ||
           (f->bits <= 8 && f->family != BRC_INT && found == BRC_UINT8);
}

/* Shape of the data array: whole-byte elements keep the logical one, others have the bytes of a row as last axis. */
static void data_shape(const brc_tensor *t, int64_t shape[BRC_MAX_RANK]) {
    memcpy(shape, t->shape, sizeof t->shape);
    shape[t->rank - 1] = brc_row_bytes((brc_format)t->format, t->shape[t->rank - 1]);
}

/* ------------------------------------------------------------------------------------------------- reading */

static void malformed(brci_reader *reader, brci_reading *reading, const char *text) {
    brci_refuse(reader, reading, BRC_ERROR, BRC_MALFORMED, text);
}

/* Points a table into the file, if the array beside the data is what the recipe asks for. */
static int bind_table(brci_reader *reader, brci_reading *reading, const char *role, brc_table *table) {
    const brc_tensor *t = &reading->entry.tensor;
    const brc_named_array *array = brci_part(&reading->entry, role);
    int64_t shape[BRC_MAX_RANK];
    brc_error err;
    int rank, fits;
    if (table->format == BRC_NONE) {
        if (array != NULL)
            malformed(reader, reading, brci_pool_print(reader->pool, "%s has no place in its recipe", array->name));
        return array == NULL;
    }
    if (array == NULL) {
        malformed(reader, reading,
                  brci_pool_print(reader->pool, "its %s is missing: without it the data means nothing", role));
        return 0;
    }
    if (brci_table_shape(t, table->block, &rank, shape, &err) != BRC_OK) {
        malformed(reader, reading, brci_pool_print(reader->pool, "%s", err.text));
        return 0;
    }
    fits = brci_same_shape(rank, shape, array->rank, array->shape);
    /* one number may be a scalar or [1], one a row may lack the axis of 1 (PerChannel of the Python package) */
    if (!fits && rank == 0) fits = array->rank == 1 && array->shape[0] == 1;
    if (!fits && rank > 1 && t->scale.block.cols == 0)
        fits = brci_same_shape(rank - 1, shape, array->rank, array->shape);
    if (!fits) {
        malformed(reader, reading,
                  brci_pool_print(reader->pool, "%s is %s, but %s of shape %s with its recipe needs %s", array->name,
                                  brci_array_text(reader->pool, array), reading->entry.name,
                                  brci_pool_shape(reader->pool, t->rank, t->shape),
                                  brci_pool_shape(reader->pool, rank, shape)));
        return 0;
    }
    if (!stored_as(array, table->format)) {
        malformed(reader, reading,
                  brci_pool_print(reader->pool, "%s is %s, but its recipe says %s", array->name, array->dtype,
                                  brc_format_get((brc_format)table->format)->name));
        return 0;
    }
    table->data = array->array.data;
    return 1;
}

static int bind_data(brci_reader *reader, brci_reading *reading, int one_a_byte) {
    brc_tensor *t = &reading->entry.tensor;
    const brc_named_array *data = brci_part(&reading->entry, "data");
    int64_t shape[BRC_MAX_RANK];
    if (one_a_byte) memcpy(shape, t->shape, sizeof shape);
    else data_shape(t, shape);
    if (!brci_same_shape(t->rank, shape, data->rank, data->shape) || !stored_as(data, t->format)) {
        malformed(reader, reading,
                  brci_pool_print(reader->pool, "%s is %s, but %s of shape %s is stored as %s %s", data->name,
                                  brci_array_text(reader->pool, data), brc_format_get((brc_format)t->format)->name,
                                  brci_pool_shape(reader->pool, t->rank, t->shape),
                                  brc_format_get(stored_format(t->format))->name,
                                  brci_pool_shape(reader->pool, t->rank, shape)));
        return 0;
    }
    t->data = one_a_byte ? NULL : data->array.data;
    return 1;
}

static int bind_group_index(brci_reader *reader, brci_reading *reading) {
    brc_tensor *t = &reading->entry.tensor;
    const brc_named_array *array = brci_part(&reading->entry, "group_index");
    if (array == NULL) return 1;
    const brc_family family = (brc_family)brc_format_get((brc_format)t->recipe.element)->family;
    if ((family != BRC_INT && family != BRC_UINT) || t->scale.block.cols == 0) {
        malformed(reader, reading,
                  brci_pool_print(reader->pool,
                                  "%s has no place in its recipe: only integers in groups of columns have "
                                  "one",
                                  array->name));
        return 0;
    }
    if (array->array.format != BRC_INT32 || !brci_same_shape(1, &t->shape[t->rank - 1], array->rank, array->shape)) {
        malformed(reader, reading,
                  brci_pool_print(reader->pool, "%s is %s; it must be I32 with one number for each column", array->name,
                                  brci_array_text(reader->pool, array)));
        return 0;
    }
    if ((uintptr_t)array->array.data % _Alignof(int32_t) != 0) t->data = NULL; /* loading moves it */
    t->group_index = array->array.data;
    return 1;
}

/* Version 1 keeps zero points as real numbers in code units, and may keep BF16 scales in F32: as stored. */
static void adopt_old_tables(brc_tensor *t, const brc_entry *entry) {
    const brc_named_array *scale = brci_part(entry, "scale"), *zero = brci_part(entry, "zero_point");
    if (t->zero.format != BRC_NONE)
        t->zero = (brc_table){.format = zero != NULL && zero->array.format == BRC_F16 ? BRC_F16 : BRC_F32,
                              .kind = BRC_KIND_FLOAT_CODE,
                              .block = t->scale.block};
    if (scale != NULL && scale->array.format == BRC_F32) t->scale.format = BRC_F32;
}

static void read_tensor(brci_reader *reader, brci_reading *reading, const char *text) {
    const brc_named_array *data = brci_part(&reading->entry, "data");
    brci_breccia_config config;
    brc_error err;
    int old, one_a_byte;
    if (brci_breccia_config_read(text, &config, &err) != BRC_OK) {
        brci_refuse(reader, reading, BRC_ERROR, err.status == BRC_UNSUPPORTED ? BRC_UNSUPPORTED : BRC_MALFORMED,
                    brci_pool_print(reader->pool, "%s", err.text));
        return;
    }
    if (data == NULL) {
        malformed(
            reader, reading,
            brci_pool_print(reader->pool, "%s.data is missing, though the metadata describe it", reading->entry.name));
        return;
    }
    old = config.version == 1;
    if (old && data->rank <= BRC_MAX_RANK) {
        config.rank = (int)data->rank;
        memcpy(config.shape, data->shape, data->rank * sizeof *data->shape);
    }
    if (brc_tensor_plan(&config.recipe, config.rank, config.shape, &reading->entry.tensor, NULL, &err) != BRC_OK) {
        malformed(reader, reading, brci_pool_print(reader->pool, "its config and shape do not agree: %s", err.text));
        return;
    }
    one_a_byte = old && brc_format_get((brc_format)config.recipe.element)->bits < 8;
    if (old) adopt_old_tables(&reading->entry.tensor, &reading->entry);
    brc_tensor *t = &reading->entry.tensor;
    t->layout = (uint8_t)config.layout;
    if (!bind_data(reader, reading, one_a_byte) || !bind_table(reader, reading, "scale", &t->scale) ||
        !bind_table(reader, reading, "global_scale", &t->global) ||
        !bind_table(reader, reading, "zero_point", &t->zero) || !bind_group_index(reader, reading))
        return;
    reading->entry.evidence =
        brci_pool_print(reader->pool, "metadata \"%s%s\" (%s)", reading->entry.name, config_suffix,
                        one_a_byte ? "Python package 0.1: one code a byte"
                        : old      ? "Python package 0.1"
                                   : "version 2");
    brci_describe(reader->pool, &reading->entry);
}

static const struct {
    const char *role, *suffix;
} roles[] = {{"data", ".data"},
             {"scale", ".scale"},
             {"zero_point", ".zero_point"},
             {"global_scale", ".global_scale"},
             {"group_index", ".group_index"}};

static brci_reading *propose(brci_reader *reader, const char *name, size_t length) {
    brci_reading *reading = brci_propose(reader, BRC_DIALECT_BRECCIA, name, length);
    for (size_t i = 0; reading != NULL && i < sizeof roles / sizeof *roles; i++)
        brci_take(reader, reading, roles[i].role, name, length, roles[i].suffix);
    return reading;
}

/* Codes and a scale named as breccia names them, whose description is gone. */
static void report_undescribed(brci_reader *reader) {
    for (size_t i = 0; i < reader->n; i++) {
        const brc_named_array *data = brc_file_at(reader->file, i);
        const brc_format_info *f = brc_format_get((brc_format)data->array.format);
        int64_t length = brci_stem(data->name, ".data");
        brci_reading *reading;
        if (length < 0 || f == NULL || f->role != BRC_ELEMENT) continue;
        const char *key = brci_pool_print(reader->pool, "%.*s%s", (int)length, data->name, config_suffix);
        if (brc_file_metadata(reader->file, key) != NULL ||
            brci_sibling(reader, data->name, (size_t)length, ".scale") == NULL)
            continue;
        reading = propose(reader, data->name, (size_t)length);
        if (reading == NULL) return;
        malformed(reader, reading,
                  brci_pool_print(reader->pool, "its description (the metadata pair \"%s\") is missing", key));
    }
}

static brc_status read_all(brci_reader *reader, brc_error *err) {
    (void)err;
    for (size_t i = 0; i < brc_file_metadata_count(reader->file); i++) {
        const char *value = NULL, *key = brc_file_metadata_at(reader->file, i, &value);
        int64_t length = brci_stem(key, config_suffix);
        brci_reading *reading;
        if (length < 0 || value == NULL) continue;
        if (brci_sibling(reader, key, (size_t)length, ".data") == NULL && !brci_is_breccia_config(value)) continue;
        reading = propose(reader, key, (size_t)length);
        if (reading != NULL) read_tensor(reader, reading, value);
    }
    report_undescribed(reader);
    return BRC_OK;
}

/* ------------------------------------------------------------------------------------------------- loading */

static brc_status pack_codes(const brc_entry *entry, const brc_named_array *data, uint8_t *packed, brc_error *err) {
    const uint8_t *codes = data->array.data;
    const brc_tensor *t = &entry->tensor;
    unsigned bits = brc_format_get((brc_format)t->format)->bits, mask = (1u << bits) - 1;
    int64_t cols = t->shape[t->rank - 1], rows = cols == 0 ? 0 : data->bytes / cols;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t col = 0; col < cols; col++) {
            unsigned code = codes[row * cols + col];
            int64_t bit = col * bits;
            if (code > mask && !(data->array.format == BRC_INT8 && (code | mask >> 1) == 0xFF))
                return brci_fail(err, BRC_MALFORMED, (uint64_t)(row * cols + col),
                                 "%s: byte %lld is %u, which is no %u-bit code", data->name,
                                 (long long)(row * cols + col), code, bits);
            packed[row * t->row_pitch + bit / 8] |= (uint8_t)((code & mask) << bit % 8);
        }
    return BRC_OK;
}

/* One code a byte -> packed; a group index at an odd address -> aligned. The rest stays in the map. */
static brc_status load(const brci_reading *reading, brc_owned *owned, brc_error *err) {
    const brc_entry *entry = &reading->entry;
    const brc_named_array *data = brci_part(entry, "data"), *index = brci_part(entry, "group_index");
    const brc_tensor *t = &entry->tensor;
    int64_t cols = t->shape[t->rank - 1], rows = 1;
    for (int i = 0; i + 1 < t->rank; i++) rows *= t->shape[i];
    int one_a_byte = data->bytes != rows * t->row_pitch;
    brc_sizes sizes = {.data = rows * t->row_pitch, .scale = index == NULL ? 0 : index->bytes};
    sizes.total = (sizes.data + 63) / 64 * 64 + sizes.scale;
    TRY(brci_owned_new(t, &sizes, owned, err));
    owned->tensor.scale = t->scale;
    owned->tensor.global = t->global;
    owned->tensor.zero = t->zero;
    if (index != NULL)
        owned->tensor.group_index = memcpy((uint8_t *)owned->memory + sizes.total - sizes.scale, index->array.data,
                                           (size_t)cols * sizeof(int32_t));
    if (!one_a_byte) {
        if (sizes.data > 0) memcpy(owned->tensor.data, data->array.data, (size_t)sizes.data);
        return BRC_OK;
    }
    if (sizes.data > 0) memset(owned->tensor.data, 0, (size_t)sizes.data);
    brc_status status = pack_codes(entry, data, owned->tensor.data, err);
    if (status != BRC_OK) brc_release(owned);
    return status;
}

/* ------------------------------------------------------------------------------------------------- writing */

static brci_stored *add_stored(brci_store *store, const char *name, const char *suffix, unsigned format) {
    return brci_stored_new(store, name, strlen(name), suffix, (brc_format)stored_format(format));
}

static brc_status store_table(brci_store *store, const char *name, const char *suffix, const brc_tensor *t,
                              const brc_table *table, brci_buffer buffer, brc_error *err) {
    if (table->format == BRC_NONE) return BRC_OK;
    brci_stored *made = add_stored(store, name, suffix, table->format);
    made->buffer = buffer;
    return brci_table_shape(t, table->block, &made->rank, made->shape, err);
}

static brc_status store(const char *name, const brc_tensor *t, const brc_entry *origin, brci_store *store,
                        brc_error *err) {
    brci_stored *data = add_stored(store, name, ".data", t->format);
    brc_recipe recipe = t->recipe;
    if (!brc_recipe_describes(&recipe, t)) { /* the same rule in blocks of the tensor's */
        recipe.layout = t->layout;
        recipe.block = t->scale.block;
    }
    if (recipe.id == BRC_RECIPE_UNKNOWN || !brc_recipe_describes(&recipe, t) ||
        brc_recipe_check(&recipe, NULL) != BRC_OK)
        TRY(brci_name_recipe(t, origin == NULL ? NULL : origin->recipe, &recipe, err));
    brc_tensor plan;
    if (brc_tensor_plan(&recipe, t->rank, t->shape, &plan, NULL, NULL) != BRC_OK) recipe.partial = 1;
    TRY(brc_recipe_check(&recipe, err));
    data->buffer = BRCI_DATA;
    data->rank = t->rank;
    data_shape(t, data->shape);
    TRY(store_table(store, name, ".scale", t, &t->scale, BRCI_SCALE, err));
    TRY(store_table(store, name, ".global_scale", t, &t->global, BRCI_GLOBAL, err));
    TRY(store_table(store, name, ".zero_point", t, &t->zero, BRCI_ZERO, err));
    if (t->group_index != NULL) {
        brci_stored *index = add_stored(store, name, ".group_index", BRC_INT32);
        index->buffer = BRCI_GROUP_INDEX;
        index->rank = 1;
        index->shape[0] = t->shape[t->rank - 1];
    }
    store->key = brci_pool_print(store->pool, "%s%s", name, config_suffix);
    store->value = brci_breccia_config_write(store->pool, &recipe, (brc_layout)t->layout, t->rank, t->shape);
    if (store->value == NULL || store->pool->failed) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    return BRC_OK;
}

static int64_t describes(const char *key, const char *value) {
    (void)value;
    return brci_stem(key, config_suffix);
}

const brci_dialect brci_dialect_BRECCIA = {
    .read = read_all, .load = load, .store = store, .describes = describes, .global_kind = BRCI_ANY_KIND};
