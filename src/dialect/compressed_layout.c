/* SPDX-License-Identifier: Apache-2.0
 * By which format of compressed-tensors arrays are stored: the types tell, the widths of packed codes tell their bits
 * and the logical shape. */
#include "dialect/compressed.h"

#include <stdlib.h>
#include <string.h>

const brci_ct_format brci_ct_formats[BRCI_CT_FORMATS] = {
    /*                  format in the configuration  codes      stored     element   scale     bits columns */
    [BRCI_CT_FLOAT] = {"float-quantized", "", BRC_E4M3, BRC_E4M3, BRC_NONE, 8, 0},
    [BRCI_CT_INT] = {"int-quantized", "", BRC_INT8, BRC_NONE, BRC_NONE, 0, 0},
    [BRCI_CT_PACK] = {"pack-quantized", "_packed", BRC_INT32, BRC_NONE, BRC_NONE, 0, 0},
    [BRCI_CT_NVFP4] = {"nvfp4-pack-quantized", "_packed", BRC_UINT8, BRC_E2M1, BRC_E4M3, 4, 16},
    [BRCI_CT_MXFP4] = {"mxfp4-pack-quantized", "_packed", BRC_UINT8, BRC_E2M1, BRC_E8M0, 4, 32},
    [BRCI_CT_MXFP6] = {"mxfp6-pack-quantized", "_packed", BRC_UINT8, BRC_E2M3, BRC_E8M0, 6, 32},
    [BRCI_CT_MXFP8] = {"mxfp8-quantized", "", BRC_E4M3, BRC_E4M3, BRC_E8M0, 8, 32}};

#define INTEGER(bits) ((uint8_t)(BRC_INT2 + (bits)-2)) /* formats.def has them in a row */

/* ------------------------------------------------------------------------------------------------ refusing */

int brci_ct_refuse(brci_ct_arrays *a, brc_severity severity, brc_status status, const char *text) {
    brci_refuse(a->reader, a->reading, severity, status, text);
    return 0;
}

int brci_ct_malformed(brci_ct_arrays *a, const char *text) { return brci_ct_refuse(a, BRC_ERROR, BRC_MALFORMED, text); }

/* "config.json's group_0 says" what the arrays deny. */
int brci_ct_contradicts(brci_ct_arrays *a, const char *says, const brc_named_array *array) {
    return brci_ct_refuse(
        a, BRC_AMBIGUITY, BRC_AMBIGUOUS,
        brci_pool_print(a->reader->pool, "config.json's %.60s says %s, but %s is %s; correct one of them",
                        a->scheme->group, says, array->name, brci_array_text(a->reader->pool, array)));
}

/* -------------------------------------------------------------------------------------------------- format */

brc_format brci_ct_meaning(const brc_named_array *scale) {
    switch ((brc_format)scale->array.format) {
    case BRC_F32:
    case BRC_F16:
    case BRC_BF16: return BRC_NONE; /* as it is */
    case BRC_E4M3: return BRC_E4M3;
    case BRC_UINT8:
    case BRC_E8M0: return BRC_E8M0;
    default: return BRC_FORMAT_COUNT;
    }
}

/* 4 codes in 2 bytes or in 3: with blocks of 32 the widths of codes and scales tell. */
static int has_width(const brci_ct_arrays *a, int format) {
    if (a->data->rank == 0 || a->scale->rank != a->data->rank) return 0;
    const int64_t width = a->data->shape[a->data->rank - 1], blocks = a->scale->shape[a->scale->rank - 1];
    return blocks <= INT64_MAX / 32 && width == blocks * 4 * brci_ct_formats[format].bits;
}

/* The format by which these arrays are stored; -1 = none. */
static int find_format(const brci_ct_arrays *a) {
    const int packed = brci_stem(a->data->name, "_packed") >= 0;
    for (int i = 0; i < BRCI_CT_FORMATS; i++) {
        const brci_ct_format *f = &brci_ct_formats[i];
        if (f->stored != a->data->array.format || f->scale != brci_ct_meaning(a->scale) ||
            packed != (f->suffix[0] != '\0'))
            continue;
        if (i == BRCI_CT_MXFP4 && has_width(a, BRCI_CT_MXFP6)) continue;
        return i;
    }
    return -1;
}

static int is_naive(const char *word, int format) {
    return strcmp(word, "naive-quantized") == 0 && (format == BRCI_CT_FLOAT || format == BRCI_CT_INT);
}

/* Whether the configuration and the format that the arrays have go together. */
static int check_format(brci_ct_arrays *a, int format) {
    const brci_ct_scheme *s = a->scheme;
    const brci_ct_format *f = &brci_ct_formats[format];
    brci_pool *pool = a->reader->pool;
    if (s == NULL) return 1;
    if (s->word != NULL && strcmp(s->word, f->word) != 0 && !is_naive(s->word, format))
        return brci_ct_contradicts(a, brci_pool_print(pool, "format %.40s", s->word), a->data);
    if (s->is_float != (f->element != BRC_NONE))
        return brci_ct_contradicts(a, s->is_float ? "type float" : "type int", a->data);
    if (f->bits != 0 ? s->bits != f->bits : s->bits < 2 || s->bits > 8)
        return brci_ct_contradicts(a, brci_pool_print(pool, "num_bits %d", s->bits), a->data);
    return 1;
}

/* --------------------------------------------------------------------------------------------------- shape */

int64_t brci_ct_words(int64_t n, unsigned bits, int old_words) {
    const int64_t per_word = 32 / bits;
    return old_words ? n / per_word + (n % per_word != 0) : n / 32 * bits + (n % 32 * bits + 31) / 32;
}

/* The number of a weight_shape; the array lies at any byte. */
static int64_t stored_integer(const brc_named_array *a, uint32_t i) {
    int64_t wide = 0;
    int32_t narrow;
    if (a->array.format == BRC_INT64) memcpy(&wide, (const uint8_t *)a->array.data + i * 8, sizeof wide);
    else memcpy(&narrow, (const uint8_t *)a->array.data + i * 4, sizeof narrow), wide = narrow;
    return wide;
}

/* The logical shape of packed integers stands in an array of its own; its width is all that the words do not say. */
static int read_shape(brci_ct_arrays *a, brc_tensor *t) {
    const brc_named_array *shape = a->shape, *data = a->data;
    brci_pool *pool = a->reader->pool;
    if (shape == NULL)
        return brci_ct_malformed(a, "its weight_shape is missing: the words alone do not say how many codes they hold");
    if ((shape->array.format != BRC_INT64 && shape->array.format != BRC_INT32) || shape->rank != 1 ||
        shape->shape[0] != data->rank)
        return brci_ct_malformed(a, brci_pool_print(pool, "%s is %s; it must be I64 with the %u sides of the weight",
                                                    shape->name, brci_array_text(pool, shape), data->rank));
    for (uint32_t i = 0; i < data->rank; i++) {
        t->shape[i] = stored_integer(shape, i);
        if (t->shape[i] < 1 || t->shape[i] > INT64_MAX / 64 || (i + 1 < data->rank && t->shape[i] != data->shape[i]))
            return brci_ct_refuse(a, BRC_ERROR, BRC_SHAPE,
                                  brci_pool_print(pool, "%s says %lld for side %u of the weight, but %s is %s",
                                                  shape->name, (long long)t->shape[i], i, data->name,
                                                  brci_array_text(pool, data)));
    }
    return 1;
}

/* Before 0.18 words held whole codes. "version" counts where the width fits both. */
static int is_old_version(const brci_reader *reader) {
    const char *version = json_string_value(json_object_get(reader->quantization, "version"));
    return version != NULL && strncmp(version, "0.", 2) == 0 && strtol(version + 2, NULL, 10) < 18;
}

/* Bits of a code and the kind of words: every pair that gives the width; two that lie alike are one. */
static int find_words(brci_ct_arrays *a, int64_t columns, brci_ct_layout *layout) {
    brci_pool *pool = a->reader->pool;
    const int64_t width = a->data->shape[a->data->rank - 1];
    const int given = a->scheme != NULL ? a->scheme->bits : 0;
    const char *found = "";
    int n = 0;
    for (int bits = given != 0 ? given : 2; bits <= (given != 0 ? given : 8); bits++)
        for (int old = 0; old < 2; old++) {
            const int same = 32 % bits == 0 || columns <= 32 / bits; /* both kinds of words lie alike */
            if (brci_ct_words(columns, (unsigned)bits, old) != width || (old && same)) continue;
            const int fits_both = !same && brci_ct_words(columns, (unsigned)bits, !old) == width;
            if (fits_both && given != 0 && json_object_get(a->reader->quantization, "version") != NULL &&
                old != is_old_version(a->reader))
                continue;
            layout->bits = (uint8_t)bits;
            layout->old_words = (uint8_t)old;
            found = brci_pool_print(pool, "%s%s%d bits%s", found, n++ == 0 ? "" : ", ", bits,
                                    old ? " in words of whole codes" : "");
        }
    if (n == 1) return 1;
    if (n > 1)
        return brci_ct_refuse(
            a, BRC_AMBIGUITY, BRC_AMBIGUOUS,
            brci_pool_print(pool, "%s is %s, which for %lld columns fits %s; config.json must say num_bits%s",
                            a->data->name, brci_array_text(pool, a->data), (long long)columns, found,
                            given != 0 ? " and version" : ""));
    if (given != 0) return brci_ct_contradicts(a, brci_pool_print(pool, "num_bits %d", given), a->data);
    return brci_ct_refuse(a, BRC_ERROR, BRC_SHAPE,
                          brci_pool_print(pool, "%s is %s, which is no width for %lld columns", a->data->name,
                                          brci_array_text(pool, a->data), (long long)columns));
}

int brci_ct_find_layout(brci_ct_arrays *a, brci_ct_layout *layout) {
    brc_tensor *t = &a->reading->entry.tensor;
    brci_pool *pool = a->reader->pool;
    const int format = find_format(a);
    if (format < 0)
        return brci_ct_refuse(a, BRC_ERROR, BRC_FORMAT,
                              brci_pool_print(pool, "%s with a scale of %s: no format of compressed-tensors",
                                              brci_array_text(pool, a->data), brci_array_text(pool, a->scale)));
    if (a->data->rank < 2 || a->data->rank > BRC_MAX_RANK)
        return brci_ct_refuse(a, BRC_ERROR, BRC_SHAPE,
                              brci_pool_print(pool, "%s is %s; a weight needs two dimensions", a->data->name,
                                              brci_array_text(pool, a->data)));
    if (!check_format(a, format)) return 0;
    const brci_ct_format *f = &brci_ct_formats[format];
    *layout = (brci_ct_layout){.format = (uint8_t)format, .bits = f->bits != 0 ? f->bits : 8};
    *t = (brc_tensor){.size = sizeof *t, .rank = (uint8_t)a->data->rank};
    memcpy(t->shape, a->data->shape, a->data->rank * sizeof *t->shape);
    int64_t *columns = &t->shape[t->rank - 1];
    if (format == BRCI_CT_PACK) {
        if (!read_shape(a, t) || !find_words(a, *columns, layout)) return 0;
    } else if (a->shape != NULL) {
        return brci_ct_malformed(a, brci_pool_print(pool, "%s has no place beside %s", a->shape->name, a->data->name));
    } else if (f->suffix[0] != '\0') { /* whole bytes of codes: pairs, or fours in three */
        if (*columns * 8 % f->bits != 0)
            return brci_ct_refuse(a, BRC_ERROR, BRC_SHAPE,
                                  brci_pool_print(pool, "%s is %s: %u-bit codes come four in three bytes",
                                                  a->data->name, brci_array_text(pool, a->data), f->bits));
        *columns = *columns * 8 / f->bits;
    } else if (format == BRCI_CT_INT && a->scheme != NULL) {
        layout->bits = (uint8_t)a->scheme->bits;
    }
    t->format = f->element != BRC_NONE ? f->element : INTEGER(layout->bits);
    t->row_pitch = brc_row_bytes((brc_format)t->format, *columns);
    return 1;
}
