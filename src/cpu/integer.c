/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/integer.h"

#include "cpu/finish.h"

#define ROWS BRCI_INTEGER_ROWS
#define COLUMNS BRCI_INTEGER_COLUMNS
#define DEPTH BRCI_INTEGER_DEPTH
#define BIAS 128             /* added to numbers of b, so that they are unsigned */
#define LENGTH_MAX (1 << 16) /* of a block: 128 * 128 * length stays below 2^31 */
#define LENGTH_STEP 16       /* of which a block has a whole number, where there are several */
#define DEPTH_MIN 16         /* of k: below it the bound on rounding is tighter than what is done here */
#define DEPTH_MAX (1 << 20)  /* of k: a panel takes 32 times as many bytes */
#define A_BYTES (32 << 20)   /* of packed a at a time: stays in a third-level cache */
#define B_BYTES (1 << 20)    /* of b a thread packs at a time: half of a second-level cache */
#define ROWS_A_PANEL 64      /* up to this many rows of a, panels are packed one by one */
#define SCALE_MIN 0x1p-40f   /* of a multiplier: products of two, times a dot, are normal numbers */
#define SCALE_MAX 0x1p40f
#define PIECE 256 /* of k, read at a time by the slow way */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

/* Whether every code is a small integer times one number. */
static int format_of(const brc_format_info *f, brci_integer_format *v) {
    const int codes = 1 << f->bits;
    *v = (brci_integer_format){.bits = f->bits, .least = 127, .largest = -128};
    if (f->role != BRC_ELEMENT || f->bits > 8 || f->bits < 2) return 0;
    double unit = 0;
    for (int i = 0; i < codes; i++) {
        const double x = brci_decode(f, (uint64_t)i), size = x < 0 ? -x : x;
        if (!(size <= 128)) return 0; /* NaN too */
        if (size > 0 && (unit == 0 || size < unit)) unit = size;
    }
    for (int i = 0; i < codes; i++) {
        const double x = brci_decode(f, (uint64_t)i) / unit;
        if (!(x >= -128 && x <= 127) || x != (double)(int)x) return 0;
        if (f->bits < 8) v->values[i] = (int8_t)x;
        else if (x != (double)(int8_t)i) return 0;
        v->least = x < v->least ? (int)x : v->least;
        v->largest = x > v->largest ? (int)x : v->largest;
    }
    v->unit = (float)unit;
    return 1;
}

static int operand_of(const brci_source *s, brci_integer_format *format) {
    const brc_tensor *t = s->tensor;
    if (t == NULL || !brci_cpu_read_fits(s) || !format_of(brci_format(t->format), format)) return 0;
    return t->zero.data == NULL || (t->zero.kind == BRC_KIND_CODE && format->bits < 8);
}

/* Length of a scale's block along k, 0 where it is all of k. */
static int64_t length_of(const brc_tensor *t, int64_t k) {
    const int64_t length = t->scale.block.cols;
    return length >= k ? 0 : length;
}

static size_t codes_bytes(const brci_integer_product *p) { return (size_t)(ROWS * p->depth); }
static size_t start_bytes(const brci_integer_product *p) { return (size_t)(ROWS * p->blocks) * sizeof(int32_t); }
static size_t group_bytes(const brci_integer_product *p) {
    return codes_bytes(p) + start_bytes(p) + (size_t)(ROWS * (p->a_scales + 2)) * sizeof(float);
}
static size_t panel_bytes(const brci_integer_product *p) {
    return (size_t)(COLUMNS * p->depth) + (size_t)(COLUMNS * (p->b_scales + 2)) * sizeof(float);
}

int brci_cpu_integer_fits(const brci_kernels *kernels, const brci_multiplication *m, int64_t threads,
                          brci_integer_product *p) {
    *p = (brci_integer_product){.kernels = kernels, .product = m};
    if (m->transpose_a || !m->transpose_b || m->k < DEPTH_MIN || m->k > DEPTH_MAX) return 0;
    if (!operand_of(&m->a, &p->a) || !operand_of(&m->b, &p->b)) return 0;
    const int64_t a = length_of(m->a.tensor, m->k), b = length_of(m->b.tensor, m->k), longer = most(a, b);
    p->length = a == 0 || b == 0 ? longer : least(a, b);
    if (p->length == 0) p->length = least(up(m->k, DEPTH), LENGTH_MAX);
    if (p->length > LENGTH_MAX || p->length % LENGTH_STEP != 0 || (a != 0 && b != 0 && longer % p->length != 0))
        return 0;
    p->blocks = (m->k + p->length - 1) / p->length;
    p->depth = up(p->blocks * p->length, DEPTH);
    p->a_every = a == 0 ? p->blocks : a / p->length;
    p->b_every = b == 0 ? p->blocks : b / p->length;
    p->a_scales = a == 0 ? 0 : (m->k + a - 1) / a;
    p->b_scales = b == 0 ? 0 : (m->k + b - 1) / b;
    const int64_t panels = (m->n + COLUMNS - 1) / COLUMNS, share = (panels + threads - 1) / threads,
                  many = m->m <= ROWS_A_PANEL ? 1 : most(1, B_BYTES / (int64_t)panel_bytes(p));
    p->rows = most(ROWS, least(up(m->m, ROWS), A_BYTES / (int64_t)group_bytes(p) * ROWS));
    p->columns = COLUMNS * most(1, least(many, share));
    p->a_bytes = up(p->rows / ROWS * (int64_t)group_bytes(p), 64);
    p->b_bytes = up(p->columns / COLUMNS * (int64_t)panel_bytes(p), 64);
    return 1;
}

/* The parts of a packed group of rows or panel of columns. */
typedef struct packed {
    uint8_t *codes;
    int32_t *start;    /* a: [blocks][16] */
    float *scale;      /* [scales][16 or 32] */
    float *all;        /* [16 or 32]: of all k */
    uint32_t *strange; /* [16 or 32]: 1 where a row cannot be done in integers */
    int64_t width, scales;
} packed;

static packed group_at(const brci_integer_product *p, const void *memory, int64_t i) {
    packed g = {
        .codes = (uint8_t *)(uintptr_t)memory + (size_t)i * group_bytes(p), .width = ROWS, .scales = p->a_scales};
    g.start = (int32_t *)(void *)(g.codes + codes_bytes(p));
    g.scale = (float *)(void *)((char *)g.start + start_bytes(p));
    g.all = g.scale + ROWS * p->a_scales;
    g.strange = (uint32_t *)(void *)(g.all + ROWS);
    return g;
}

static packed panel_at(const brci_integer_product *p, const void *memory, int64_t i) {
    packed b = {
        .codes = (uint8_t *)(uintptr_t)memory + (size_t)i * panel_bytes(p), .width = COLUMNS, .scales = p->b_scales};
    b.scale = (float *)(void *)(b.codes + COLUMNS * p->depth);
    b.all = b.scale + COLUMNS * p->b_scales;
    b.strange = (uint32_t *)(void *)(b.all + COLUMNS);
    return b;
}

/* A row of an operand: where its codes and numbers lie. */
typedef struct row {
    const brc_tensor *tensor;
    const brci_integer_format *format;
    const uint8_t *codes;
    int64_t scale_at, zero_at, length, cols; /* length: of a scale's block */
    float global;
} row;

static row row_of(const brci_source *s, const brci_integer_format *format, int64_t batch, int64_t i) {
    const brc_tensor *t = s->tensor;
    row r = {.tensor = t, .format = format, .cols = s->view.cols, .global = 1};
    r.codes = (const uint8_t *)t->data + (batch * s->view.rows + i) * t->row_pitch;
    r.length = length_of(t, r.cols) == 0 ? r.cols : t->scale.block.cols;
    r.scale_at = brc_table_index(t, &t->scale, batch, i, 0);
    r.zero_at = t->zero.data == NULL ? 0 : brc_table_index(t, &t->zero, batch, i, 0);
    if (t->global.data != NULL) r.global = brci_table_float(&t->global, brc_table_index(t, &t->global, batch, i, 0));
    return r;
}

static int is_zero(const row *r, int64_t block) {
    const int64_t first = block * r->length, last = least(first + r->length, r->cols);
    for (int64_t k = first; k < last; k++) {
        const uint64_t code = brci_code_at(r->codes, r->format->bits, k);
        if (r->format->bits == 8 ? code != 0 : r->format->values[code] != 0) return 0;
    }
    return 1;
}

/* The multipliers of a row, `width` numbers apart; 0 for a block of zeros, whose scale may be anything finite. Returns
 * whether each is in the range that products keep exact enough. */
static int scales_of(const brci_kernels *k, const row *r, int64_t width, float *out) {
    const int64_t n = (r->cols + r->length - 1) / r->length;
    float piece[PIECE];
    int ordinary = 1;
    for (int64_t i = 0; i < n; i += PIECE) {
        const int64_t count = least(PIECE, n - i);
        brci_cpu_numbers(k, &r->tensor->scale, r->scale_at + i, count, piece);
        for (int64_t j = 0; j < count; j++) {
            const float m = brci_multiplier(r->tensor, piece[j], r->global) * r->format->unit, size = brci_absolute(m);
            float *to = out + (i + j) * width;
            *to = m;
            if ((size >= SCALE_MIN && size <= SCALE_MAX) || size == 0) continue;
            if (size <= SCALE_MAX && r->tensor->zero.data == NULL && is_zero(r, i + j)) *to = 0;
            else ordinary = 0;
        }
    }
    return ordinary;
}

/* Zero points are taken off the numbers, where they are integers that leave bytes. */
static int take_zeros(const row *r, int64_t first, int64_t n, uint8_t *out) {
    for (int64_t k = first; k < first + n;) {
        const int64_t block = k / r->length, end = least(first + n, (block + 1) * r->length);
        const float z = brci_table_float(&r->tensor->zero, r->zero_at + block);
        const int zero = z >= -128 && z <= 127 ? (int)z : 1000;
        if (z != (float)zero || r->format->least - zero < -128 || r->format->largest - zero > 127) return 0;
        for (; k < end; k++) out[k - first] = (uint8_t)(out[k - first] - zero);
    }
    return 1;
}

/* Numbers [first, first + 64) of a row, plus `bias`, zeros beyond its end. */
static int bytes_of(const brci_kernels *kernels, const row *r, int64_t first, int bias, uint8_t out[DEPTH]) {
    const int64_t n = least(DEPTH, r->cols - first);
    if (n < DEPTH) memset(out, bias, DEPTH);
    if (n <= 0) return 1;
    kernels->integer_bytes(r->format, r->codes + first * r->format->bits / 8, n, bias, out);
    return r->tensor->zero.data == NULL || take_zeros(r, first, n, out);
}

void brci_cpu_integer_pack(const brci_integer_product *p, int64_t batch, int64_t from, int64_t first, int64_t last,
                           void *a) {
    const brci_multiplication *m = p->product;
    for (int64_t i = first; i < last; i++) {
        const packed g = group_at(p, a, i);
        memset(g.codes, 0, group_bytes(p));
        for (int64_t j = 0; j < least(ROWS, m->m - from - i * ROWS); j++) {
            const row r = row_of(&m->a, &p->a, m->a_batch == 1 ? 0 : batch, from + i * ROWS + j);
            int fine =
                scales_of(p->kernels, &r, p->a_scales == 0 ? 0 : ROWS, p->a_scales == 0 ? g.all + j : g.scale + j);
            if (p->a_scales != 0) g.all[j] = 1;
            int64_t left = p->length, block = 0;
            int32_t sum = 0;
            for (int64_t k = 0; k < p->depth; k += DEPTH) {
                uint8_t *to = g.codes + k * ROWS + j * DEPTH;
                fine &= bytes_of(p->kernels, &r, k, 0, to);
                for (int64_t at = 0; at < DEPTH;) { /* the sums of the blocks */
                    const int64_t end = least(DEPTH, at + left);
                    left -= end - at;
                    for (; at < end; at++) sum += (int8_t)to[at];
                    if (left > 0) continue;
                    if (block < p->blocks) g.start[block++ * ROWS + j] = -BIAS * sum; /* what follows is padding */
                    left = p->length;
                    sum = 0;
                }
            }
            g.strange[j] = !fine;
        }
    }
}

static void pack_panel(const brci_integer_product *p, int64_t batch, int64_t n, packed b) {
    const brci_multiplication *m = p->product;
    uint8_t rows[16][DEPTH];
    row r[COLUMNS];
    const int64_t count = least(COLUMNS, m->n - n);
    for (int64_t i = 0; i < COLUMNS; i++) {
        /* Beyond the last column stands that one again: what comes of it is not stored. */
        r[i] = row_of(&m->b, &p->b, m->b_batch == 1 ? 0 : batch, n + least(i, count - 1));
        b.strange[i] = !scales_of(p->kernels, &r[i], COLUMNS, p->b_scales == 0 ? b.all + i : b.scale + i);
        if (p->b_scales != 0) b.all[i] = 1;
    }
    for (int64_t k = 0; k < p->depth; k += DEPTH)
        for (int64_t half = 0; half < COLUMNS; half += 16) {
            for (int64_t i = 0; i < 16; i++)
                b.strange[half + i] |= (uint32_t)!bytes_of(p->kernels, &r[half + i], k, BIAS, rows[i]);
            p->kernels->integer_turn((const uint8_t(*)[DEPTH])rows, b.codes + k * COLUMNS + half * 4);
        }
}

/* One element from the dequantized values, for rows that have scales out of range. */
static float element(const brci_integer_product *p, int64_t batch, int64_t m, int64_t n) {
    const brci_multiplication *q = p->product;
    float x[PIECE], y[PIECE];
    double sum = 0;
    for (int64_t k = 0; k < q->k; k += PIECE) {
        const int64_t count = least(PIECE, q->k - k);
        brci_cpu_read(p->kernels, &q->a, q->a_batch == 1 ? 0 : batch, m, k, count, x);
        brci_cpu_read(p->kernels, &q->b, q->b_batch == 1 ? 0 : batch, n, k, count, y);
        for (int64_t i = 0; i < count; i++) sum += (double)x[i] * (double)y[i];
    }
    return (float)sum;
}

void brci_cpu_integer_multiply(const brci_integer_product *p, int64_t batch, int64_t from, int64_t rows, int64_t first,
                               int64_t last, const void *a, void *memory) {
    const brci_multiplication *m = p->product;
    const int64_t many = p->columns / COLUMNS;
    float c[ROWS][COLUMNS];
    for (int64_t panel = first; panel < last; panel += many) {
        const int64_t end = least(last, panel + many);
        for (int64_t i = panel; i < end; i++) pack_panel(p, batch, i * COLUMNS, panel_at(p, memory, i - panel));
        for (int64_t group = 0; group * ROWS < rows; group++)
            for (int64_t i = panel; i < end; i++) {
                const packed x = group_at(p, a, group), w = panel_at(p, memory, i - panel);
                const int64_t row_at = from + group * ROWS, n = i * COLUMNS, count = least(ROWS, rows - group * ROWS),
                              cols = least(COLUMNS, m->n - n);
                const brci_integer_tile tile = {
                    .a = (const int8_t *)x.codes,
                    .b = w.codes,
                    .start = x.start,
                    .a_scale = p->a_scales == 0 ? NULL : x.scale,
                    .b_scale = p->b_scales == 0 ? NULL : w.scale,
                    .blocks = p->blocks,
                    .length = p->length,
                    .a_every = p->a_every,
                    .b_every = p->b_every,
                    .rows = (int)count,
                    .c = &c[0][0],
                };
                p->kernels->integer_tile(&tile);
                for (int64_t y = 0; y < count; y++)
                    for (int64_t z = 0; z < cols; z++)
                        c[y][z] = x.strange[y] || w.strange[z] ? element(p, batch, row_at + y, n + z)
                                                               : c[y][z] * x.all[y] * w.all[z];
                brci_cpu_finish(p->kernels, m, batch, row_at, n, count, cols, &c[0][0], COLUMNS);
            }
    }
}
