/* SPDX-License-Identifier: Apache-2.0
 * Scaled tensors: geometry, checks, and the numbers of their tables. */
#include "core/tensor.h"

#include "core/recipe.h"

#include <string.h>

#define ALIGNMENT 64 /* bytes: a cache line, and the widest vector */

void brc_release(brc_owned *owned) {
    if (owned != NULL && owned->release != NULL) owned->release(owned);
}

/* Bytes of a table; -1 when too large. */
static int64_t table_bytes(const brc_table *t, brci_view view) {
    return brc_row_bytes((brc_format)t->format, brci_counts_total(brci_block_counts(view, t->block)));
}

static int64_t aligned(int64_t n) { return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

static brc_status sizes_of(const brc_tensor *t, int with[3], brc_sizes *sizes, brc_error *err) {
    brci_view view = brci_tensor_view(t);
    int64_t rows = view.batch * view.rows;
    *sizes = (brc_sizes){0};
    if (rows > 0 && view.cols > 0 && __builtin_mul_overflow(rows, t->row_pitch, &sizes->data))
        return brci_fail(err, BRC_OVERFLOW, 0, "the data exceeds 63 bits");
    sizes->scale = with[0] ? table_bytes(&t->scale, view) : 0;
    sizes->global = with[1] ? table_bytes(&t->global, view) : 0;
    sizes->zero = with[2] ? table_bytes(&t->zero, view) : 0;
    if (sizes->data > INT64_MAX / 8 || sizes->scale > INT64_MAX / 16 || sizes->zero > INT64_MAX / 16 ||
        sizes->scale < 0 || sizes->global < 0 || sizes->zero < 0)
        return brci_fail(err, BRC_OVERFLOW, 0, "the tensor exceeds 63 bits");
    sizes->total = aligned(sizes->data) + aligned(sizes->scale) + aligned(sizes->global) + aligned(sizes->zero);
    return BRC_OK;
}

static brc_status check_divisible(const brc_recipe *r, brci_view view, brc_error *err) {
    if (!r->partial && r->block.rows > 0 && view.rows % r->block.rows != 0)
        return brci_fail(err, BRC_SHAPE, 0, "%lld rows are not divisible by the block's %u; partial=1 allows it",
                         (long long)view.rows, r->block.rows);
    if (!r->partial && r->block.cols > 0 && view.cols % r->block.cols != 0)
        return brci_fail(err, BRC_SHAPE, 0, "%lld columns are not divisible by the block's %u; partial=1 allows it",
                         (long long)view.cols, r->block.cols);
    return BRC_OK;
}

brc_status brc_tensor_plan(const brc_recipe *recipe, int rank, const int64_t *shape, brc_tensor *tensor,
                           brc_sizes *sizes, brc_error *err) {
    brc_tensor t = {.size = sizeof t};
    brc_sizes unused;
    if (shape == NULL || tensor == NULL) return brci_fail(err, BRC_ARGUMENT, 0, "shape and tensor must be given");
    TRY(brc_recipe_check(recipe, err));
    TRY(brci_shape_check(rank, shape, err));
    TRY(check_divisible(recipe, brci_view_of(rank, shape), err));
    t.format = recipe->element;
    t.rank = (uint8_t)rank;
    t.layout = recipe->layout;
    memcpy(t.shape, shape, (size_t)rank * sizeof *shape);
    t.row_pitch = brc_row_bytes((brc_format)recipe->element, shape[rank - 1]);
    t.scale = (brc_table){.format = recipe->scale, .kind = BRC_KIND_MULTIPLIER, .block = recipe->block};
    if (recipe->levels == 2) /* compressed-tensors' arithmetic stores its divisor */
        t.global = (brc_table){.format = BRC_F32,
                               .kind = brci_stores_divisor(recipe) ? BRC_KIND_DIVISOR : BRC_KIND_MULTIPLIER};
    if (recipe->zero != BRC_NONE)
        t.zero = (brc_table){.format = recipe->zero,
                             .kind = brci_has_real_zeros(recipe) ? BRC_KIND_REAL : BRC_KIND_CODE,
                             .block = recipe->block};
    if (recipe->id == BRC_RECIPE_UNKNOWN) {
        t.zero.kind = recipe->zero_kind;
        t.global.kind = recipe->global_kind;
        t.global.constant = recipe->global_constant;
        t.global.block = recipe->global_block;
    }
    t.recipe = *recipe;
    TRY(sizes_of(&t, (int[3]){1, recipe->levels == 2, recipe->zero != BRC_NONE}, sizes != NULL ? sizes : &unused, err));
    *tensor = t;
    return BRC_OK;
}

void brc_tensor_bind(brc_tensor *tensor, const brc_sizes *sizes, void *memory) {
    uint8_t *at = memory;
    if (tensor == NULL || sizes == NULL) return;
    tensor->data = at;
    at += aligned(sizes->data);
    tensor->scale.data = at;
    at += aligned(sizes->scale);
    tensor->global.data = tensor->global.format != BRC_NONE ? at : NULL; /* present though perhaps empty */
    at += aligned(sizes->global);
    tensor->zero.data = tensor->zero.format != BRC_NONE ? at : NULL;
}

static int kind_fits(unsigned kind, int is_zero) {
    return is_zero ? kind >= BRC_KIND_CODE && kind < BRC_KIND_COUNT : kind < BRC_KIND_CODE;
}

static brc_status check_table(const brc_tensor *t, const brc_table *table, const char *name, int is_zero,
                              brc_error *err) {
    const brc_format_info *f = brc_format_get((brc_format)table->format);
    if (f == NULL || f->bits < 8 || f->family == BRC_OPAQUE || f->family == BRC_CODEBOOK || f->bits == 64)
        return brci_fail(err, BRC_FORMAT, 0, "%s: %s cannot hold a table of numbers", name,
                         f == NULL ? "an unknown format" : f->name);
    if (!kind_fits(table->kind, is_zero))
        return brci_fail(err, BRC_FORMAT, 0, "%s: this kind of number does not go there", name);
    if (table->kind == BRC_KIND_AMAX && !(table->constant > 0))
        return brci_fail(err, BRC_ARGUMENT, 0, "%s: an amax needs its constant", name);
    if (table_bytes(table, brci_tensor_view(t)) < 0)
        return brci_fail(err, BRC_OVERFLOW, 0, "%s: exceeds 63 bits", name);
    return BRC_OK;
}

static brc_status check_group_index(const brc_tensor *t, brc_error *err) {
    int64_t cols = t->shape[t->rank - 1];
    int64_t groups = brci_block_counts(brci_tensor_view(t), t->scale.block).cols;
    if (t->zero.data != NULL && brci_block_counts(brci_tensor_view(t), t->zero.block).cols != groups)
        return brci_fail(err, BRC_SHAPE, 0, "zero point: a group_index needs as many columns as the scale has");
    for (int64_t i = 0; i < cols; i++)
        if (t->group_index[i] < 0 || t->group_index[i] >= groups)
            return brci_fail(err, BRC_SHAPE, (uint64_t)i, "group_index[%lld] is %d; there are %lld groups",
                             (long long)i, t->group_index[i], (long long)groups);
    return BRC_OK;
}

brc_status brc_tensor_check(const brc_tensor *t, brc_error *err) {
    const brc_format_info *f;
    int64_t row;
    if (t == NULL || t->size < sizeof *t)
        return brci_fail(err, BRC_ARGUMENT, 0, "the tensor is missing or of another version");
    TRY(brci_shape_check(t->rank, t->shape, err));
    f = brc_format_get((brc_format)t->format);
    if (f == NULL || f->role != BRC_ELEMENT)
        return brci_fail(err, BRC_FORMAT, 0, "%s cannot be the data of a scaled tensor",
                         f == NULL ? "an unknown format" : f->name);
    if (t->scale.data == NULL)
        return brci_fail(err, BRC_ARGUMENT, 0, "the scale is missing: without it the data means nothing");
    TRY(check_table(t, &t->scale, "scale", 0, err));
    if (t->scale.kind != BRC_KIND_MULTIPLIER)
        return brci_fail(err, BRC_FORMAT, 0, "scale: block scales multiply; only a global scale may be another kind");
    if (t->global.data != NULL) TRY(check_table(t, &t->global, "global scale", 0, err));
    if (t->zero.data != NULL) TRY(check_table(t, &t->zero, "zero point", 1, err));
    TRY(brc_layout_check((brc_layout)t->layout, t->scale.block, err));
    row = brc_row_bytes((brc_format)t->format, t->shape[t->rank - 1]);
    if (row < 0 || t->row_pitch < row)
        return brci_fail(err, BRC_SHAPE, 0, "row_pitch is %lld bytes; a row has %lld", (long long)t->row_pitch,
                         (long long)row);
    if (t->data == NULL && brci_elements(t->rank, t->shape) > 0)
        return brci_fail(err, BRC_ARGUMENT, 0, "the data is missing");
    if (row > 0 && t->row_pitch > INT64_MAX / 8 / (brci_elements(t->rank - 1, t->shape) + 1))
        return brci_fail(err, BRC_OVERFLOW, 0, "row_pitch: the rows exceed 63 bits");
    return t->group_index == NULL ? BRC_OK : check_group_index(t, err);
}

brc_status brc_tensor_sizes(const brc_tensor *t, brc_sizes *sizes, brc_error *err) {
    if (sizes == NULL) return brci_fail(err, BRC_ARGUMENT, 0, "sizes must be given");
    TRY(brc_tensor_check(t, err));
    return sizes_of(t, (int[3]){1, t->global.data != NULL, t->zero.data != NULL}, sizes, err);
}

static int table_equal(const brc_table *a, const brc_table *b, int64_t bytes) {
    if (a->data == NULL || b->data == NULL) return a->data == b->data;
    return a->format == b->format && a->kind == b->kind && brci_bits(a->constant) == brci_bits(b->constant) &&
           a->block.batch == b->block.batch && a->block.rows == b->block.rows && a->block.cols == b->block.cols &&
           memcmp(a->data, b->data, (size_t)bytes) == 0;
}

static int data_equal(const brc_tensor *a, const brc_tensor *b) {
    brci_view view = brci_tensor_view(a);
    unsigned bits = brci_format(a->format)->bits;
    int64_t whole = view.cols / 8 * bits + view.cols % 8 * bits / 8; /* bytes without padding bits */
    unsigned rest = (unsigned)(view.cols % 8 * bits % 8);
    for (int64_t r = 0; r < view.batch * view.rows; r++) {
        const uint8_t *x = (const uint8_t *)a->data + r * a->row_pitch,
                      *y = (const uint8_t *)b->data + r * b->row_pitch;
        if (memcmp(x, y, (size_t)whole) != 0) return 0;
        if (rest != 0 && ((x[whole] ^ y[whole]) & ((1u << rest) - 1)) != 0) return 0;
    }
    return 1;
}

brc_status brc_tensor_equal(const brc_tensor *a, const brc_tensor *b, int *equal, brc_error *err) {
    brc_sizes sizes;
    if (equal == NULL) return brci_fail(err, BRC_ARGUMENT, 0, "equal must be given");
    TRY(brc_tensor_check(b, err));
    TRY(brc_tensor_sizes(a, &sizes, err));
    *equal = a->format == b->format && a->layout == b->layout && a->rank == b->rank &&
             memcmp(a->shape, b->shape, a->rank * sizeof *a->shape) == 0 && brci_recipe_equal(&a->recipe, &b->recipe) &&
             table_equal(&a->scale, &b->scale, sizes.scale) && table_equal(&a->global, &b->global, sizes.global) &&
             table_equal(&a->zero, &b->zero, sizes.zero);
    if (*equal && (a->group_index == NULL) != (b->group_index == NULL)) *equal = 0;
    if (*equal && a->group_index != NULL)
        *equal = memcmp(a->group_index, b->group_index, (size_t)a->shape[a->rank - 1] * sizeof(int32_t)) == 0;
    if (*equal && sizes.data > 0) *equal = data_equal(a, b);
    return BRC_OK;
}

double brc_tensor_bits(const brc_tensor *t) {
    brc_sizes sizes;
    int64_t elements;
    if (brc_tensor_sizes(t, &sizes, NULL) != BRC_OK) return 0;
    elements = brci_elements(t->rank, t->shape);
    return elements == 0 ? 0 : (double)(sizes.data + sizes.scale + sizes.global + sizes.zero) * 8 / (double)elements;
}

float brci_table_float(const brc_table *t, int64_t i) {
    const brc_format_info *f = brci_format(t->format);
    return (float)brci_decode(f, brci_code_at(t->data, f->bits, i));
}

void brci_table_put(const brc_table *t, int64_t i, uint64_t code) {
    brci_code_put(t->data, brci_format(t->format)->bits, i, code);
}

double brc_table_number(const brc_table *t, int64_t i) {
    const brc_format_info *f = t == NULL || t->data == NULL ? NULL : brc_format_get((brc_format)t->format);
    if (f == NULL || f->bits < 8 || i < 0) return (double)brci_float(0x7FC00000u);
    return brci_decode(f, brci_code_at(t->data, f->bits, i));
}

int64_t brc_table_index(const brc_tensor *t, const brc_table *table, int64_t batch, int64_t row, int64_t col) {
    brci_counts n;
    if (t == NULL || table == NULL) return -1;
    n = brci_block_counts(brci_tensor_view(t), table->block);
    if (t->group_index != NULL && table != &t->global)
        return brci_table_at(table, n, batch, row, 0) + t->group_index[col];
    return brci_table_at(table, n, batch, row, col);
}

float brci_multiplier(const brc_tensor *t, float s, float global) {
    if (t->global.data == NULL) return s;
    switch ((brc_kind)t->global.kind) {
    case BRC_KIND_DIVISOR: return s / global;
    case BRC_KIND_AMAX: {
        float product = s * global, reciprocal = 1.0f / t->global.constant;
        return product * reciprocal;
    }
    default: return s * global;
    }
}

float brci_multiplier_at(const brc_tensor *t, int64_t batch, int64_t row, int64_t col) {
    const float scale = brci_table_float(&t->scale, brc_table_index(t, &t->scale, batch, row, col));
    if (t->global.data == NULL) return brci_multiplier(t, scale, 1);
    return brci_multiplier(t, scale, brci_table_float(&t->global, brc_table_index(t, &t->global, batch, row, col)));
}
