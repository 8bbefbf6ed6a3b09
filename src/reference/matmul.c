/* SPDX-License-Identifier: Apache-2.0
 * Products: every element is the sum in double of the products of the dequantized floats, k rising, rounded once to F32
 * and once more to a narrower output. */
#include "reference/reference.h"

#define DEPTH 64 /* of k read at a time */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

int64_t brci_tiles(const brci_multiplication *p) {
    return p->batch * ((p->m + BRCI_TILE - 1) / BRCI_TILE) * ((p->n + BRCI_TILE - 1) / BRCI_TILE);
}

/* tile[i][d] = operand[outer + i, k + d], whichever way it is stored. `along_rows`: k runs along the stored rows. */
static void load(const brci_source *s, int64_t batch, int along_rows, int64_t outer, int64_t outers, int64_t k,
                 int64_t depth, float tile[BRCI_TILE][DEPTH]) {
    float column[BRCI_TILE];
    if (along_rows) {
        for (int64_t i = 0; i < outers; i++) brci_read(s, batch, outer + i, k, depth, tile[i]);
        return;
    }
    for (int64_t d = 0; d < depth; d++) {
        brci_read(s, batch, k + d, outer, outers, column);
        for (int64_t i = 0; i < outers; i++) tile[i][d] = column[i];
    }
}

static float plain(const brc_array *a, int64_t batch, int64_t row, int64_t col) {
    float x;
    brci_source s = brci_source_array(a);
    brci_read(&s, batch, row, col, 1, &x);
    return x;
}

static void finish(const brci_multiplication *p, int64_t batch, int64_t m, int64_t n, int64_t rows, int64_t cols,
                   double sums[BRCI_TILE][BRCI_TILE]) {
    const brc_format_info *f = brci_format(p->out->format);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) {
            double sum = sums[i][j];
            int64_t at = brci_offset(p->out, batch, m + i, n + j) * (f->bits / 8);
            if (p->bias != NULL) sum += (double)plain(p->bias, 0, 0, n + j);
            if (p->accumulate) sum += (double)plain(p->out, batch, m + i, n + j);
            brci_code_put((uint8_t *)p->out->data + at, f->bits, 0, brci_encode(f, (float)sum));
        }
}

void brci_reference_matmul(const brci_multiplication *p, int64_t first_tile, int64_t last_tile) {
    const int64_t tiles_n = (p->n + BRCI_TILE - 1) / BRCI_TILE, tiles_m = (p->m + BRCI_TILE - 1) / BRCI_TILE;
    for (int64_t tile = first_tile; tile < last_tile; tile++) {
        int64_t batch = tile / tiles_n / tiles_m, m = tile / tiles_n % tiles_m * BRCI_TILE,
                n = tile % tiles_n * BRCI_TILE;
        int64_t rows = least(BRCI_TILE, p->m - m), cols = least(BRCI_TILE, p->n - n);
        double sums[BRCI_TILE][BRCI_TILE] = {{0}};
        for (int64_t k = 0; k < p->k; k += DEPTH) {
            float a[BRCI_TILE][DEPTH], b[BRCI_TILE][DEPTH];
            int64_t depth = least(DEPTH, p->k - k);
            load(&p->a, p->a_batch == 1 ? 0 : batch, !p->transpose_a, m, rows, k, depth, a);
            load(&p->b, p->b_batch == 1 ? 0 : batch, p->transpose_b, n, cols, k, depth, b);
            for (int64_t i = 0; i < rows; i++)
                for (int64_t j = 0; j < cols; j++)
                    for (int64_t d = 0; d < depth; d++) sums[i][j] += (double)a[i][d] * (double)b[j][d];
        }
        finish(p, batch, m, n, rows, cols, sums);
    }
}
