/* SPDX-License-Identifier: Apache-2.0
 * How a tensor is stored by compressed-tensors: which of its formats, and as which arrays. */
#include "dialect/compressed.h"

#include <string.h>

/* --------------------------------------------------------------------------------------------- which format */

/* How the source kept these codes: integers of this width, that is. What was turned into them says nothing. */
static const brci_ct_layout *own_layout(const brc_tensor *t, const brc_entry *origin) {
    if (origin == NULL || origin->dialect != BRC_DIALECT_COMPRESSED) return NULL;
    const brci_ct_layout *own = ((const brci_reading *)(const void *)origin)->detail;
    const int integers = own != NULL && (own->format == BRCI_CT_INT || own->format == BRCI_CT_PACK);
    return integers && own->bits == brc_format_get((brc_format)t->format)->bits ? own : NULL;
}

static int is_high(unsigned format) { return format == BRC_F32 || format == BRC_F16 || format == BRC_BF16; }

static int is_block(brc_block b, uint32_t batch, uint32_t rows, uint32_t cols) {
    return b.batch == batch && b.rows == rows && b.cols == cols;
}

static int is_channel_or_group(const brc_tensor *t) {
    const brc_block b = t->scale.block;
    return b.rows == 1 && b.batch == 1 && (b.cols == 0 || t->shape[t->rank - 1] % b.cols == 0);
}

/* One scale a tensor, a row, a group, or a block whose edges may be partial. */
static int has_strategy(const brc_tensor *t) {
    const brc_block b = t->scale.block;
    return is_block(b, 0, 0, 0) || is_channel_or_group(t) || (b.batch == 1 && b.rows > 0 && b.cols > 0 && t->rank == 2);
}

static int has_block_of(const brc_tensor *t, const brci_ct_format *f) {
    return is_block(t->scale.block, 1, 1, f->columns) && t->shape[t->rank - 1] % f->columns == 0;
}

static int has_divisor(const brc_tensor *t) {
    const brc_table *g = &t->global;
    return g->format == BRC_F32 && g->kind == BRC_KIND_DIVISOR &&
           (is_block(g->block, 0, 0, 0) || (is_block(g->block, 1, 0, 0) && t->rank == 3));
}

static int integer_format(const brc_tensor *t, const brci_ct_layout *own) {
    const brc_format_info *f = brc_format_get((brc_format)t->format);
    const brc_table *z = &t->zero;
    const int is_signed = f->family == BRC_INT, grouped = t->scale.block.cols != 0;
    if (!is_high(t->scale.format) || !has_strategy(t)) return -1;
    if (z->format != BRC_NONE && (z->kind != BRC_KIND_CODE || z->format != (is_signed ? BRC_INT8 : BRC_UINT8) ||
                                  !is_block(z->block, t->scale.block.batch, t->scale.block.rows, t->scale.block.cols)))
        return -1;
    if (!is_signed && z->format == BRC_NONE) return -1; /* its words are codes less half their range */
    const int fits_words = is_channel_or_group(t) || (z->format == BRC_NONE && is_block(t->scale.block, 0, 0, 0));
    if (!is_signed || (fits_words && (own != NULL ? own->format == BRCI_CT_PACK : f->bits < 8 || grouped)))
        return fits_words ? BRCI_CT_PACK : -1;
    return BRCI_CT_INT;
}

int brci_ct_format_of(const brc_tensor *t, const brc_entry *origin) {
    const brc_format_info *f = brc_format_get((brc_format)t->format);
    if (t->rank < 2 || t->scale.kind != BRC_KIND_MULTIPLIER) return -1;
    if ((f->family == BRC_INT || f->family == BRC_UINT) && f->mantissa_bits == 0)
        return t->global.format == BRC_NONE ? integer_format(t, own_layout(t, origin)) : -1;
    if (t->zero.format != BRC_NONE || t->group_index != NULL) return -1;
    for (int i = 0; i < BRCI_CT_FORMATS; i++) {
        const brci_ct_format *row = &brci_ct_formats[i];
        if (row->element != t->format ||
            (row->scale == BRC_NONE ? !is_high(t->scale.format) : row->scale != t->scale.format))
            continue;
        if (row->columns != 0 ? !has_block_of(t, row) : !has_strategy(t)) continue;
        if (t->global.format != BRC_NONE && (i != BRCI_CT_NVFP4 || !has_divisor(t))) continue;
        if (i == BRCI_CT_MXFP6 && t->shape[t->rank - 1] % 4 != 0) continue;
        return i;
    }
    return -1;
}

/* ---------------------------------------------------------------------------------------------------- arrays */

static brci_stored *add(brci_store *store, const char *name, const char *suffix, brc_format format,
                        brci_buffer buffer) {
    brci_stored *made = brci_stored_new(store, name, strlen(name), suffix, format);
    made->buffer = buffer;
    return made;
}

static brc_status add_table(brci_store *store, const char *name, const char *suffix, const brc_tensor *t,
                            const brc_table *table, brci_buffer buffer, brc_error *err) {
    const brc_format stored = table->format == BRC_E8M0 ? BRC_UINT8 : (brc_format)table->format;
    brci_stored *made = add(store, name, suffix, stored, buffer);
    TRY(brci_table_shape(t, table->block, &made->rank, made->shape, err));
    if (made->rank == 0) brci_stored_number(store, 1);
    return BRC_OK;
}

static void add_codes(brci_store *store, const char *name, const brc_tensor *t, int format, int old_words) {
    const brci_ct_format *f = &brci_ct_formats[format];
    const unsigned bits = brc_format_get((brc_format)t->format)->bits;
    brci_stored *data = add(store, name, f->suffix, (brc_format)f->stored, BRCI_DATA);
    data->rank = t->rank;
    memcpy(data->shape, t->shape, sizeof data->shape);
    int64_t *columns = &data->shape[t->rank - 1];
    if (format == BRCI_CT_PACK) {
        *columns = brci_ct_words(*columns, bits, old_words);
        data->pack = brci_ct_pack_words;
        data->variant = old_words;
    } else if (f->suffix[0] != '\0') {
        *columns = *columns * bits / 8;
    } else if (bits < 8) {
        data->pack = brci_ct_pack_bytes;
    }
}

static void add_shape(brci_store *store, const char *name, const brc_tensor *t) {
    int64_t *shape = brci_pool_alloc(store->pool, BRC_MAX_RANK * sizeof *shape);
    brci_stored *made = add(store, name, "_shape", BRC_INT64, BRCI_DATA);
    if (shape != NULL) memcpy(shape, t->shape, t->rank * sizeof *shape);
    made->rank = 1;
    made->shape[0] = t->rank;
    made->bytes = shape;
}

static brc_status add_zeros(brci_store *store, const char *name, const brc_tensor *t, int format, int old_words,
                            brc_error *err) {
    TRY(add_table(store, name, "_zero_point", t, &t->zero, BRCI_ZERO, err));
    brci_stored *zero = &store->arrays[store->n - 1];
    if (format != BRCI_CT_PACK) return BRC_OK;
    zero->format = BRC_INT32;
    zero->shape[zero->rank - 2] =
        brci_ct_words(zero->shape[zero->rank - 2], brc_format_get((brc_format)t->format)->bits, old_words);
    zero->pack = brci_ct_pack_zeros;
    zero->variant = old_words;
    return BRC_OK;
}

static brc_status add_global(brci_store *store, const char *name, const brc_tensor *t, brc_error *err) {
    static const float one = 1; /* a tensor of one level: s / 1 */
    if (t->global.format != BRC_NONE) return add_table(store, name, "_global_scale", t, &t->global, BRCI_GLOBAL, err);
    brci_stored *made = add(store, name, "_global_scale", BRC_F32, BRCI_GLOBAL);
    made->rank = 1;
    made->shape[0] = 1;
    made->bytes = &one;
    return BRC_OK;
}

/* What the module keeps of its inputs and outputs. Conversion gives the scale of inputs in both directions: NVFP4 has a
 * divisor for its inputs, as for itself, bytes have a multiplier; else the one that the source has comes first. */
static void add_companions(brci_store *store, const char *name, const brc_entry *origin, int format) {
    static const char *const suffixes[][2] = {{"input_scale", "input_scale"},
                                              {"input_divisor", "input_global_scale"},
                                              {"input_zero_point", "input_zero_point"},
                                              {"output_scale", "output_scale"},
                                              {"output_zero_point", "output_zero_point"}};
    const int64_t module = brci_stem(name, "weight");
    const int bytes = format == BRCI_CT_FLOAT || format == BRCI_CT_INT;
    int inputs = 0;
    for (size_t p = 0; origin != NULL && module >= 0 && p < origin->n_parts; p++)
        for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
            const char *role = suffixes[i][0];
            if (strcmp(origin->parts[p].role, role) != 0) continue;
            if (i < 2 && (inputs++ > 0 && format != BRCI_CT_NVFP4 && !bytes)) continue;
            if ((i == 0 && format == BRCI_CT_NVFP4) || (i == 1 && bytes)) continue;
            if (brci_carry(store, origin, role, name, (size_t)module, suffixes[i][1])) brci_stored_number(store, 1);
        }
}

brc_status brci_ct_store(const char *name, const brc_tensor *t, const brc_entry *origin, brci_store *store,
                         brc_error *err) {
    const int format = brci_ct_format_of(t, origin);
    const brci_ct_layout *own = own_layout(t, origin);
    const int old_words = own != NULL && own->format == BRCI_CT_PACK && own->old_words;
    if (format < 0)
        return brci_fail(
            err, BRC_UNSUPPORTED, 0,
            "compressed-tensors stores e4m3 and integers with float scales (per tensor, row, group or block), "
            "mxfp8, mxfp6-e2m3, mxfp4, and nvfp4 with a divisor; use one of these recipes");
    add_codes(store, name, t, format, old_words);
    TRY(add_table(store, name, "_scale", t, &t->scale, BRCI_SCALE, err));
    if (format == BRCI_CT_NVFP4) TRY(add_global(store, name, t, err));
    if (t->zero.format != BRC_NONE) TRY(add_zeros(store, name, t, format, old_words, err));
    if (t->group_index != NULL) {
        brci_stored *index = add(store, name, "_g_idx", BRC_INT32, BRCI_GROUP_INDEX);
        index->rank = 1;
        index->shape[0] = t->shape[t->rank - 1];
    }
    if (format == BRCI_CT_PACK) add_shape(store, name, t);
    add_companions(store, name, origin, format);
    return store->pool->failed ? brci_fail(err, BRC_MEMORY, 0, "out of memory") : BRC_OK;
}
