/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/matmul.h"

#define PIECE 256                               /* of k, read at a time while packing */
#define B_BYTES (32 << 20)                      /* of packed b at a time: stays in a third-level cache */
#define A_BYTES (512 << 10)                     /* of packed a at a time: half of a second-level cache */
#define DEPTH_MAX (B_BYTES / (4 * BRCI_TILE_N)) /* of k: one panel of b fills what b may take */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t rounded(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

int brci_cpu_matmul_fits(const brci_multiplication *p) {
    return p->k > 0 && brci_cpu_read_fits(&p->a) && brci_cpu_read_fits(&p->b);
}

int brci_cpu_slab(const brci_kernels *k, const brci_multiplication *p, brci_slab *s) {
    /* A step of k in the widest panel has 128 bytes; a longer k would take more memory than is promised. */
    if (p->k > DEPTH_MAX) return 0;
    s->columns = least(rounded(p->n, k->tile_n), most(k->tile_n, B_BYTES / (p->k * 4) / k->tile_n * k->tile_n));
    s->rows = least(rounded(p->m, k->tile_m), most(k->tile_m, A_BYTES / (p->k * 4) / k->tile_m * k->tile_m));
    s->b_bytes = s->columns * p->k * 4;
    s->a_bytes = rounded(s->rows * p->k * 4, 64);
    return 1;
}

/* panel[k][i] = operand[outer + i][k], i < width; beyond the operand's edge 0. `along`: k runs along the stored rows.
 */
static void pack_panel(const brci_kernels *kernels, const brci_source *s, int64_t batch, int along, int64_t outer,
                       int64_t outers, int64_t depth, int64_t width, float *panel) {
    float piece[PIECE];
    if (outers < width) memset(panel, 0, (size_t)(depth * width) * sizeof *panel);
    if (along) {
        for (int64_t i = 0; i < outers; i++)
            for (int64_t k = 0; k < depth; k += PIECE) {
                const int64_t n = least(PIECE, depth - k);
                float *to = panel + k * width + i;
                brci_cpu_read(kernels, s, batch, outer + i, k, n, piece);
                for (int64_t j = 0; j < n; j++) to[j * width] = piece[j];
            }
    } else {
        /* Reads begin on a multiple of 8 columns: panel widths are. Narrower tiles of a read a little more. */
        const int64_t before = outer % 8;
        for (int64_t k = 0; k < depth; k++) {
            brci_cpu_read(kernels, s, batch, k, outer - before, outers + before, piece);
            memcpy(panel + k * width, piece + before, (size_t)outers * sizeof *panel);
        }
    }
}

void brci_cpu_pack(const brci_kernels *k, const brci_multiplication *p, int64_t batch, int64_t column, int64_t first,
                   int64_t last, float *b) {
    const int64_t matrix = p->b_batch == 1 ? 0 : batch;
    for (int64_t i = first; i < last; i++) {
        const int64_t n = column + i * k->tile_n;
        pack_panel(k, &p->b, matrix, p->transpose_b, n, least(k->tile_n, p->n - n), p->k, k->tile_n,
                   b + i * k->tile_n * p->k);
    }
}

void brci_cpu_finish(const brci_multiplication *p, int64_t batch, int64_t m, int64_t n, int64_t rows, int64_t cols,
                     const float *tile, int64_t width) {
    const brc_format_info *f = brci_format(p->out->format);
    const brci_source bias = p->bias == NULL ? (brci_source){0} : brci_source_array(p->bias),
                      out = brci_source_array(p->out);
    float add[BRCI_TILE_N], old[BRCI_TILE_N];
    if (p->bias != NULL) brci_read(&bias, 0, 0, n, cols, add);
    for (int64_t i = 0; i < rows; i++) {
        uint8_t *to = (uint8_t *)p->out->data + brci_offset(p->out, batch, m + i, n) * (f->bits / 8);
        const int64_t step = p->out->stride[p->out->rank - 1] * (f->bits / 8);
        if (p->accumulate) brci_read(&out, batch, m + i, n, cols, old);
        for (int64_t j = 0; j < cols; j++) {
            double sum = (double)tile[i * width + j]; /* what is added is rounded once, with the sum */
            if (p->bias != NULL) sum += (double)add[j];
            if (p->accumulate) sum += (double)old[j];
            brci_code_put(to + j * step, f->bits, 0, brci_encode(f, (float)sum));
        }
    }
}

void brci_cpu_multiply(const brci_kernels *k, const brci_multiplication *p, int64_t batch, int64_t column,
                       int64_t column_end, int64_t first, int64_t last, const float *b, float *a, int64_t rows) {
    float tile[BRCI_TILE_M * BRCI_TILE_N];
    for (int64_t m = first; m < last; m += rows) {
        const int64_t end = least(last, m + rows), panels = rounded(end - m, k->tile_m) / k->tile_m;
        for (int64_t i = 0; i < panels; i++)
            pack_panel(k, &p->a, p->a_batch == 1 ? 0 : batch, !p->transpose_a, m + i * k->tile_m,
                       least(k->tile_m, end - m - i * k->tile_m), p->k, k->tile_m, a + i * k->tile_m * p->k);
        for (int64_t n = column; n < column_end; n += k->tile_n)
            for (int64_t i = 0; i < panels; i++) {
                const int64_t row = m + i * k->tile_m;
                k->tile(p->k, a + i * k->tile_m * p->k, b + (n - column) * p->k, tile);
                brci_cpu_finish(p, batch, row, n, least(k->tile_m, end - row), least(k->tile_n, p->n - n), tile,
                                k->tile_n);
            }
    }
}

void brci_cpu_stream(const brci_kernels *kernels, const brci_multiplication *p, int64_t batch, int64_t first,
                     int64_t last) {
    float x[PIECE], w[PIECE];
    for (int64_t n = first; n < last; n++) {
        float sums[BRCI_STREAM_ROWS] = {0};
        for (int64_t k = 0; k < p->k; k += PIECE) {
            const int64_t count = least(PIECE, p->k - k);
            brci_cpu_read(kernels, &p->b, p->b_batch == 1 ? 0 : batch, n, k, count, w);
            for (int64_t m = 0; m < p->m; m++) {
                brci_cpu_read(kernels, &p->a, p->a_batch == 1 ? 0 : batch, m, k, count, x);
                sums[m] += kernels->dot(x, w, count);
            }
        }
        for (int64_t m = 0; m < p->m; m++) brci_cpu_finish(p, batch, m, n, 1, 1, sums + m, 1);
    }
}
