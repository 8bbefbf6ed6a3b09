/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/integer.h"

#define DEPTH BRCI_INTEGER_DEPTH
#define DEPTH_MIN 16        /* of k: below it the bound on rounding is tighter than what is done here */
#define DEPTH_MAX (1 << 20) /* of k: a panel takes 32 times as many bytes */
#define BLOCK_STEP 16       /* of which a block has a whole number, where there are several */
#define SCALE_MIN 0x1p-40f  /* of a scale: products of two, times a dot, are normal numbers */
#define SCALE_MAX 0x1p40f
#define PIECE 256 /* scales, numbers at a time */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Whether every code is a small integer times one number. */
static int format_of(const brc_format_info *f, brci_integer_format *v) {
    const int codes = 1 << f->bits;
    *v = (brci_integer_format){.bits = f->bits, .least = 127, .largest = -128};
    if (f->role != BRC_ELEMENT || f->bits > 8 || f->bits < 2 || (f->bits == 8 && f->family != BRC_INT)) return 0;
    if (f->bits == 8) { /* bytes as they are */
        *v = (brci_integer_format){.bits = 8, .least = -128, .largest = 127, .unit = (float)f->smallest};
        return 1;
    }
    double unit = 0;
    for (int i = 0; i < codes; i++) {
        const double x = brci_decode(f, (uint64_t)i), size = x < 0 ? -x : x;
        if (!(size <= 128)) return 0; /* NaN too */
        if (size > 0 && (unit == 0 || size < unit)) unit = size;
    }
    for (int i = 0; i < codes; i++) {
        const double x = brci_decode(f, (uint64_t)i) / unit;
        if (!(x >= -128 && x <= 127) || x != (double)(int)x) return 0;
        v->values[i] = (int8_t)x;
        v->least = x < v->least ? (int)x : v->least;
        v->largest = x > v->largest ? (int)x : v->largest;
    }
    v->unit = (float)unit;
    return 1;
}

int brci_integer_side_of(const brci_source *s, brci_integer_side *side) {
    const brc_tensor *t = s->tensor;
    const int64_t k = s->view.cols;
    if (t == NULL || k < DEPTH_MIN || k > DEPTH_MAX || !brci_cpu_read_fits(s)) return 0;
    if (!format_of(brci_format(t->format), &side->format)) return 0;
    if (t->zero.data != NULL && (t->zero.kind != BRC_KIND_CODE || side->format.bits == 8)) return 0;
    side->depth = (k + DEPTH - 1) / DEPTH * DEPTH;
    side->block = t->scale.block.cols >= k ? 0 : t->scale.block.cols;
    side->scales = side->block == 0 ? 0 : (side->depth + side->block - 1) / side->block;
    return side->block % BLOCK_STEP == 0;
}

brci_integer_row brci_integer_row_of(const brci_source *s, const brci_integer_side *side, int64_t batch, int64_t i) {
    const brc_tensor *t = s->tensor;
    brci_integer_row r = {.tensor = t, .side = side, .cols = s->view.cols};
    float global = 1;
    r.codes = (const uint8_t *)t->data + (batch * s->view.rows + i) * t->row_pitch;
    r.length = side->block == 0 ? r.cols : side->block;
    r.scale_at = brc_table_index(t, &t->scale, batch, i, 0);
    r.zero_at = t->zero.data == NULL ? 0 : brc_table_index(t, &t->zero, batch, i, 0);
    if (t->global.data != NULL) global = brci_table_float(&t->global, brc_table_index(t, &t->global, batch, i, 0));
    r.all = brci_multiplier(t, 1, global) * side->format.unit;
    return r;
}

int64_t brci_integer_rows_apart(const brci_source *s) {
    const brc_table *scale = &s->tensor->scale;
    return s->view.rows < 2 ? 0
                            : brc_table_index(s->tensor, scale, 0, 1, 0) - brc_table_index(s->tensor, scale, 0, 0, 0);
}

void brci_integer_next_row(const brci_source *s, int64_t batch, int64_t row, int64_t apart, brci_integer_row *r) {
    const brc_tensor *t = s->tensor;
    if (t->scale.block.rows > 1 || t->group_index != NULL || (t->global.data != NULL && t->global.block.rows != 0)) {
        *r = brci_integer_row_of(s, r->side, batch, row);
        return;
    }
    r->codes += t->row_pitch;
    r->scale_at += apart;
}

static int is_zero(const brci_integer_row *r, int64_t block) {
    const int64_t first = block * r->length, last = least(first + r->length, r->cols);
    for (int64_t k = first; k < last; k++) {
        const uint64_t code = brci_code_at(r->codes, r->side->format.bits, k);
        if (r->side->format.bits == 8 ? code != 0 : r->side->format.values[code] != 0) return 0;
    }
    return 1;
}

/* By the bits, without a branch: vectors. */
static uint32_t is_out(float x) {
    const uint32_t size = brci_magnitude(x), lowest = brci_bits(SCALE_MIN), most = brci_bits(SCALE_MAX);
    return (uint32_t)(size != 0) & (uint32_t)(size - lowest > most - lowest);
}

int brci_integer_scales(const brci_kernels *kernels, const brci_integer_row *r, int64_t width, float *out, float *all) {
    const int64_t n = (r->cols + r->length - 1) / r->length;
    const int straight = width == 1 && r->side->block != 0;
    float room[PIECE];
    int fine = !is_out(r->all);
    *all = r->all;
    for (int64_t i = 0; i < n; i += PIECE) {
        const int64_t count = least(PIECE, n - i);
        float *piece = straight ? out + i : room;
        brci_cpu_numbers(kernels, &r->tensor->scale, r->scale_at + i, count, piece);
        uint32_t some = 0; /* out of range */
        for (int64_t j = 0; j < count; j++) some |= is_out(piece[j]);
        for (int64_t j = 0; some && j < count; j++)
            if (is_out(piece[j]) &&
                !(brci_absolute(piece[j]) < SCALE_MIN && r->tensor->zero.data == NULL && is_zero(r, i + j)))
                fine = 0;
        if (r->side->block == 0) *all = piece[0] * r->all;
        else if (!straight)
            for (int64_t j = 0; j < count; j++) out[(i + j) * width] = piece[j];
    }
    return fine;
}

/* Zero points are taken off the numbers, where they are integers that leave bytes. */
static int take_zeros(const brci_integer_row *r, int64_t first, int64_t n, uint8_t *out) {
    for (int64_t k = first; k < first + n;) {
        const int64_t block = k / r->length, end = least(first + n, (block + 1) * r->length);
        const float z = brci_table_float(&r->tensor->zero, r->zero_at + block);
        const int zero = z >= -128 && z <= 127 ? (int)z : 1000;
        if (z != (float)zero || r->side->format.least - zero < -128 || r->side->format.largest - zero > 127) return 0;
        for (; k < end; k++) out[k - first] = (uint8_t)(out[k - first] - zero);
    }
    return 1;
}

int brci_integer_bytes(const brci_kernels *kernels, const brci_integer_row *r, int64_t first, int bias,
                       uint8_t out[DEPTH]) {
    const int64_t n = least(DEPTH, r->cols - first);
    if (n < DEPTH) memset(out, bias, DEPTH);
    if (n <= 0) return 1;
    kernels->integer_bytes(&r->side->format, r->codes + first * r->side->format.bits / 8, n, bias, out);
    return r->tensor->zero.data == NULL || take_zeros(r, first, n, out);
}

void brci_integer_panel(const brci_kernels *kernels, const brci_integer_row r[BRCI_INTEGER_COLUMNS], int64_t k,
                        int64_t depth, int bias, uint32_t strange[BRCI_INTEGER_COLUMNS], uint8_t *out) {
    uint8_t rows[BRCI_INTEGER_RUN / DEPTH][16][DEPTH];
    const int64_t bits = r[0].side->format.bits;
    for (int half = 0; half < BRCI_INTEGER_COLUMNS; half += 16) {
        for (int i = 0; i < 16; i++) {
            const brci_integer_row *row = &r[half + i];
            for (int64_t at = 0; at < depth; at += DEPTH)
                strange[half + i] |= (uint32_t)!brci_integer_bytes(kernels, row, k + at, bias, rows[at / DEPTH][i]);
            /* What comes next of this row: so many rows are more than the hardware's prefetching follows. */
            for (int64_t at = 0; at < BRCI_INTEGER_RUN * bits / 8; at += 64)
                __builtin_prefetch(row->codes + (k + BRCI_INTEGER_RUN) * bits / 8 + at, 0, 2);
        }
        for (int64_t at = 0; at < depth; at += DEPTH)
            kernels->integer_turn((const uint8_t(*)[DEPTH])rows[at / DEPTH],
                                  out + at * BRCI_INTEGER_COLUMNS + half * 4);
    }
}

float brci_integer_element(const brci_kernels *kernels, const brci_multiplication *p, int64_t batch, int64_t m,
                           int64_t n) {
    float x[PIECE], y[PIECE];
    double sum = 0;
    for (int64_t k = 0; k < p->k; k += PIECE) {
        const int64_t count = least(PIECE, p->k - k);
        brci_cpu_read(kernels, &p->a, p->a_batch == 1 ? 0 : batch, m, k, count, x);
        brci_cpu_read(kernels, &p->b, p->b_batch == 1 ? 0 : batch, n, k, count, y);
        for (int64_t i = 0; i < count; i++) sum += (double)x[i] * (double)y[i];
    }
    return (float)sum;
}
