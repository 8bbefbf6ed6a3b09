/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/cast.h"

#define PIECE 2048     /* floats at a time on their way to a half-width type: 8 KiB */
#define BLOCKS 256     /* blocks whose multipliers are made together */
#define TABLES 64      /* multipliers, each with a table of the values of its codes, */
#define TABLED 2048    /* which this many numbers are worth */
#define PAST (4 << 20) /* bytes of a result that goes past the caches: twice a second-level cache */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static int tensor_fits(const brc_tensor *t) {
    brci_vector_format format;
    if (!brci_is_little_endian() || t->group_index != NULL || !brci_vector_format_of(brci_format(t->format), &format))
        return 0;
    if (t->zero.data != NULL && t->zero.block.cols != t->scale.block.cols) return 0;
    if (t->global.data != NULL && t->global.block.cols != 0) return 0;
    return brci_block_counts(brci_tensor_view(t), t->scale.block).cols <= 1 ||
           (uint64_t)t->scale.block.cols * format.bits % 8 == 0;
}

int brci_cpu_store_fits(const brc_tensor *t, const brc_array *dst) {
    if (dst->stride[dst->rank - 1] != 1 ||
        (dst->format != BRC_F32 && dst->format != BRC_F16 && dst->format != BRC_BF16))
        return 0;
    if (dst->format == BRC_F32 && (uintptr_t)dst->data % sizeof(float) != 0) return 0;
    return tensor_fits(t);
}

void brci_cpu_numbers(const brci_kernels *k, const brc_table *t, int64_t first, int64_t n, float *out) {
    const uint8_t *at = (const uint8_t *)t->data + first * (brci_format(t->format)->bits / 8);
    const float one = 1;
    brci_decoding d = {0};
    if (t->format == BRC_F32) memcpy(out, at, (size_t)n * sizeof *out);
    else if (t->format == BRC_F16) k->widen_f16(at, n, out);
    else if (t->format == BRC_BF16) k->widen_bf16(at, n, out);
    else if (t->format == BRC_E8M0) k->powers(at, n, out);
    else if (brci_format(t->format)->bits == 8 && brci_vector_format_of(brci_format(t->format), &d.format))
        k->decode(&d, at, 1, n, &one, out);
    else
        for (int64_t i = 0; i < n; i++) out[i] = brci_table_float(t, first + i);
}

/* Scales to multipliers; 0 if one is not finite or 0. */
static int multiply(const brci_kernels *k, const brc_tensor *t, float global, int64_t n, float *m) {
    if (t->global.data == NULL || t->global.kind == BRC_KIND_MULTIPLIER)
        return k->multipliers(m, n, t->global.data == NULL ? 1 : global);
    for (int64_t i = 0; i < n; i++) m[i] = brci_multiplier(t, m[i], global);
    return k->multipliers(m, n, 1);
}

/* Zero points in units of the value are added at the end: they must be finite, as a NaN would keep its bits. */
static int are_finite(const float *z, int64_t n) {
    uint32_t wrong = 0;
    for (int64_t i = 0; i < n; i++) wrong |= (uint32_t)(brci_magnitude(z[i]) >= BRCI_F32_INFINITY);
    return !wrong;
}

static int is_real(const brc_tensor *t) { return t->zero.data != NULL && t->zero.kind == BRC_KIND_REAL; }

static void decode(const brci_kernels *k, brci_decoding d, const uint8_t *codes, int64_t blocks, int64_t length,
                   const float *m, const float *zeros, float *out) {
    d.zeros = zeros;
    k->decode(&d, codes, blocks, length, m, out);
}

typedef struct writer {
    const brci_kernels *kernels;
    brci_decoding decoding;
    unsigned out;  /* brc_format */
    int64_t bytes; /* of an output element */
    int past;      /* the output is not read soon */
    float piece[PIECE];
    brci_value_table tables[TABLES];
} writer;

static void narrow(const writer *w, int64_t n, uint8_t *out) {
    (w->out == BRC_F16 ? w->kernels->narrow_f16 : w->kernels->narrow_bf16)(w->piece, n, out, w->past);
}

/* What the 128 codes without a sign stand for. */
static void tabulate(writer *w, float m, brci_value_table *t) {
    uint8_t codes[128];
    float values[128];
    uint16_t halves[128];
    for (int i = 0; i < 128; i++) codes[i] = (uint8_t)i;
    w->kernels->decode(&w->decoding, codes, 1, 128, &m, values);
    w->kernels->narrow_bf16(values, 128, halves, 0);
    for (int i = 0; i < 128; i++) {
        t->high[i] = (uint8_t)(halves[i] >> 8);
        t->low[i] = (uint8_t)halves[i];
    }
}

static void write_blocks(writer *w, const uint8_t *codes, int64_t blocks, int64_t length, const float *m,
                         const float *zeros, uint8_t *out) {
    const uint32_t bits = w->decoding.format.bits;
    if (w->out == BRC_F32) {
        decode(w->kernels, w->decoding, codes, blocks, length, m, zeros, (float *)(void *)out);
    } else if (length <= PIECE) {
        const int64_t many = PIECE / length;
        for (int64_t i = 0; i < blocks; i += many) {
            int64_t n = least(many, blocks - i);
            decode(w->kernels, w->decoding, codes + i * length * bits / 8, n, length, m + i,
                   zeros == NULL ? NULL : zeros + i, w->piece);
            narrow(w, n * length, out + i * length * w->bytes);
        }
    } else {
        for (int64_t i = 0; i < blocks; i++)
            for (int64_t col = 0; col < length; col += PIECE) {
                int64_t n = least(PIECE, length - col), at = i * length + col;
                decode(w->kernels, w->decoding, codes + at * bits / 8, 1, n, m + i, zeros == NULL ? NULL : zeros + i,
                       w->piece);
                narrow(w, n, out + at * w->bytes);
            }
    }
}

/* How many of `blocks` were written whose scales need not become floats first. */
static int64_t write_scaled(const writer *w, const brc_tensor *t, float global, int64_t scale_at, const uint8_t *codes,
                            int64_t blocks, int64_t length, uint8_t *out) {
    const int divides = t->global.data != NULL && t->global.kind != BRC_KIND_MULTIPLIER;
    if (w->kernels->decode_scaled == NULL || w->out != BRC_F32 || t->zero.data != NULL || divides ||
        brci_format(t->scale.format)->bits != 8)
        return 0;
    return w->kernels->decode_scaled(&w->decoding.format, t->scale.format, codes,
                                     (const uint8_t *)t->scale.data + scale_at, global, blocks, length,
                                     w->decoding.past, (float *)(void *)out);
}

/* One row; 0 where a multiplier is not ordinary. */
static int write_row(writer *w, const brc_tensor *t, int64_t batch, int64_t row, const uint8_t *codes, uint8_t *out) {
    const brci_view v = brci_tensor_view(t);
    const int64_t length = t->scale.block.cols == 0 ? v.cols : t->scale.block.cols;
    const int64_t cols = brci_block_counts(v, t->scale.block).cols, whole = length == v.cols ? cols : v.cols / length;
    const int64_t scale_at = brc_table_index(t, &t->scale, batch, row, 0);
    const int64_t zero_at = t->zero.data == NULL ? 0 : brc_table_index(t, &t->zero, batch, row, 0);
    float global = 1, m[BLOCKS], zeros[BLOCKS];
    if (t->global.data != NULL) global = brci_table_float(&t->global, brc_table_index(t, &t->global, batch, row, 0));
    const int64_t done = write_scaled(w, t, global, scale_at, codes, whole, length, out);
    for (int64_t j = done; j < cols; j += BLOCKS) {
        int64_t n = least(BLOCKS, cols - j), full = least(n, whole - j), at = j * length;
        const float *zero = t->zero.data == NULL ? NULL : zeros;
        brci_cpu_numbers(w->kernels, &t->scale, scale_at + j, n, m);
        if (!multiply(w->kernels, t, global, n, m)) return 0;
        if (zero != NULL) brci_cpu_numbers(w->kernels, &t->zero, zero_at + j, n, zeros);
        if (w->decoding.real && !are_finite(zeros, n)) return 0;
        write_blocks(w, codes + at * w->decoding.format.bits / 8, full, length, m, zero, out + at * w->bytes);
        if (full < n) { /* the partial block at the edge */
            at += full * length;
            write_blocks(w, codes + at * w->decoding.format.bits / 8, 1, v.cols - at, m + full,
                         zero == NULL ? NULL : zeros + full, out + at * w->bytes);
        }
    }
    return 1;
}

/* Rows [row, end) of BF16, which share their multipliers, by tables; 0 = they are not served. */
static int write_tabled(writer *w, const brc_tensor *t, brc_array *dst, int64_t row, int64_t end) {
    const brci_view v = brci_tensor_view(t);
    const int64_t length = t->scale.block.cols == 0 ? v.cols : t->scale.block.cols, batch = row / v.rows,
                  cols = (v.cols + length - 1) / length;
    float global = 1, m[TABLES];
    if (t->global.data != NULL)
        global = brci_table_float(&t->global, brc_table_index(t, &t->global, batch, row % v.rows, 0));
    for (int64_t j = 0; j < cols; j += TABLES) {
        const int64_t n = least(TABLES, cols - j);
        brci_cpu_numbers(w->kernels, &t->scale, brc_table_index(t, &t->scale, batch, row % v.rows, 0) + j, n, m);
        if (!multiply(w->kernels, t, global, n, m)) return 0;
        for (int64_t i = 0; i < n; i++) tabulate(w, m[i], &w->tables[i]);
        for (int64_t i = row; i < end; i++) {
            const uint8_t *codes = (const uint8_t *)t->data + i * t->row_pitch;
            uint8_t *out = (uint8_t *)dst->data + brci_offset(dst, batch, i % v.rows, 0) * w->bytes;
            for (int64_t b = 0; b < n; b++) {
                const int64_t at = (j + b) * length, size = least(length, v.cols - at);
                if (!w->kernels->look_up(&w->decoding.format, &w->tables[b], codes + at, size, w->past,
                                         out + at * w->bytes))
                    write_blocks(w, codes + at, 1, size, &m[b], NULL, out + at * w->bytes);
            }
        }
    }
    return 1;
}

/* How many rows from `row` on share their multipliers; 0 where tables of these are not worth while, or not served. */
static int64_t tabled_rows(const writer *w, const brc_tensor *t, int64_t row) {
    const brci_view v = brci_tensor_view(t);
    const brci_vector_format *f = &w->decoding.format;
    const int64_t length = t->scale.block.cols == 0 ? v.cols : t->scale.block.cols, at = row % v.rows,
                  rows = t->scale.block.rows == 0 ? v.rows : t->scale.block.rows,
                  left = least(rows - at % rows, v.rows - at);
    const int one_global = t->global.data == NULL || t->global.block.rows == 0;
    if (w->kernels->look_up == NULL || w->out != BRC_BF16 || f->family != BRC_FLOAT || f->bits != 8 ||
        !f->keeps_minus_zero || t->zero.data != NULL || !one_global)
        return 0;
    return rows * length >= TABLED ? left : 0;
}

void brci_cpu_store(const brci_kernels *k, const brc_tensor *t, brc_array *dst, int64_t first, int64_t last) {
    const brci_source source = brci_source_tensor(t);
    const int64_t elements = brci_elements(dst->rank, dst->shape), bytes = brci_format(dst->format)->bits / 8;
    writer w = {.kernels = k, .out = dst->format, .bytes = bytes, .past = elements * bytes >= PAST};
    w.decoding = (brci_decoding){.real = is_real(t), .past = w.past && dst->format == BRC_F32};
    (void)brci_vector_format_of(brci_format(t->format), &w.decoding.format);
    for (int64_t i = first; i < last && source.view.cols > 0;) {
        const int64_t tabled = least(tabled_rows(&w, t, i), last - i), end = i + (tabled > 0 ? tabled : 1);
        if (tabled > 0 && write_tabled(&w, t, dst, i, end)) i = end;
        for (; i < end; i++) {
            const int64_t batch = i / source.view.rows, row = i % source.view.rows;
            uint8_t *out = (uint8_t *)dst->data + brci_offset(dst, batch, row, 0) * w.bytes;
            if (!write_row(&w, t, batch, row, (const uint8_t *)t->data + i * t->row_pitch, out))
                brci_reference_store(&source, dst, i, i + 1);
        }
    }
    if (w.past) brci_stream_end();
}

int brci_cpu_read_fits(const brci_source *source) {
    const brc_array *a = source->array;
    if (a == NULL) return tensor_fits(source->tensor);
    return brci_is_little_endian() && a->stride[a->rank - 1] == 1 &&
           (a->format == BRC_F32 || a->format == BRC_F16 || a->format == BRC_BF16);
}

static void read_array(const brci_kernels *k, const brc_array *a, int64_t batch, int64_t row, int64_t col,
                       int64_t count, float *out) {
    const uint8_t *at = (const uint8_t *)a->data + brci_offset(a, batch, row, col) * (brci_format(a->format)->bits / 8);
    if (a->format == BRC_F32) memcpy(out, at, (size_t)count * sizeof *out);
    else (a->format == BRC_F16 ? k->widen_f16 : k->widen_bf16)(at, count, out);
}

void brci_cpu_read(const brci_kernels *k, const brci_source *source, int64_t batch, int64_t row, int64_t col,
                   int64_t count, float *out) {
    const brc_tensor *t = source->tensor;
    if (t == NULL) {
        read_array(k, source->array, batch, row, col, count, out);
        return;
    }
    const int64_t length = t->scale.block.cols == 0 ? source->view.cols : t->scale.block.cols, end = col + count;
    const uint8_t *codes = (const uint8_t *)t->data + (batch * source->view.rows + row) * t->row_pitch;
    const int64_t scale_at = brc_table_index(t, &t->scale, batch, row, 0);
    const int64_t zero_at = t->zero.data == NULL ? 0 : brc_table_index(t, &t->zero, batch, row, 0);
    brci_decoding d = {.real = is_real(t)};
    float global = 1, m[BLOCKS], zeros[BLOCKS];
    (void)brci_vector_format_of(brci_format(t->format), &d.format);
    if (t->global.data != NULL) global = brci_table_float(&t->global, brc_table_index(t, &t->global, batch, row, 0));
    while (col < end) { /* the blocks that [col, end) touches, cut where it begins and ends */
        const int64_t first = col / length, n = least(BLOCKS, (end - 1) / length - first + 1);
        const float *zero = t->zero.data == NULL ? NULL : zeros;
        brci_cpu_numbers(k, &t->scale, scale_at + first, n, m);
        if (!multiply(k, t, global, n, m)) {
            brci_read(source, batch, row, col, end - col, out);
            return;
        }
        if (zero != NULL) brci_cpu_numbers(k, &t->zero, zero_at + first, n, zeros);
        if (is_real(t) && !are_finite(zeros, n)) {
            brci_read(source, batch, row, col, end - col, out);
            return;
        }
        for (int64_t i = 0; i < n;) {
            const int64_t stop = least((first + i + 1) * length, end),
                          whole = col == (first + i) * length ? (end - col) / length : 0;
            const int64_t blocks = whole > 0 ? least(whole, n - i) : 1, size = whole > 0 ? length : stop - col;
            decode(k, d, codes + col * d.format.bits / 8, blocks, size, m + i, zero == NULL ? NULL : zero + i, out);
            out += blocks * size;
            col += blocks * size;
            i += blocks;
        }
    }
}
