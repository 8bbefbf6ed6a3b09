/* SPDX-License-Identifier: Apache-2.0
 * Up to 16 rows times weights as they are packed: some codes become bytes in the first-level cache, are multiplied by
 * tiles, and the sums are scaled while their rows stay in registers. Tiles as in integer.c. */
#define ISA amx_int8
#include "cpu/vector.inc"

#include "cpu/stored.inc"

#include <immintrin.h>

#define ROWS BRCI_INTEGER_ROWS
#define COLUMNS BRCI_INTEGER_COLUMNS
#define DEPTH BRCI_INTEGER_DEPTH
#define SIDE 16
#define STEP (4 * COLUMNS)
#define PIECE 128 /* of k that becomes bytes at a time: 4 KB */
#define BLOCKS 4  /* of 32 of k, the shortest */

_Static_assert(PIECE % DEPTH == 0 && BLOCKS == PIECE / 32, "whole blocks in a piece, or whole pieces in a block");

typedef int32_t tile_sums[SIDE * SIDE];

INLINE void multiply(const int8_t *a, const uint8_t *b) {
    _tile_loadd(4, a, DEPTH);
    _tile_loadd(6, b, STEP);
    _tile_dpbssd(0, 4, 6);
    _tile_loadd(7, b + 4 * SIDE, STEP);
    _tile_dpbssd(1, 4, 7);
}

/* Sums of `count` blocks from `block` on, of 16 columns, into c. */
INLINE void add(const brci_integer_tile *t, tile_sums *sums, int64_t block, int count, int column, const int rows,
                const int by_a, const int by_b) {
    vf c[SIDE];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) c[i] = load(t->c + i * COLUMNS + column);
    for (int j = 0; j < count; j++, block++) {
        const int32_t *from = sums[2 * j + column / SIDE];
        const float *a = by_a ? t->a_scale + block / t->a_every * ROWS : NULL;
        const vf b = by_b ? stored_in_units(t->b_format, t->b_scale, block / t->b_every * COLUMNS + column) : (vf){0};
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            vi sum;
            memcpy(&sum, from + i * SIDE, sizeof sum);
            vf one = __builtin_convertvector(sum, vf);
            if (by_b) one *= b;
            c[i] += by_a ? one * a[i] : one;
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) save(t->c + i * COLUMNS + column, c[i]);
}

INLINE void few(const brci_integer_tile *t, const int rows, const int by_a, const int by_b) {
    uint8_t bytes[PIECE * COLUMNS] __attribute__((aligned(64)));
    tile_sums sums[2 * BLOCKS] __attribute__((aligned(64))) = {{0}}; /* rows that tiles lack are added too */
    const int64_t step = t->length < DEPTH ? t->length : DEPTH;
    int64_t within = 0, block = 0; /* of k in the block under way */
    memset(t->c, 0, SIDE * COLUMNS * sizeof *t->c);
    for (int64_t k = 0; k < t->whole; k += PIECE) {
        const int64_t depth = t->whole - k < PIECE ? t->whole - k : PIECE;
        const int64_t bytes_of_k = t->narrow != NULL ? COLUMNS / 2 : COLUMNS, left = (t->whole - k) * bytes_of_k,
                      ahead = BRCI_INTEGER_AHEAD + (left > BRCI_INTEGER_AHEAD ? 0 : t->skip);
        int done = 0;
        brci_integer_widen_avx512_vnni(t->narrow, t->b + k * bytes_of_k, depth, 0, ahead, bytes);
        for (int64_t at = 0; at < depth; at += step) {
            if (within == 0) {
                _tile_zero(0);
                _tile_zero(1);
            }
            multiply(t->a + (k + at) / DEPTH * DEPTH * ROWS + (k + at) % DEPTH, bytes + at * COLUMNS);
            within += step;
            if (within < t->length && k + at + step < t->whole) continue;
            _tile_stored(0, sums[2 * done], 4 * SIDE);
            _tile_stored(1, sums[2 * done + 1], 4 * SIDE);
            within = 0;
            done++;
        }
        if (done == 0) continue;
        add(t, sums, block, done, 0, rows, by_a, by_b);
        add(t, sums, block, done, SIDE, rows, by_a, by_b);
        block += done;
    }
    for (int row = 0; row < t->rows; row++)
        for (int j = 0; j < COLUMNS; j += LANES) {
            float *to = t->c + row * COLUMNS + j;
            save(to, load(to) * (t->a_all[row] * brci_stored_unit(t->b_format)) * load(t->b_all + j));
        }
}

INLINE void of_rows(const brci_integer_tile *t, const int rows) {
    if (t->a_scale != NULL && t->b_scale != NULL) few(t, rows, 1, 1);
    else if (t->a_scale != NULL) few(t, rows, 1, 0);
    else if (t->b_scale != NULL) few(t, rows, 0, 1);
    else few(t, rows, 0, 0);
}

void brci_integer_few_amx_int8(const brci_integer_tile *t) {
    if (t->rows <= SIDE / 2) of_rows(t, SIDE / 2);
    else of_rows(t, SIDE);
}
