/* SPDX-License-Identifier: Apache-2.0
 * How a tensor is stored so that ComfyUI loads it. */
#include "dialect/comfyui.h"
#include "dialect/packing.h"

#include <stdlib.h>
#include <string.h>

static int is_high(unsigned format) { return format == BRC_F32 || format == BRC_F16 || format == BRC_BF16; }

static int is_block(brc_block a, brc_block b) { return a.rows == b.rows && a.cols == b.cols; }

static int has_sides(const brc_tensor *t, int64_t side) {
    return side == 1 ||
           (t->rank == 2 && t->shape[0] % side == 0 && t->shape[1] % side == 0 && t->shape[0] <= INT64_MAX - 128);
}

static int has_global(const brc_tensor *t) {
    const brc_table *g = &t->global;
    if (g->format == BRC_NONE) return 1; /* written as 1 */
    return t->format == BRC_E2M1 && g->format == BRC_F32 && g->kind == BRC_KIND_MULTIPLIER && g->block.rows == 0 &&
           g->block.cols == 0 && g->block.batch == 0;
}

/* The format that a tensor is of; NULL = none. */
static const brci_comfy_format *format_of(const brc_tensor *t) {
    const brc_block row = {1, 1, 0}, own = t->scale.block;
    if (t->zero.format != BRC_NONE || t->group_index != NULL || t->scale.kind != BRC_KIND_MULTIPLIER || !has_global(t))
        return NULL;
    for (size_t i = 0; i < brci_comfy_n_formats; i++) {
        const brci_comfy_format *f = &brci_comfy_formats[i];
        if (f->element != t->format || (f->scale == BRC_NONE ? !is_high(t->scale.format) : f->scale != t->scale.format))
            continue;
        const int whole = is_block(own, f->block) && (f->block.cols != 0 || own.batch == 0);
        if (has_sides(t, f->side) && (whole || (f->rows && t->rank == 2 && is_block(own, row)))) return f;
    }
    return NULL;
}

/* The first code of a pair in the high bits. */
static brc_status swap_pairs(const brc_tensor *t, const brci_stored *stored, void *bytes, brc_error *err) {
    uint8_t *to = bytes;
    (void)err;
    for (int64_t n = 0; n < t->shape[0]; n++) {
        const uint8_t *from = (const uint8_t *)t->data + n * t->row_pitch;
        for (int64_t i = 0; i < stored->shape[1]; i++) *to++ = (uint8_t)(from[i] >> 4 | from[i] << 4);
    }
    return BRC_OK;
}

static brc_status tile(const brc_tensor *t, const brci_stored *stored, void *bytes, brc_error *err) {
    (void)stored, (void)err;
    brci_tile(t->scale.data, t->shape[0], t->shape[1] / t->scale.block.cols, bytes);
    return BRC_OK;
}

/* What the source of this dialect says of the tensor; NULL = it is not of it, or was of another format. */
static const brci_comfy *before(const brc_entry *origin, const brci_comfy_format *f) {
    const brci_comfy *own = origin == NULL || origin->dialect != BRC_DIALECT_COMFYUI
                                ? NULL
                                : ((const brci_reading *)(const void *)origin)->detail;
    return own != NULL && own->format == f ? own : NULL;
}

static brc_status add_scale(brci_store *store, const char *name, size_t length, const char *suffix, const brc_tensor *t,
                            const brc_named_array *as, brc_error *err) {
    const int tiled = t->scale.block.cols != 0;
    brci_stored *scale = brci_stored_new(
        store, name, length, suffix, tiled && as != NULL ? (brc_format)as->array.format : (brc_format)t->scale.format);
    scale->buffer = BRCI_SCALE;
    TRY(brci_table_shape(t, t->scale.block, &scale->rank, scale->shape, err));
    if (scale->rank == 0 && as != NULL) brci_stored_number(store, (int)as->rank);
    if (!tiled) return BRC_OK;
    scale->shape[0] = (scale->shape[0] + 127) / 128 * 128;
    scale->shape[1] = (scale->shape[1] + 3) / 4 * 4;
    scale->pack = tile;
    return BRC_OK;
}

static void add_second(brci_store *store, const char *name, const brc_tensor *t, const brc_named_array *as) {
    static const float one = 1; /* of a tensor of one level */
    brci_stored *second = brci_stored_new(store, name, strlen(name), "_scale_2", BRC_F32);
    if (t->global.format == BRC_NONE) second->bytes = &one;
    else second->buffer = BRCI_GLOBAL;
    if (as != NULL) brci_stored_number(store, (int)as->rank);
}

static void add_description(brci_store *store, const char *name, size_t module, const brci_comfy_format *f) {
    const char *text = brci_pool_print(store->pool, "{\"format\": \"%s\"}", f->word);
    brci_stored *made = brci_stored_new(store, name, module, ".comfy_quant", BRC_UINT8);
    made->rank = 1;
    made->shape[0] = (int64_t)strlen(text);
    made->bytes = text;
}

brc_status brci_comfy_store(const char *name, const brc_tensor *t, const brc_entry *origin, brci_store *store,
                            brc_error *err) {
    const brci_comfy_format *f = format_of(t);
    const int64_t module = brci_stem(name, ".weight");
    if (module < 0) return brci_fail(err, BRC_UNSUPPORTED, 0, "ComfyUI stores weights of modules, named module.weight");
    if (f == NULL)
        return brci_fail(err, BRC_UNSUPPORTED, 0,
                         "ComfyUI stores e4m3 and e5m2 with one scale a tensor, int8 with one a tensor or a row, nvfp4 "
                         "with a multiplier and sides that 16 divides, and mxfp8 with sides that 32 divides; use one "
                         "of these recipes");
    const brci_comfy *own = before(origin, f);
    const int older = own != NULL && own->place == BRCI_COMFY_NAMES;
    brci_stored *data = brci_stored_new(store, name, strlen(name), "", (brc_format)f->stored);
    data->buffer = BRCI_DATA;
    data->rank = t->rank;
    memcpy(data->shape, t->shape, sizeof data->shape);
    if (f->stored == BRC_UINT8) {
        data->shape[t->rank - 1] /= 2;
        data->pack = swap_pairs;
    }
    TRY(add_scale(store, name, (size_t)module, older ? ".scale_weight" : ".weight_scale", t,
                  own == NULL ? NULL : brci_part(origin, "scale"), err));
    if (f->element == BRC_E2M1) add_second(store, name, t, own == NULL ? NULL : brci_part(origin, "global_scale"));
    if (own == NULL) add_description(store, name, (size_t)module, f);
    else brci_carry(store, origin, "description", name, (size_t)module, ".comfy_quant");
    brci_carry(store, origin, "input_scale", name, (size_t)module, older ? ".scale_input" : ".input_scale");
    const brc_named_array *marker = older ? brci_part(origin, "marker") : NULL;
    if (marker != NULL) brci_carry(store, origin, "marker", marker->name, strlen(marker->name), "");
    return BRC_OK;
}

/* The layers that the pair of the source described, and still does. */
int brci_comfy_texts(brci_pool *pool, const brci_summary *summary, brci_text *texts) {
    json_t *layers = json_object();
    for (size_t i = 0; i < summary->n_written; i++) {
        const brci_written *w = &summary->written[i];
        const brci_comfy_format *f = format_of(w->tensor);
        const brci_comfy *own = f == NULL ? NULL : before(w->origin, f);
        if (own == NULL || own->place != BRCI_COMFY_PAIR || own->text == NULL) continue;
        json_object_setn_new(layers, w->name, strlen(w->name) - strlen(".weight"), json_loads(own->text, 0, NULL));
    }
    if (json_object_size(layers) == 0) {
        json_decref(layers);
        return 0;
    }
    json_t *root = json_pack("{s:s, s:o}", "format_version", "1.0", "layers", layers);
    texts[0] = (brci_text){NULL, BRCI_COMFYUI_KEY, brci_json_text(pool, root)};
    return texts[0].text == NULL ? -1 : 1;
}
