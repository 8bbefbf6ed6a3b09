/* SPDX-License-Identifier: Apache-2.0
 * A scaled tensor as MLX's quantized layers have it. Integers of others become affine ones: code + bias for code - zero
 * point, bias = -zero * scale in the type of the scales. */
#include "dialect/config_text.h"
#include "dialect/mlx.h"
#include "dialect/packing.h"

#include "container/file.h"

#include <stdlib.h>
#include <string.h>

static int is_along_rows(brc_block b) { return b.batch == 1 && b.rows == 1; }

/* The mode that stores a tensor; NULL = none. */
static int mode_of(const brc_tensor *t, brci_mlx *found) {
    const brc_format_info *f = brc_format_get((brc_format)t->format);
    const brc_block s = t->scale.block, z = t->zero.block;
    const unsigned scale = t->scale.format;
    if (t->global.format != BRC_NONE || t->group_index != NULL || !is_along_rows(s) || t->rank < 2) return 0;
    for (int i = 0; i < BRCI_MLX_MODES; i++) {
        const brci_mlx_mode *m = &brci_mlx_modes[i];
        if (t->format != m->element || scale != m->scale || s.cols != (uint32_t)m->mlx.group ||
            t->zero.format != BRC_NONE)
            continue;
        *found = m->mlx;
        return 1;
    }
    const int is_integer = (f->family == BRC_INT || f->family == BRC_UINT) && f->mantissa_bits == 0;
    if (!is_integer || brci_mlx_element(f->bits) == BRC_NONE || !brci_mlx_is_group(s.cols) ||
        (scale != BRC_F32 && scale != BRC_F16 && scale != BRC_BF16))
        return 0;
    *found = (brci_mlx){"affine", (int)s.cols, f->bits};
    if (t->zero.format == BRC_NONE) return 1;
    if (!is_along_rows(z) || z.cols != s.cols) return 0;
    if (t->zero.kind == BRC_KIND_REAL) return f->family == BRC_UINT && t->zero.format == scale;
    return 1;
}

/* ---------------------------------------------------------------------------------------------------- arrays */

/* Two's complement -> offset codes. */
static brc_status offset(const brc_tensor *t, const brci_stored *s, void *bytes, brc_error *err) {
    const brc_format_info *f = brc_format_get((brc_format)t->format);
    const int64_t row = brc_row_bytes((brc_format)t->format, t->shape[t->rank - 1]), n = brci_stored_bytes(s);
    brc_tensor packed = *t;
    uint8_t *codes = malloc((size_t)(n * 8 / f->bits) + 1);
    if (codes == NULL) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    packed.row_pitch = row;
    brci_unpack_codes(t, 0, 1u << (f->bits - 1), codes);
    const brc_status status = brci_pack_codes(s->name, codes, 0, &packed, bytes, err);
    free(codes);
    return status;
}

/* bias = -(zero + offset) * scale, rounded to the type of the scales. */
static brc_status make_biases(const brc_tensor *t, const brci_stored *s, void *bytes, brc_error *err) {
    const brc_format_info *f = brc_format_get((brc_format)t->format);
    const brc_format format = (brc_format)t->scale.format;
    const int width = brc_format_get(format)->bits / 8;
    const double shift = f->family == BRC_INT ? (double)(1 << (f->bits - 1)) : 0;
    for (int64_t i = 0; i < brci_stored_bytes(s) / width; i++) {
        const double zero = t->zero.data == NULL ? 0 : brc_table_number(&t->zero, i);
        const float bias = (float)(-(zero + shift) * brc_table_number(&t->scale, i));
        float back;
        TRY(brc_encode(format, &bias, 1, (uint8_t *)bytes + i * width, err));
        TRY(brc_decode(format, (uint8_t *)bytes + i * width, 1, &back, err));
        if (back - back != 0 && bias - bias == 0)
            return brci_fail(err, BRC_UNSUPPORTED, (uint64_t)i, "the bias %g is beyond %s", (double)bias,
                             brc_format_get(format)->name);
    }
    return BRC_OK;
}

static brci_stored *add(brci_store *store, const char *name, size_t length, const char *suffix, const brc_tensor *t,
                        unsigned format, brci_buffer buffer, int64_t last) {
    brci_stored *made = brci_stored_new(store, name, length, suffix, (brc_format)format);
    made->buffer = buffer;
    made->rank = t->rank;
    memcpy(made->shape, t->shape, sizeof made->shape);
    made->shape[t->rank - 1] = last;
    return made;
}

brc_status brci_mlx_store(const char *name, const brc_tensor *t, const brc_entry *origin, brci_store *store,
                          brc_error *err) {
    const int64_t length = brci_stem(name, ".weight"), columns = t->rank < 1 ? 0 : t->shape[t->rank - 1];
    brci_mlx mode;
    (void)origin;
    if (length < 1 || !mode_of(t, &mode) || columns % mode.group != 0 || columns * mode.bits % 32 != 0)
        return brci_fail(err, BRC_UNSUPPORTED, 0,
                         "mlx stores weights called X.weight in whole groups of columns: mxfp4, mxfp8, nvfp4 without a "
                         "global scale, and integers of 2 to 6 and 8 bits in groups of 32, 64 or 128");
    const int affine = strcmp(mode.mode, "affine") == 0;
    const int is_signed = affine && brc_format_get((brc_format)t->format)->family == BRC_INT;
    brci_stored *weight =
        add(store, name, (size_t)length, ".weight", t, BRC_UINT32, BRCI_DATA, columns * mode.bits / 32);
    if (is_signed) weight->pack = offset;
    add(store, name, (size_t)length, ".scales", t, affine ? t->scale.format : BRC_UINT8, BRCI_SCALE,
        columns / mode.group);
    if (!affine) return BRC_OK;
    brci_stored *biases =
        add(store, name, (size_t)length, ".biases", t, t->scale.format, BRCI_ZERO, columns / mode.group);
    if (t->zero.format == BRC_NONE || t->zero.kind != BRC_KIND_REAL) biases->pack = make_biases;
    return BRC_OK;
}

/* ---------------------------------------------------------------------------------------------------- config */

static int same_mode(const brci_mlx *a, const brci_mlx *b) {
    return a->group == b->group && a->bits == b->bits && strcmp(a->mode, b->mode) == 0;
}

static json_t *words_of(const brci_mlx *m) {
    return json_pack("{s:i, s:i, s:s}", "group_size", m->group, "bits", m->bits, "mode", m->mode);
}

/* The mode of most layers; the others have theirs under their own name. Layers that stayed as they are have no scales,
 * by which MLX's loaders know them. */
int brci_mlx_config(brci_pool *pool, const brci_summary *summary, brci_text *texts) {
    brci_mlx most = {0}, other = {0};
    size_t votes = 0;
    for (size_t i = 0; i < summary->n_written; i++) { /* Boyer and Moore's vote: some frequent mode will do */
        if (!mode_of(summary->written[i].tensor, &other)) continue;
        if (votes == 0) most = other;
        votes = votes == 0 || same_mode(&most, &other) ? votes + 1 : votes - 1;
    }
    if (most.mode == NULL) return 0;
    json_t *object = words_of(&most);
    for (size_t i = 0; i < summary->n_written; i++) {
        const int64_t length = brci_stem(summary->written[i].name, ".weight");
        if (!mode_of(summary->written[i].tensor, &other) || same_mode(&most, &other) || length < 1) continue;
        json_object_set_new(object, brci_pool_copy(pool, summary->written[i].name, (size_t)length), words_of(&other));
    }
    const char *text = brci_json_text(pool, object);
    texts[0] = (brci_text){BRCI_CONFIG_NAME, brci_mlx_key, text};
    texts[1] = (brci_text){BRCI_CONFIG_NAME, "quantization_config", text};
    texts[2] = (brci_text){NULL, brci_mlx_key, text};
    return text == NULL ? -1 : 3;
}
