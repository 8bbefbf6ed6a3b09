/* SPDX-License-Identifier: Apache-2.0 */
#include "reference/source.h"

brci_source brci_source_array(const brc_array *array) {
    return (brci_source){.array = array, .view = brci_view_of(array->rank, array->shape)};
}

brci_source brci_source_tensor(const brc_tensor *tensor) {
    return (brci_source){.tensor = tensor, .view = brci_tensor_view(tensor)};
}

int64_t brci_offset(const brc_array *a, int64_t batch, int64_t row, int64_t col) {
    int64_t offset = col * a->stride[a->rank - 1];
    if (a->rank >= 2) offset += row * a->stride[a->rank - 2];
    for (int i = a->rank - 3; i >= 0; i--) {
        offset += batch % a->shape[i] * a->stride[i];
        batch /= a->shape[i];
    }
    return offset;
}

static void read_array(const brc_array *a, int64_t batch, int64_t row, int64_t col, int64_t count, float *out) {
    const brc_format_info *f = brci_format(a->format);
    int64_t first = brci_offset(a, batch, row, col), step = a->stride[a->rank - 1], bytes = f->bits / 8;
    for (int64_t i = 0; i < count; i++)
        out[i] = (float)brci_decode(f, brci_code_at((const uint8_t *)a->data + (first + i * step) * bytes, f->bits, 0));
}

/* value = f32(e*m) | f32(f32(e-z)*m) | f32(f32(e*m)+z), as brc_tensor says. */
static float value(float element, float multiplier, float zero, unsigned kind, int has_zero) {
    if (!has_zero) return element * multiplier;
    if (kind == BRC_KIND_REAL) {
        float product = element * multiplier;
        return product + zero;
    }
    return (element - zero) * multiplier;
}

/* The column where another number of the table begins. */
static int64_t next_block(const brc_table *table, int64_t col) {
    int64_t side = table->block.cols;
    return table->data == NULL || side == 0 ? INT64_MAX : (col / side + 1) * side;
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static void read_tensor(const brc_tensor *t, int64_t batch, int64_t row, int64_t col, int64_t count, float *out) {
    const brc_format_info *f = brci_format(t->format);
    const uint8_t *codes = (const uint8_t *)t->data + (batch * brci_tensor_view(t).rows + row) * t->row_pitch;
    const int has_global = t->global.data != NULL, has_zero = t->zero.data != NULL;
    const int64_t end = col + count;
    while (col < end) { /* a run of elements that share their numbers */
        int64_t stop = least(least(next_block(&t->scale, col), next_block(&t->global, col)), next_block(&t->zero, col));
        float scale = brci_table_float(&t->scale, brc_table_index(t, &t->scale, batch, row, col));
        float global = has_global ? brci_table_float(&t->global, brc_table_index(t, &t->global, batch, row, col)) : 1;
        float zero = has_zero ? brci_table_float(&t->zero, brc_table_index(t, &t->zero, batch, row, col)) : 0;
        float m = brci_multiplier(t, scale, global);
        if (t->group_index != NULL) stop = col + 1;
        for (stop = least(stop, end); col < stop; col++)
            *out++ = value((float)brci_decode(f, brci_code_at(codes, f->bits, col)), m, zero, t->zero.kind, has_zero);
    }
}

void brci_read(const brci_source *source, int64_t batch, int64_t row, int64_t col, int64_t count, float *out) {
    if (source->array != NULL) read_array(source->array, batch, row, col, count, out);
    else read_tensor(source->tensor, batch, row, col, count, out);
}
