/* SPDX-License-Identifier: Apache-2.0
 * torchao's classes: what their arrays mean, and what their attributes say about it. An attribute that the shapes
 * contradict is refused: torchao itself would compute nonsense or fail. */
#include "dialect/torchao.h"

#include <string.h>

const char *const brci_torchao_class_names[BRCI_TORCHAO_CLASSES] = {
    "Float8Tensor", "Int8Tensor", "IntxUnpackedToInt8Tensor", "Int4Tensor", "MXTensor", "NVFP4Tensor"};

/* MXTensor's FP6 has no torch.dtype: a plain string. */
static const struct {
    const char *word;
    brc_format format;
    int is_dtype;
} words[] = {{"float32", BRC_F32, 1},        {"bfloat16", BRC_BF16, 1},    {"float16", BRC_F16, 1},
             {"float8_e4m3fn", BRC_E4M3, 1}, {"float8_e5m2", BRC_E5M2, 1}, {"float4_e2m1fn_x2", BRC_E2M1, 1},
             {"fp6_e2m3", BRC_E2M3, 0},      {"fp6_e3m2", BRC_E3M2, 0},    {"int2", BRC_INT2, 1},
             {"int3", BRC_INT3, 1},          {"int4", BRC_INT4, 1},        {"int5", BRC_INT5, 1},
             {"int6", BRC_INT6, 1},          {"int7", BRC_INT7, 1},        {"int8", BRC_INT8, 1},
             {"int1", BRC_INT2, 1}}; /* -1 and 0 are codes of int2, too, which is what is written */

brc_format brci_torch_format(const json_t *value) {
    const char *type = json_string_value(json_object_get(value, "_type"));
    const int is_dtype = type != NULL && strcmp(type, "torch.dtype") == 0;
    const char *word = json_string_value(is_dtype ? json_object_get(value, "_data") : value);
    for (size_t i = 0; word != NULL && i < sizeof words / sizeof *words; i++)
        if (words[i].is_dtype == is_dtype && strcmp(words[i].word, word) == 0) return words[i].format;
    return BRC_NONE;
}

const char *brci_torch_word(unsigned format) {
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (words[i].format == format) return words[i].word;
    return NULL;
}

/* ---------------------------------------------------------------------------------------- one tensor, being read */

typedef struct description {
    brci_reader *reader;
    brci_reading *reading;
    brci_torchao *found;
    const json_t *attributes;
    const brc_named_array *data, *scale, *zero; /* zero may be NULL */
    int rank;
    int64_t shape[BRC_MAX_RANK]; /* logical */
    int64_t sides[BRC_MAX_RANK]; /* of a block */
} description;

static int refuse(description *d, brc_status status, const char *text) {
    brci_refuse(d->reader, d->reading, BRC_ERROR, status, text);
    return 0;
}
#define REFUSE(d, status, ...) refuse(d, status, brci_pool_print((d)->reader->pool, __VA_ARGS__))

static const char *array_text(const description *d, const brc_named_array *a) {
    return brci_array_text(d->reader->pool, a);
}

static const char *shape_text(const description *d, const int64_t *shape) {
    return brci_pool_shape(d->reader->pool, d->rank, shape);
}

static int is_one_of(const brc_named_array *a, const brc_format *formats, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (a->array.format == formats[i]) return 1;
    return 0;
}

static const brc_format high[] = {BRC_F32, BRC_F16, BRC_BF16};

static int take_format(description *d, const brc_named_array *a, const brc_format *formats, size_t n,
                       const char *expected) {
    if (is_one_of(a, formats, n)) return 1;
    return REFUSE(d, BRC_FORMAT, "%s is %s; %s has %s there", a->name, a->dtype,
                  brci_torchao_class_names[d->found->klass], expected);
}

/* The logical shape: the data's, its last axis `codes` times as long. */
static int take_shape(description *d, int64_t codes) {
    const brc_named_array *a = d->data;
    if (a->rank < 1 || a->rank > BRC_MAX_RANK)
        return REFUSE(d, BRC_SHAPE, "%s is %s; it must have 1 to %d dimensions", a->name, array_text(d, a),
                      BRC_MAX_RANK);
    d->rank = (int)a->rank;
    memcpy(d->shape, a->shape, a->rank * sizeof *d->shape);
    if (__builtin_mul_overflow(d->shape[d->rank - 1], codes, &d->shape[d->rank - 1]))
        return REFUSE(d, BRC_OVERFLOW, "%s is too large", a->name);
    return 1;
}

/* block_size as a list with a side for each axis; 1 = given, 0 = not given, -1 = refused. */
static int take_sides(description *d) {
    const json_t *list = json_object_get(d->attributes, "block_size");
    if (list == NULL || json_is_null(list)) return 0;
    if (!json_is_array(list) || (json_array_size(list) > 0 && json_array_size(list) != (size_t)d->rank)) {
        REFUSE(d, BRC_MALFORMED, "block_size in its description has no side for each of the %d axes of %s", d->rank,
               d->data->name);
        return -1;
    }
    for (int i = 0; i < (int)json_array_size(list); i++) {
        const json_t *side = json_array_get(list, (size_t)i);
        d->sides[i] = json_integer_value(side);
        if (!json_is_integer(side) || d->sides[i] < 1) {
            REFUSE(d, BRC_MALFORMED, "block_size in its description is no list of positive numbers");
            return -1;
        }
        if (d->shape[i] % d->sides[i] != 0) {
            REFUSE(d, BRC_SHAPE, "block_size in its description is %lld along axis %d, which does not divide %s",
                   (long long)d->sides[i], i, shape_text(d, d->shape));
            return -1;
        }
    }
    return json_array_size(list) > 0;
}

/* A block_size of one number: along the last axis. */
static int take_last_side(description *d) {
    const json_t *side = json_object_get(d->attributes, "block_size");
    for (int i = 0; i < d->rank; i++) d->sides[i] = 1;
    d->sides[d->rank - 1] = json_integer_value(side);
    if (!json_is_integer(side) || d->sides[d->rank - 1] < 1 || d->sides[d->rank - 1] > INT32_MAX)
        return REFUSE(d, BRC_MALFORMED, "block_size in its description is no positive number");
    if (d->shape[d->rank - 1] % d->sides[d->rank - 1] != 0)
        return REFUSE(d, BRC_SHAPE, "block_size %lld in its description does not divide the rows of %s",
                      (long long)d->sides[d->rank - 1], shape_text(d, d->shape));
    return 1;
}

/* The shape of a table: a number for each block. */
static void table_shape(const description *d, int64_t shape[BRC_MAX_RANK]) {
    for (int i = 0; i < d->rank; i++) shape[i] = d->shape[i] / d->sides[i];
    if (d->found->transposed && d->rank >= 2) {
        int64_t last = shape[d->rank - 1];
        shape[d->rank - 1] = shape[d->rank - 2];
        shape[d->rank - 2] = last;
    }
}

static int check_table(description *d, const brc_named_array *table) {
    int64_t expected[BRC_MAX_RANK], turned[BRC_MAX_RANK];
    table_shape(d, expected);
    if (brci_same_shape(d->rank, expected, table->rank, table->shape)) return 1;
    memcpy(turned, expected, sizeof turned);
    if (d->rank >= 2) {
        turned[d->rank - 1] = expected[d->rank - 2];
        turned[d->rank - 2] = expected[d->rank - 1];
    }
    return REFUSE(d, BRC_SHAPE, "%s is %s%s; blocks of %s of the shape %s give %s%s", table->name, array_text(d, table),
                  brci_same_shape(d->rank, turned, table->rank, table->shape) ? ", rows and columns exchanged" : "",
                  shape_text(d, d->sides), shape_text(d, d->shape), shape_text(d, expected),
                  d->found->transposed ? ", groups before rows" : "");
}

/* Sides of a block as breccia has them: 0 = the whole axis. Leading axes are one by one, or whole. */
static int take_block(description *d, brc_block *block) {
    const int lead = d->rank > 2 ? d->rank - 2 : 0;
    int single = 1, whole = 1;
    for (int i = 0; i < lead; i++) {
        single &= d->sides[i] == 1;
        whole &= d->sides[i] == d->shape[i];
    }
    const int64_t cols = d->sides[d->rank - 1], rows = d->rank >= 2 ? d->sides[d->rank - 2] : 1;
    const int64_t n = d->rank >= 2 ? d->shape[d->rank - 2] : 1, k = d->shape[d->rank - 1];
    if (rows > INT32_MAX || cols > INT32_MAX) return REFUSE(d, BRC_SHAPE, "block_size is too large");
    *block = (brc_block){.batch = (uint32_t)single, .rows = (uint32_t)rows, .cols = (uint32_t)cols};
    if (cols == k && (rows == n || rows == 1)) block->cols = 0;
    if (rows == n && (cols == k || (cols == 1 && n != 1))) block->rows = 0;
    if (d->rank <= 2 && block->rows == 0 && block->cols == 0) block->batch = 0;
    if (single || (whole && block->rows == 0 && block->cols == 0)) return 1;
    return REFUSE(d, BRC_UNSUPPORTED, "blocks of %s over several matrices of %s are not read", shape_text(d, d->sides),
                  shape_text(d, d->shape));
}

static void bind_geometry(description *d, brc_format format, brc_format scale, brc_block block) {
    brc_tensor *t = &d->reading->entry.tensor;
    const brci_torchao *f = d->found;
    const brc_layout layout = brci_layout_of(block, scale == BRC_E8M0 || scale == BRC_E4M3);
    *t =
        (brc_tensor){.size = sizeof *t, .format = (uint8_t)format, .rank = (uint8_t)d->rank, .layout = (uint8_t)layout};
    memcpy(t->shape, d->shape, sizeof t->shape);
    t->row_pitch = brc_row_bytes(format, t->shape[t->rank - 1]);
    t->scale = (brc_table){.format = (uint8_t)scale, .kind = BRC_KIND_MULTIPLIER, .block = block};
    t->scale.data = d->scale->array.data;
    t->data = f->unpacked || f->swizzled || f->transposed ? NULL : d->data->array.data;
    t->recipe = (brc_recipe){.size = sizeof t->recipe,
                             .id = BRC_RECIPE_UNKNOWN,
                             .element = (uint8_t)format,
                             .scale = (uint8_t)scale,
                             .levels = 1,
                             .layout = (uint8_t)layout,
                             .block = block};
}

static void bind_zero(description *d, brc_kind kind) {
    brc_tensor *t = &d->reading->entry.tensor;
    if (d->zero == NULL) return;
    t->zero = (brc_table){d->zero->array.data, d->zero->array.format, (uint8_t)kind, 0, t->scale.block};
    t->recipe.zero = d->zero->array.format;
}

/* ------------------------------------------------------------------------------------------------- classes */

/* One number, or a number for each block that the shapes give. */
static int sides_of_shapes(description *d) {
    int64_t numbers = 1;
    for (uint32_t i = 0; i < d->scale->rank; i++) numbers *= d->scale->shape[i];
    for (int i = 0; i < d->rank; i++) {
        const int64_t count = (int)d->scale->rank == d->rank && numbers != 1 ? d->scale->shape[i] : 1;
        if (count < 1 || d->shape[i] % count != 0 || ((int)d->scale->rank != d->rank && numbers != 1))
            return REFUSE(d, BRC_SHAPE, "its description has no block_size, and %s %s gives none for %s",
                          d->scale->name, array_text(d, d->scale), shape_text(d, d->shape));
        d->sides[i] = d->shape[i] / count > 0 ? d->shape[i] / count : 1;
    }
    return 1;
}

static int is_number(const brc_named_array *a) {
    for (uint32_t i = 0; i < a->rank; i++)
        if (a->shape[i] != 1) return 0;
    return 1;
}

static int read_float8(description *d) {
    static const brc_format codes[] = {BRC_E4M3, BRC_E5M2, BRC_E4M3FNUZ, BRC_E5M2FNUZ};
    brc_block block;
    int given;
    if (!take_format(d, d->data, codes, 4, "FP8") || !take_format(d, d->scale, high, 3, "F32, F16 or BF16") ||
        !take_shape(d, 1) || (given = take_sides(d)) < 0 || (given == 0 && !sides_of_shapes(d)) ||
        !take_block(d, &block))
        return 0;
    const int one = block.batch == 0 && block.rows == 0 && block.cols == 0 && is_number(d->scale);
    if (!one && !check_table(d, d->scale)) return 0;
    bind_geometry(d, (brc_format)d->data->array.format, (brc_format)d->scale->array.format, block);
    return 1;
}

static int read_integers(description *d, brc_format format) {
    static const brc_format codes[] = {BRC_INT8};
    static const brc_format zeros[] = {BRC_INT8, BRC_F32, BRC_F16, BRC_BF16};
    brc_block block;
    if (!take_format(d, d->data, codes, 1, "I8") || !take_format(d, d->scale, high, 3, "F32, F16 or BF16") ||
        (d->zero != NULL && !take_format(d, d->zero, zeros, d->found->klass == BRCI_INTX_TENSOR ? 4 : 1, "I8")) ||
        !take_shape(d, 1))
        return 0;
    const int given = take_sides(d);
    if (given == 0) return REFUSE(d, BRC_MALFORMED, "its description has no block_size");
    if (given < 0 || !take_block(d, &block) || !check_table(d, d->scale) ||
        (d->zero != NULL && !check_table(d, d->zero)))
        return 0;
    d->found->unpacked = format != BRC_INT8;
    bind_geometry(d, format, (brc_format)d->scale->array.format, block);
    bind_zero(d, d->zero != NULL && d->zero->array.format == BRC_INT8 ? BRC_KIND_CODE : BRC_KIND_FLOAT_CODE);
    return 1;
}

static int read_int8(description *d) { return read_integers(d, BRC_INT8); }

static int read_intx(description *d) {
    const brc_format target = brci_torch_format(json_object_get(d->attributes, "target_dtype"));
    const brc_format_info *f = brc_format_get(target);
    if (f == NULL || f->family != BRC_INT)
        return REFUSE(d, BRC_MALFORMED, "target_dtype in its description is none of int1 to int8");
    if (d->zero == NULL) return REFUSE(d, BRC_MALFORMED, "its zero_point is missing");
    return read_integers(d, target);
}

/* Two signed codes a byte; tables transposed; the zero point is a value, not a code. */
static int read_int4(description *d) {
    static const brc_format codes[] = {BRC_INT8, BRC_UINT8};
    const json_t *shape = json_object_get(d->attributes, "shape");
    if (d->zero == NULL) return REFUSE(d, BRC_MALFORMED, "its zero_point is missing");
    if (!take_format(d, d->data, codes, 2, "I8") || !take_format(d, d->scale, high, 3, "F32, F16 or BF16") ||
        !take_format(d, d->zero, high, 3, "F32, F16 or BF16") || !take_shape(d, 2))
        return 0;
    for (int i = 0; i < d->rank; i++)
        if (json_array_size(shape) != (size_t)d->rank ||
            json_integer_value(json_array_get(shape, (size_t)i)) != d->shape[i])
            return REFUSE(d, BRC_SHAPE, "shape in its description is not %s, which %s %s holds",
                          shape_text(d, d->shape), d->data->name, array_text(d, d->data));
    const int given = take_sides(d);
    if (given == 0) return REFUSE(d, BRC_MALFORMED, "its description has no block_size");
    if (given < 0) return 0;
    for (int i = 0; i + 1 < d->rank; i++)
        if (d->sides[i] != 1 || d->rank < 2)
            return REFUSE(d, BRC_UNSUPPORTED, "Int4Tensor has groups along rows, not blocks of %s",
                          shape_text(d, d->sides));
    if (d->sides[d->rank - 1] > INT32_MAX) return REFUSE(d, BRC_SHAPE, "block_size is too large");
    d->found->transposed = 1;
    if (!check_table(d, d->scale) || !check_table(d, d->zero)) return 0;
    bind_geometry(d, BRC_INT4, (brc_format)d->scale->array.format, (brc_block){1, 1, (uint32_t)d->sides[d->rank - 1]});
    bind_zero(d, BRC_KIND_REAL);
    return 1;
}

/* Scales plain, or in tiles; the attribute must agree with the shape. */
static int take_block_scales(description *d) {
    const json_t *flag = json_object_get(d->attributes, "is_swizzled_scales");
    const int64_t cols = d->shape[d->rank - 1] / d->sides[d->rank - 1];
    int64_t plain[BRC_MAX_RANK], rows = 1, tiled[2];
    table_shape(d, plain);
    for (int i = 0; i + 1 < d->rank; i++)
        if (__builtin_mul_overflow(rows, d->shape[i], &rows)) return REFUSE(d, BRC_OVERFLOW, "it is too large");
    tiled[0] = (rows / 128 + (rows % 128 != 0)) * 32;
    tiled[1] = (cols / 4 + (cols % 4 != 0)) * 16;
    const int is_plain = brci_same_shape(d->rank, plain, d->scale->rank, d->scale->shape);
    const int is_tiled = brci_same_shape(2, tiled, d->scale->rank, d->scale->shape);
    if (flag != NULL && !json_is_null(flag) && !json_is_boolean(flag))
        return REFUSE(d, BRC_MALFORMED, "is_swizzled_scales in its description is neither true nor false");
    d->found->swizzled = json_is_true(flag);
    if (d->found->swizzled ? is_tiled : is_plain) return 1;
    if (is_plain || is_tiled)
        return REFUSE(
            d, BRC_SHAPE,
            "its description says is_swizzled_scales %s, but %s is %s, the shape of %s for %s; correct one of "
            "them",
            d->found->swizzled ? "true" : "false", d->scale->name, array_text(d, d->scale),
            is_tiled ? "128x4 tiles" : "plain scales", shape_text(d, d->shape));
    if (d->found->swizzled)
        return REFUSE(d, BRC_SHAPE, "%s is %s; scales of %s in 128x4 tiles are [%lld,%lld]", d->scale->name,
                      array_text(d, d->scale), shape_text(d, d->shape), (long long)tiled[0], (long long)tiled[1]);
    return check_table(d, d->scale);
}

static int read_mx(description *d) {
    static const brc_format eights[] = {BRC_E4M3, BRC_E5M2}, bytes[] = {BRC_UINT8};
    static const brc_format scales[] = {BRC_E8M0, BRC_UINT8};
    const brc_format element = brci_torch_format(json_object_get(d->attributes, "elem_dtype"));
    const brc_format_info *f = brc_format_get(element);
    if (f == NULL || f->family != BRC_FLOAT || f->bits > 8)
        return REFUSE(d, BRC_MALFORMED, "elem_dtype in its description is no element of MXTensor");
    if (f->bits == 8 && is_one_of(d->data, eights, 2) && d->data->array.format != element)
        return REFUSE(d, BRC_FORMAT, "%s is %s, but its description says %s", d->data->name, d->data->dtype,
                      brci_torch_word(element));
    if (!take_format(d, d->data, f->bits == 8 ? eights : bytes, f->bits == 8 ? 2 : 1, f->bits == 8 ? "FP8" : "U8") ||
        !take_format(d, d->scale, scales, 2, "F8_E8M0") || !take_shape(d, f->bits == 4 ? 2 : 1) || !take_last_side(d) ||
        !take_block_scales(d))
        return 0;
    if (d->scale->array.format == BRC_UINT8)
        brci_report(d->reader, BRC_WARNING, BRC_OK, d->reading->entry.name,
                    brci_pool_print(d->reader->pool,
                                    "%s is U8 and read as exponents, 2^(byte - 127); torchao itself needs F8_E8M0",
                                    d->scale->name));
    d->found->unpacked = f->bits == 6;
    bind_geometry(d, element, BRC_E8M0, (brc_block){1, 1, (uint32_t)d->sides[d->rank - 1]});
    return 1;
}

static int read_nvfp4(description *d) {
    static const brc_format bytes[] = {BRC_UINT8}, scales[] = {BRC_E4M3}, numbers[] = {BRC_F32};
    const brc_named_array *global = brci_part(&d->reading->entry, "global_scale");
    brc_tensor *t = &d->reading->entry.tensor;
    if (!take_format(d, d->data, bytes, 1, "U8") || !take_format(d, d->scale, scales, 1, "F8_E4M3") ||
        (global != NULL && !take_format(d, global, numbers, 1, "F32")) || !take_shape(d, 2) || !take_last_side(d) ||
        !take_block_scales(d))
        return 0;
    const int experts = global != NULL && d->rank == 3 && global->rank == 3 && global->shape[0] == d->shape[0] &&
                        global->shape[1] == 1 && global->shape[2] == 1;
    if (global != NULL && !experts && !is_number(global))
        return REFUSE(d, BRC_SHAPE, "%s is %s; it must be one number, or one for each matrix of %s", global->name,
                      array_text(d, global), shape_text(d, d->shape));
    bind_geometry(d, BRC_E2M1, BRC_E4M3, (brc_block){1, 1, (uint32_t)d->sides[d->rank - 1]});
    if (global == NULL) return 1;
    t->global = (brc_table){global->array.data, BRC_F32, BRC_KIND_MULTIPLIER, 0, {(uint32_t)experts, 0, 0}};
    t->recipe.levels = 2;
    return 1;
}

static int (*const readers[BRCI_TORCHAO_CLASSES])(description *) = {read_float8, read_int8, read_intx,
                                                                    read_int4,   read_mx,   read_nvfp4};

void brci_torchao_read(brci_reader *reader, brci_reading *reading, brci_torchao *found, const json_t *attributes) {
    description d = {.reader = reader, .reading = reading, .found = found, .attributes = attributes};
    d.data = brci_part(&reading->entry, "data");
    d.scale = brci_part(&reading->entry, "scale");
    d.zero = brci_part(&reading->entry, "zero_point");
    if (d.data == NULL || d.scale == NULL) {
        REFUSE(&d, BRC_MALFORMED, "its %s is missing: without it the %s means nothing",
               d.data == NULL ? "qdata" : "scale", d.data == NULL ? "scale" : "data");
        return;
    }
    if (!readers[found->klass](&d)) return;
    reading->detail = found;
    reading->entry.evidence =
        brci_pool_print(reader->pool, "metadata \"%s\": %s%s, blocks of %s; %s %s", reading->entry.name,
                        brci_torchao_class_names[found->klass], found->swizzled ? ", scales in 128x4 tiles" : "",
                        shape_text(&d, d.sides), d.scale->name, array_text(&d, d.scale));
    reading->entry.recipe = brci_row_name(&reading->entry.tensor);
    brci_describe(reader->pool, &reading->entry);
}
