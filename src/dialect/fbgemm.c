/* SPDX-License-Identifier: Apache-2.0
 * fbgemm_fp8 of transformers: X.weight F8_E4M3 [N,K] and X.weight_scale F32 [N,1], a multiplier for each row. Experts
 * of Llama 4 lie the other way round, inputs before outputs: [E,H,2I] with a scale for each column, [E,1,2I]; that of
 * down_proj is written [E,H,1], but means the columns of [E,I,H] all the same. Source: transformers'
 * integrations/fbgemm_fp8.py. */
#include "container/file.h"
#include "dialect/dialect.h"

#include <string.h>

static const brc_block row = {1, 1, 0}, column = {1, 0, 1};

/* ------------------------------------------------------------------------------------------------- reading */

static int fits_columns(const brc_tensor *t, const brc_named_array *scale) {
    const int64_t across[3] = {t->shape[0], 1, t->shape[2]}, down[3] = {t->shape[0], t->shape[2], 1};
    return t->rank == 3 && (brci_same_shape(3, across, scale->rank, scale->shape) ||
                            brci_same_shape(3, down, scale->rank, scale->shape));
}

static int fits(const brc_named_array *data, const brc_named_array *scale, brc_tensor *t) {
    *t = (brc_tensor){.size = sizeof *t, .format = BRC_E4M3, .rank = (uint8_t)data->rank};
    if (data->rank != 2 && data->rank != 3) return 0;
    memcpy(t->shape, data->shape, data->rank * sizeof *t->shape);
    t->row_pitch = t->shape[t->rank - 1];
    return t->rank == 2 ? brci_table_fits(t, row, scale) : fits_columns(t, scale);
}

static void read_tensor(brci_reader *reader, brci_reading *reading, const brc_named_array *data,
                        const brc_named_array *scale) {
    brci_pool *pool = reader->pool;
    brc_tensor *t = &reading->entry.tensor, found;
    const int fit = fits(data, scale, &found);
    if (data->array.format != BRC_E4M3 || scale->array.format != BRC_F32) {
        brci_refuse(reader, reading, BRC_ERROR, BRC_FORMAT,
                    brci_pool_print(pool, "%s with a scale of %s: fbgemm_fp8 has F8_E4M3 with F32",
                                    brci_array_text(pool, data), brci_array_text(pool, scale)));
        return;
    }
    *t = found;
    if (!fit) {
        brci_refuse_table(reader, reading, scale, t->rank == 2 ? &row : &column,
                          t->rank == 2 ? "fbgemm_fp8 (one scale for each row)"
                                       : "fbgemm_fp8 (one scale for each column)");
        return;
    }
    const brc_block block = t->rank == 2 ? row : column;
    t->layout = (uint8_t)brci_layout_of(block, 0);
    t->data = data->array.data;
    t->scale = (brc_table){scale->array.data, BRC_F32, BRC_KIND_MULTIPLIER, 0, block};
    t->recipe = brci_recipe_of(t);
    reading->entry.evidence =
        brci_pool_print(pool, "%s %s: one number for each %s of %s", scale->name, brci_array_text(pool, scale),
                        t->rank == 2 ? "row" : "column", brci_pool_shape(pool, t->rank, t->shape));
    brci_describe(pool, &reading->entry);
}

static brc_status read_all(brci_reader *reader, brc_error *err) {
    const int said = reader->forced == BRC_DIALECT_FBGEMM ||
                     (reader->forced == BRC_DIALECT_COUNT && brci_method_dialect(reader) == BRC_DIALECT_FBGEMM);
    (void)err;
    for (size_t i = 0; i < reader->n && brci_may_claim(reader, BRC_DIALECT_FBGEMM); i++) {
        const brc_named_array *data = brc_file_at(reader->file, i);
        const size_t length = strlen(data->name);
        const brc_named_array *scale = brci_sibling(reader, data->name, length, "_scale");
        brc_tensor t;
        if (scale == NULL || (data->array.format != BRC_E4M3 && data->array.format != BRC_E5M2)) continue;
        if (!said && (scale->array.format != BRC_F32 || data->array.format != BRC_E4M3 || !fits(data, scale, &t) ||
                      brci_has_foreign_scale(reader, data->name, length)))
            continue;
        brci_reading *reading = brci_propose(reader, BRC_DIALECT_FBGEMM, data->name, length);
        if (reading == NULL) break;
        brci_take(reader, reading, "data", data->name, length, "");
        brci_take(reader, reading, "scale", data->name, length, "_scale");
        read_tensor(reader, reading, data, scale);
    }
    return BRC_OK;
}

/* ------------------------------------------------------------------------------------------------- writing */

static int is_block(brc_block a, brc_block b, int rank) {
    return (rank <= 2 || a.batch == b.batch) && a.rows == b.rows && a.cols == b.cols;
}

static brc_status store(const char *name, const brc_tensor *t, const brc_entry *origin, brci_store *store,
                        brc_error *err) {
    (void)origin;
    if (t->format != BRC_E4M3 || t->scale.format != BRC_F32 || t->scale.kind != BRC_KIND_MULTIPLIER ||
        t->global.format != BRC_NONE || t->zero.format != BRC_NONE ||
        !((t->rank == 2 && is_block(t->scale.block, row, 2)) || (t->rank == 3 && is_block(t->scale.block, column, 3))))
        return brci_fail(
            err, BRC_UNSUPPORTED, 0,
            "fbgemm-fp8 stores e4m3 with an f32 scale for each row (of experts: each column); use the recipe "
            "fp8-row");
    brci_stored *data = brci_stored_new(store, name, strlen(name), "", BRC_E4M3);
    data->buffer = BRCI_DATA;
    data->rank = t->rank;
    memcpy(data->shape, t->shape, sizeof data->shape);
    brci_stored *scale = brci_stored_new(store, name, strlen(name), "_scale", BRC_F32);
    scale->buffer = BRCI_SCALE;
    TRY(brci_table_shape(t, t->scale.block, &scale->rank, scale->shape, err));
    if (t->rank == 3 && brci_stem(name, "down_proj") >= 0) {
        scale->shape[1] = scale->shape[2];
        scale->shape[2] = 1;
    }
    return BRC_OK;
}

static int config(brci_pool *pool, const brci_summary *summary, brci_text *texts) {
    const json_t *bound = json_object_get(summary->origin, "activation_scale_ub");
    json_t *object = json_pack("{s:s, s:f}", "quant_method", "fbgemm_fp8", "activation_scale_ub",
                               json_is_number(bound) ? json_number_value(bound) : 1200.0); /* transformers' default */
    brci_set_kept_modules(object, "modules_to_not_convert", summary);
    texts[0] = (brci_text){BRCI_CONFIG_NAME, "quantization_config", brci_json_text(pool, object)};
    return texts[0].text == NULL ? -1 : 1;
}

static const char *const recipes[] = {"fp8-row", NULL};

const brci_dialect brci_dialect_FBGEMM = {
    .scale_suffix = "_scale", .recipes = recipes, .read = read_all, .store = store, .config = config};
