/* SPDX-License-Identifier: Apache-2.0
 * A scaled tensor as one of torchao's classes, so that torchao's own loader opens it. Everything that torchao stores
 * for a value is made here; only what the value does not say (its nominal type, how activations are treated, tiles)
 * comes from a source of the same class. */
#include "dialect/packing.h"
#include "dialect/torchao.h"

#include <stdlib.h>
#include <string.h>

typedef struct writing {
    const char *name, *parameter; /* "M.weight", "weight" */
    const brc_tensor *t;
    const brc_entry *origin;
    const json_t *before; /* attributes of a source of the same class; NULL = none */
    int klass, swizzled;
    json_t *attributes, *names;
    brci_store *store;
} writing;

/* What JSON makes is NULL when memory runs out: noticed once, when the text is made. */
static void set(writing *w, const char *key, json_t *value) { json_object_set_new(w->attributes, key, value); }

static json_t *dtype_of(const char *word) { return json_pack("{s:s, s:s}", "_type", "torch.dtype", "_data", word); }

/* An attribute as the source of the same class has it, else `value` (taken over). */
static void keep(writing *w, const char *key, json_t *value) {
    json_t *before = json_object_get(w->before, key);
    if (before != NULL) {
        json_decref(value);
        value = json_deep_copy(before);
    }
    set(w, key, value);
}

/* The nominal type of the tensor: that of the numbers it was made of; else `usual`. */
static void keep_dtype(writing *w, const char *key, unsigned usual) {
    const brc_named_array *data = w->origin == NULL ? NULL : brci_part(w->origin, "data");
    if (data != NULL && w->origin->dialect == BRC_DIALECT_PLAIN && brci_torch_word(data->array.format) != NULL &&
        brc_format_get((brc_format)data->array.format)->role == BRC_HIGH)
        usual = data->array.format;
    keep(w, key, dtype_of(brci_torch_word(usual)));
}

/* A side for each axis. */
static void set_sides(writing *w) {
    const brc_tensor *t = w->t;
    const brc_block b = t->scale.block;
    json_t *sides = json_array();
    for (int i = 0; i < t->rank; i++) {
        const uint32_t side = i == t->rank - 1 ? b.cols : i == t->rank - 2 ? b.rows : b.batch;
        json_array_append_new(sides, json_integer(side == 0 ? t->shape[i] : side));
    }
    set(w, "block_size", sides);
}

static brci_stored *add(writing *w, const char *array, brc_format format) {
    const int length = (int)(strlen(w->name) - strlen(w->parameter));
    brci_stored *made = brci_stored_new(w->store, "", 0, "", format);
    made->name = brci_pool_print(w->store->pool, "%.*s_%s_%s", length, w->name, w->parameter, array);
    json_array_append_new(w->names, json_string(array));
    return made;
}

static void carry(writing *w, const char *role, const char *array) {
    const int length = (int)(strlen(w->name) - strlen(w->parameter));
    const char *suffix = brci_pool_print(w->store->pool, "_%s_%s", w->parameter, array);
    if (brci_carry(w->store, w->origin, role, w->name, (size_t)length, suffix))
        json_array_append_new(w->names, json_string(array));
}

/* ---------------------------------------------------------------------------------------------------- arrays */

static const brc_table *table_of(const brc_tensor *t, const brci_stored *s) {
    return s->buffer == BRCI_ZERO ? &t->zero : &t->scale;
}

static int is_unsigned(const brc_tensor *t) { return brc_format_get((brc_format)t->format)->family == BRC_UINT; }

/* Offset codes become two's complement: the value of a code less its zero point is the same. */
static brc_status unpack(const brc_tensor *t, const brci_stored *s, void *bytes, brc_error *err) {
    const brc_format_info *f = brc_format_get((brc_format)t->format);
    (void)s, (void)err;
    brci_unpack_codes(t, f->family != BRC_FLOAT, is_unsigned(t) ? 1u << (f->bits - 1) : 0, bytes);
    return BRC_OK;
}

static brc_status shift_zeros(const brc_tensor *t, const brci_stored *s, void *bytes, brc_error *err) {
    const int half = 1 << (brc_format_get((brc_format)t->format)->bits - 1);
    const uint8_t *in = t->zero.data;
    int8_t *out = bytes;
    for (int64_t i = 0; i < brci_stored_bytes(s); i++) {
        if (in[i] - half > INT8_MAX)
            return brci_fail(err, BRC_UNSUPPORTED, (uint64_t)i, "its zero point %d is beyond torchao's int8", in[i]);
        out[i] = (int8_t)(in[i] - half);
    }
    return BRC_OK;
}

static brc_status clear(const brc_tensor *t, const brci_stored *s, void *bytes, brc_error *err) {
    (void)t, (void)err;
    memset(bytes, 0, (size_t)brci_stored_bytes(s));
    return BRC_OK;
}

/* Scales of fewer bits -> F32, exactly. */
static brc_status widen(const brc_tensor *t, const brci_stored *s, void *bytes, brc_error *err) {
    return brc_decode((brc_format)t->scale.format, t->scale.data, brci_stored_bytes(s) / 4, bytes, err);
}

static brc_status tile(const brc_tensor *t, const brci_stored *s, void *bytes, brc_error *err) {
    int64_t counts[3];
    (void)s;
    TRY(brc_block_counts(t->rank, t->shape, t->scale.block, counts, err));
    brci_tile(t->scale.data, counts[0] * counts[1], counts[2], bytes);
    return BRC_OK;
}

static brc_status turn(const brc_tensor *t, const brci_stored *s, void *bytes, brc_error *err) {
    const brc_table *table = table_of(t, s);
    int64_t counts[3];
    TRY(brc_block_counts(t->rank, t->shape, table->block, counts, err));
    brci_transpose(table->data, counts[0], counts[1], counts[2], brc_format_get((brc_format)table->format)->bits / 8,
                   bytes);
    return BRC_OK;
}

/* [.., N, K / codes] */
static void add_data(writing *w, brc_format format, int codes) {
    const brc_tensor *t = w->t;
    brci_stored *made = add(w, "qdata", format);
    made->buffer = BRCI_DATA;
    made->rank = t->rank;
    memcpy(made->shape, t->shape, sizeof made->shape);
    made->shape[t->rank - 1] /= codes;
}

/* As many dimensions as the data, also for one number. */
static brci_stored *add_table(writing *w, const char *array, brci_buffer buffer, unsigned format) {
    const brc_tensor *t = w->t;
    const brc_block b = t->scale.block;
    brci_stored *made = add(w, array, (brc_format)format);
    made->buffer = buffer;
    made->rank = t->rank;
    for (int i = 0; i < t->rank; i++) {
        const uint32_t side = i == t->rank - 1 ? b.cols : i == t->rank - 2 ? b.rows : b.batch;
        made->shape[i] = side == 0 ? 1 : t->shape[i] / side;
    }
    return made;
}

/* ---------------------------------------------------------------------------------------------------- classes */

static int is_high(unsigned format) { return format == BRC_F32 || format == BRC_F16 || format == BRC_BF16; }

/* torchao has whole blocks only, and blocks of one matrix or of all. */
static int has_whole_blocks(const brc_tensor *t) {
    const brc_block b = t->scale.block;
    const int64_t rows = t->rank >= 2 ? t->shape[t->rank - 2] : 1;
    return (b.rows == 0 || rows % b.rows == 0) && (b.cols == 0 || t->shape[t->rank - 1] % b.cols == 0) &&
           b.batch <= 1 && (t->rank >= 2 || b.rows <= 1);
}

static int has_integers(const brc_tensor *t) {
    const brc_format_info *f = brc_format_get((brc_format)t->format);
    return (f->family == BRC_INT || f->family == BRC_UINT) && f->mantissa_bits == 0 && t->global.format == BRC_NONE &&
           is_high(t->scale.format);
}

/* Codes are compared with their zero point, or they are two's complement. */
static int has_code_zeros(const brc_tensor *t) {
    const brc_block s = t->scale.block, z = t->zero.block;
    if (t->zero.format == BRC_NONE) return !is_unsigned(t);
    if (s.batch != z.batch || s.rows != z.rows || s.cols != z.cols) return 0;
    if (t->zero.kind == BRC_KIND_CODE) return t->zero.format == (is_unsigned(t) ? BRC_UINT8 : BRC_INT8);
    return t->zero.kind == BRC_KIND_FLOAT_CODE && !is_unsigned(t) && is_high(t->zero.format);
}

static int is_float8(const brc_tensor *t) {
    const brc_format_info *f = brc_format_get((brc_format)t->format);
    const unsigned scale = t->scale.format;
    return f->family == BRC_FLOAT && f->bits == 8 && t->zero.format == BRC_NONE && t->global.format == BRC_NONE &&
           (is_high(scale) || scale == BRC_E8M0 || scale == BRC_E4M3);
}

static int is_mx(const brc_tensor *t) {
    const brc_block b = t->scale.block;
    return t->scale.format == BRC_E8M0 && brci_torch_word(t->format) != NULL &&
           brc_format_get((brc_format)t->format)->family == BRC_FLOAT && b.batch == 1 && b.rows == 1 && b.cols != 0 &&
           t->zero.format == BRC_NONE && t->global.format == BRC_NONE && (t->format != BRC_E2M1 || b.cols % 2 == 0);
}

static int is_nvfp4(const brc_tensor *t) {
    const brc_block b = t->scale.block, g = t->global.block;
    const int global_fits =
        t->global.format == BRC_NONE || (t->global.format == BRC_F32 && t->global.kind == BRC_KIND_MULTIPLIER &&
                                         g.rows == 0 && g.cols == 0 && (g.batch == 0 || t->rank <= 3));
    return t->format == BRC_E2M1 && t->scale.format == BRC_E4M3 && b.batch == 1 && b.rows == 1 && b.cols == 16 &&
           t->zero.format == BRC_NONE && global_fits;
}

static int is_int8(const brc_tensor *t) {
    return has_integers(t) && brc_format_get((brc_format)t->format)->bits == 8 && t->scale.format == BRC_F32 &&
           has_code_zeros(t) && t->zero.kind != BRC_KIND_FLOAT_CODE;
}

static int is_intx(const brc_tensor *t) { return has_integers(t) && has_code_zeros(t); }

static int is_int4(const brc_tensor *t) {
    const brc_block s = t->scale.block, z = t->zero.block;
    return t->format == BRC_INT4 && has_integers(t) && t->zero.format == t->scale.format &&
           t->zero.kind == BRC_KIND_REAL && s.batch == 1 && s.rows == 1 && s.cols != 0 && z.batch == 1 && z.rows == 1 &&
           z.cols == s.cols && t->rank >= 2 && t->shape[t->rank - 1] % 2 == 0;
}

static json_t *preference(void) { return json_pack("{s:s, s:s}", "_type", "KernelPreference", "_data", "AUTO"); }

static void write_float8(writing *w) {
    set_sides(w);
    keep(w, "mm_config", json_null());
    keep(w, "act_quant_kwargs", json_null());
    keep(w, "kernel_preference", preference());
    keep_dtype(w, "dtype", BRC_F32);
    add_data(w, (brc_format)w->t->format, 1);
    brci_stored *scale = add_table(w, "scale", BRCI_SCALE, BRC_F32);
    if (w->t->scale.format != BRC_F32) scale->pack = widen;
}

static void write_codes(writing *w) {
    add_data(w, BRC_INT8, 1);
    w->store->arrays[w->store->n - 1].pack = unpack;
    add_table(w, "scale", BRCI_SCALE, w->t->scale.format);
}

static void write_zeros(writing *w) {
    if (w->t->zero.kind == BRC_KIND_FLOAT_CODE) add_table(w, "zero_point", BRCI_ZERO, w->t->zero.format);
    else {
        brci_stored *zero = add_table(w, "zero_point", BRCI_ZERO, BRC_INT8);
        if (w->t->zero.format == BRC_NONE) zero->pack = clear;
        else if (is_unsigned(w->t)) zero->pack = shift_zeros;
    }
}

static void write_int8(writing *w) {
    keep(w, "act_quant_kwargs", json_null());
    keep(w, "reduce_range", json_false());
    set_sides(w);
    keep_dtype(w, "dtype", BRC_F32);
    write_codes(w);
    if (w->t->zero.format != BRC_NONE) write_zeros(w); /* torchao does without, too */
    carry(w, "input_scale", "act_quant_scale");
    carry(w, "input_zero_point", "act_quant_zero_point");
    carry(w, "pre_quant_scale", "act_pre_scale");
}

static void write_intx(writing *w) {
    static const char *const targets[] = {"int1", "int2", "int3", "int4", "int5", "int6", "int7", "int8"};
    set(w, "target_dtype", dtype_of(targets[brc_format_get((brc_format)w->t->format)->bits - 1]));
    set_sides(w);
    keep_dtype(w, "dtype", w->t->scale.format);
    keep(w, "activation_quantization", json_null());
    write_codes(w);
    write_zeros(w);
}

static void write_int4(writing *w) {
    json_t *shape = json_array();
    for (int i = 0; i < w->t->rank; i++) json_array_append_new(shape, json_integer(w->t->shape[i]));
    keep(w, "activation_dtype", dtype_of("bfloat16"));
    set_sides(w);
    set(w, "shape", shape);
    add_data(w, BRC_INT8, 2);
    for (int i = 0; i < 2; i++) {
        brci_stored *table =
            add_table(w, i == 0 ? "scale" : "zero_point", i == 0 ? BRCI_SCALE : BRCI_ZERO, w->t->scale.format);
        const int64_t groups = table->shape[table->rank - 1];
        table->shape[table->rank - 1] = table->shape[table->rank - 2];
        table->shape[table->rank - 2] = groups;
        table->pack = turn;
    }
    carry(w, "pre_quant_scale", "act_pre_scale");
}

static void write_block_scales(writing *w) {
    brci_stored *scale = add_table(w, "scale", BRCI_SCALE, w->t->scale.format);
    int64_t rows = 1;
    set(w, "is_swizzled_scales", json_boolean(w->swizzled));
    if (!w->swizzled) return;
    for (int i = 0; i + 1 < w->t->rank; i++) rows *= w->t->shape[i];
    const int64_t cols = scale->shape[scale->rank - 1];
    scale->rank = 2;
    scale->shape[0] = (rows / 128 + (rows % 128 != 0)) * 32;
    scale->shape[1] = (cols / 4 + (cols % 4 != 0)) * 16;
    scale->pack = tile;
}

static void write_mx(writing *w) {
    const unsigned bits = brc_format_get((brc_format)w->t->format)->bits;
    const char *word = brci_torch_word(w->t->format);
    set(w, "elem_dtype", bits == 6 ? json_string(word) : dtype_of(word));
    set(w, "block_size", json_integer(w->t->scale.block.cols));
    keep_dtype(w, "orig_dtype", BRC_F32);
    keep(w, "kernel_preference", preference());
    keep(w, "act_quant_kwargs", json_null());
    add_data(w, bits == 8 ? (brc_format)w->t->format : BRC_UINT8, bits == 4 ? 2 : 1);
    if (bits == 6) w->store->arrays[w->store->n - 1].pack = unpack;
    write_block_scales(w);
}

static void write_nvfp4(writing *w) {
    keep(w, "use_triton_kernel", json_false());
    keep(w, "act_quant_kwargs", json_null());
    set(w, "block_size", json_integer(w->t->scale.block.cols));
    keep_dtype(w, "orig_dtype", BRC_F32);
    add_data(w, BRC_UINT8, 2);
    write_block_scales(w);
    if (w->t->global.format != BRC_NONE) {
        brci_stored *global = add(w, "per_tensor_scale", BRC_F32);
        global->buffer = BRCI_GLOBAL;
        if (w->t->rank == 3 && w->t->global.block.batch == 1) {
            global->rank = 3;
            global->shape[0] = w->t->shape[0];
            global->shape[1] = global->shape[2] = 1;
        }
    }
    carry(w, "input_scale", "act_per_tensor_scale");
}

/* The first that fits: exponents in blocks along rows are MXTensor's, elsewhere Float8Tensor's as F32. */
static const struct {
    int klass;
    int (*fits)(const brc_tensor *);
    void (*write)(writing *);
} writers[] = {{BRCI_MX_TENSOR, is_mx, write_mx},
               {BRCI_NVFP4_TENSOR, is_nvfp4, write_nvfp4},
               {BRCI_FLOAT8_TENSOR, is_float8, write_float8},
               {BRCI_INT8_TENSOR, is_int8, write_int8},
               {BRCI_INTX_TENSOR, is_intx, write_intx},
               {BRCI_INT4_TENSOR, is_int4, write_int4}};
/* What a source of the same class says beyond the value. */
static json_t *attributes_before(writing *w) {
    const brci_torchao *found;
    if (w->origin == NULL || w->origin->dialect != BRC_DIALECT_TORCHAO || w->origin->tensor.format == BRC_NONE)
        return NULL;
    found = ((const brci_reading *)(const void *)w->origin)->detail;
    if (found->klass != w->klass) return NULL;
    w->swizzled = found->swizzled;
    json_t *root = json_loads(found->text, JSON_REJECT_DUPLICATES, NULL);
    w->before = json_object_get(root, "_data");
    return root;
}

brc_status brci_torchao_store(const char *name, const brc_tensor *t, const brc_entry *origin, brci_store *store,
                              brc_error *err) {
    const char *dot = strrchr(name, '.');
    writing w = {.name = name, .t = t, .origin = origin, .store = store};
    size_t i = 0;
    if (dot == NULL || dot == name || dot[1] == '\0')
        return brci_fail(err, BRC_UNSUPPORTED, 0,
                         "torchao stores parameters of modules, named module.parameter; this name has no dot");
    while (i < sizeof writers / sizeof *writers && !writers[i].fits(t)) i++;
    if (i == sizeof writers / sizeof *writers || t->group_index != NULL || !has_whole_blocks(t))
        return brci_fail(
            err, BRC_UNSUPPORTED, 0,
            "torchao stores FP8 in any blocks, MX and NVFP4 elements, int2 to int8 with zero points, all in "
            "whole blocks; use fp8-row, mxfp8, nvfp4, int8 or int4");
    w.parameter = dot + 1;
    w.klass = writers[i].klass;
    w.attributes = json_object();
    w.names = json_array();
    json_t *before = attributes_before(&w);
    writers[i].write(&w);
    json_t *root = json_pack("{s:s, s:o, s:o}", "_type", brci_torchao_class_names[w.klass], "_data", w.attributes,
                             "_tensor_data_names", w.names);
    char *text = root == NULL ? NULL : json_dumps(root, 0);
    store->key = name;
    store->value = text == NULL ? NULL : brci_pool_copy(store->pool, text, strlen(text));
    free(text);
    json_decref(root);
    json_decref(before);
    return store->value == NULL || store->pool->failed ? brci_fail(err, BRC_MEMORY, 0, "out of memory") : BRC_OK;
}
