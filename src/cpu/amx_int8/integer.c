/* SPDX-License-Identifier: Apache-2.0
 * Products of integers by tiles of 16 rows of 64 bytes: 2 by 2 tiles of sums, fed by 2 of each side. A product of tiles
 * takes 16 cycles for any number of k up to 64. Where scales change along k, sums go through memory at each block: some
 * blocks are multiplied while the vector units scale those before. */
#define ISA amx_int8
#include "cpu/vector.inc"

#include <immintrin.h>

#define ROWS BRCI_INTEGER_ROWS
#define COLUMNS BRCI_INTEGER_COLUMNS
#define DEPTH BRCI_INTEGER_DEPTH
#define SIDE 16 /* rows and 32-bit columns of a tile */
#define TILE (SIDE * DEPTH)
#define STEP (4 * COLUMNS)

_Static_assert(ROWS == 2 * SIDE && COLUMNS == 2 * SIDE, "2 by 2 tiles");

/* Intel SDM vol. 1, 18.5: palette 1. */
typedef struct shapes {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16]; /* of a row */
    uint8_t rows[16];
} shapes;

/* Sums in tiles 0..3 (row tile by row tile), a in 4 and 5, b in 6 and 7; `depth` of k at a time. */
void brci_integer_begin_amx_int8(int rows, int64_t length) {
    const int64_t depth = length < DEPTH ? length : DEPTH;
    shapes s __attribute__((aligned(64))) = {.palette = 1};
    const int side = rows < SIDE ? rows : SIDE;
    for (int i = 0; i < 8; i++) {
        s.bytes[i] = i == 4 || i == 5 ? (uint16_t)depth : 4 * SIDE;
        s.rows[i] = (uint8_t)(i >= 6 ? depth / 4 : side);
    }
    /* gcc 12's intrinsic says that it reads 8 bytes: without this the other stores may be left out. */
    __asm__ volatile("" : : "r"(&s) : "memory");
    _tile_loadconfig(&s);
}

void brci_integer_end_amx_int8(void) { _tile_release(); }

INLINE void multiply(const int8_t *a, const uint8_t *b, const int two) {
    _tile_loadd(6, b, STEP);
    _tile_loadd(4, a, DEPTH);
    _tile_dpbssd(0, 4, 6);
    _tile_loadd(7, b + 4 * SIDE, STEP);
    _tile_dpbssd(1, 4, 7);
    if (!two) return;
    _tile_loadd(5, a + TILE, DEPTH);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
}

INLINE void clear(const int two) {
    _tile_zero(0);
    _tile_zero(1);
    if (!two) return;
    _tile_zero(2);
    _tile_zero(3);
}

/* One scale for all of k: sums stay integers until the last of it. */
INLINE void whole(const brci_integer_tile *t, const int two) {
    int32_t *sums = (int32_t *)(void *)t->c;
    if (t->k == 0) {
        clear(two);
    } else {
        _tile_loadd(0, sums, STEP);
        _tile_loadd(1, sums + SIDE, STEP);
        if (two) {
            _tile_loadd(2, sums + SIDE * COLUMNS, STEP);
            _tile_loadd(3, sums + SIDE * COLUMNS + SIDE, STEP);
        }
    }
    for (int64_t k = t->k; k < t->k + t->depth; k += DEPTH) multiply(t->a + k * ROWS, t->b + k * COLUMNS, two);
    _tile_stored(0, sums, STEP);
    _tile_stored(1, sums + SIDE, STEP);
    if (two) {
        _tile_stored(2, sums + SIDE * COLUMNS, STEP);
        _tile_stored(3, sums + SIDE * COLUMNS + SIDE, STEP);
    }
    if (t->k + t->depth < t->whole) return;
    for (int row = 0; row < t->rows; row++)
        for (int j = 0; j < COLUMNS; j += LANES) {
            float *to = t->c + row * COLUMNS + j;
            vi v;
            memcpy(&v, to, sizeof v);
            save(to, __builtin_convertvector(v, vf) * t->a_all[row] * load(t->b_all + j));
        }
}

/* `rows` rows of sums into c. */
INLINE void add(float *c, const int32_t *sums, const float *a, vf b, const int rows, const int by_a) {
#pragma GCC unroll 16
    for (int row = 0; row < rows; row++, sums += SIDE, c += COLUMNS) {
        vi sum;
        memcpy(&sum, sums, sizeof sum);
        const vf one = __builtin_convertvector(sum, vf) * b;
        save(c, by_a ? load(c) + one * a[row] : load(c) + one);
    }
}

/* Sums `i` (2 by 2) of a block into c. `by_a`, `by_b`: what there is of scales. */
INLINE void scale(const brci_integer_tile *t, const int32_t *sums, int64_t block, const int i, const int by_a,
                  const int by_b) {
    const int row = i / 2 * SIDE, column = i % 2 * SIDE, rows = t->rows - row;
    const float *a = by_a ? t->a_scale + block / t->a_every * ROWS + row : NULL;
    const vf b = by_b ? load((const float *)t->b_scale + block / t->b_every * COLUMNS + column) : all(1);
    float *c = t->c + row * COLUMNS + column;
    if (rows >= SIDE) add(c, sums, a, b, SIDE, by_a);
    else
        for (int at = 0; at < rows; at++) add(c + at * COLUMNS, sums + at * SIDE, by_a ? a + at : a, b, 1, by_a);
}

INLINE void keep(const int i, int32_t *sums) {
    if (i == 0) _tile_stored(0, sums, 4 * SIDE);
    else if (i == 1) _tile_stored(1, sums, 4 * SIDE);
    else if (i == 2) _tile_stored(2, sums, 4 * SIDE);
    else _tile_stored(3, sums, 4 * SIDE);
}

typedef int32_t tile_sums[SIDE * SIDE];

/* The last part of k: scales of all of it. */
INLINE void finish(const brci_integer_tile *t) {
    if (t->k + t->depth < t->whole) return;
    for (int row = 0; row < t->rows; row++)
        for (int j = 0; j < COLUMNS; j += LANES) {
            float *to = t->c + row * COLUMNS + j;
            save(to, load(to) * t->a_all[row] * load(t->b_all + j));
        }
}

/* Blocks of several products of tiles: those of one block, then its sums 2 by 2, scaled while they go to memory. */
INLINE void by_blocks(const brci_integer_tile *t, const int two, const int by_a, const int by_b) {
    tile_sums sums[8] __attribute__((aligned(64)));
    const int64_t first = t->k / t->length, end = first + (t->depth + t->length - 1) / t->length;
    if (t->k == 0) memset(t->c, 0, (size_t)(t->rows * COLUMNS) * sizeof *t->c);
    for (int64_t block = first; block <= end; block++) {
        const int more = block < end;
        const int some = block > first;
        const uint64_t from = (uint64_t)(block * t->length), full = from + (uint64_t)t->length,
                       to = full < (uint64_t)t->whole ? full : (uint64_t)t->whole;
        const int8_t *a = t->a + from * ROWS;
        const uint8_t *b = t->b + from * COLUMNS;
        if (more) {
            clear(two);
            for (uint64_t k = from; k < to; k += DEPTH, a += DEPTH * ROWS, b += DEPTH * COLUMNS) multiply(a, b, two);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 2 + 2 * two; i++) { /* those of the block before */
            if (some) scale(t, sums[(~block & 1) * 4 + i], block - 1, i, by_a, by_b);
            if (more) keep(i, sums[(block & 1) * 4 + i]);
        }
    }
    finish(t);
}

/* Sums `i` (2 by 2) of a block that is one product of tiles. */
INLINE void multiply_one(const int i, const int8_t *a, const uint8_t *b) {
    if (i == 0) {
        _tile_loadd(6, b, STEP);
        _tile_loadd(4, a, DEPTH);
        _tile_zero(0);
        _tile_dpbssd(0, 4, 6);
    } else if (i == 1) {
        _tile_loadd(7, b + 4 * SIDE, STEP);
        _tile_zero(1);
        _tile_dpbssd(1, 4, 7);
    } else if (i == 2) {
        _tile_loadd(5, a + TILE, DEPTH);
        _tile_zero(2);
        _tile_dpbssd(2, 5, 6);
    } else {
        _tile_zero(3);
        _tile_dpbssd(3, 5, 7);
    }
}

/* A block's sums (`i`, 2 by 2), times its scales, into c. */
INLINE void add_one(const brci_integer_tile *t, const int32_t *sums, int64_t block, const int i, vf c[SIDE],
                    const int by_a, const int by_b) {
    const float *a = by_a ? t->a_scale + block / t->a_every * ROWS + i / 2 * SIDE : NULL;
    const vf b = by_b ? load((const float *)t->b_scale + block / t->b_every * COLUMNS + i % 2 * SIDE) : all(1);
#pragma GCC unroll 16
    for (int row = 0; row < SIDE; row++) {
        vi sum;
        memcpy(&sum, sums + row * SIDE, sizeof sum);
        const vf one = __builtin_convertvector(sum, vf);
        c[row] += by_a ? one * (b * a[row]) : one * b;
    }
}

/* Block `j` of a batch is multiplied, `i` by `i`; meanwhile sums `j` of all blocks of the batch before, which ends
 * before `end`, are scaled: their results stay in registers. Either may not be there. What is written takes the place
 * of what was read. */
INLINE void step(const brci_integer_tile *t, tile_sums *sums, int64_t first, int64_t end, const int j, const int many,
                 const int odd, const int more, const int some, const int by_a, const int by_b) {
    const int64_t from = (first + j) * t->length;
    const int8_t *a = t->a + from / DEPTH * DEPTH * ROWS + from % DEPTH;
    const uint8_t *b = t->b + from * COLUMNS;
    float *to = t->c + j / 2 * SIDE * COLUMNS + j % 2 * SIDE;
    vf c[SIDE] = {{0}};
#pragma GCC unroll 16
    for (int row = 0; some && row < SIDE; row++) c[row] = load(to + row * COLUMNS);
#pragma GCC unroll 4
    for (int i = 0; i < many; i++) {
        int32_t *at = sums[odd ? i * many + j : j * many + i];
        if (more) multiply_one(i, a, b);
        if (some && first - many + i < end) add_one(t, at, first - many + i, j, c, by_a, by_b);
        if (more) keep(i, at);
    }
#pragma GCC unroll 16
    for (int row = 0; some && row < SIDE; row++) save(to + row * COLUMNS, c[row]);
}

INLINE void batch(const brci_integer_tile *t, tile_sums *sums, int64_t first, int64_t end, const int many,
                  const int odd, const int some, const int by_a, const int by_b) {
#pragma GCC unroll 4
    for (int j = 0; j < many; j++)
        if (first + j < end) step(t, sums, first, end, j, many, odd, 1, some, by_a, by_b);
        else if (some) step(t, sums, first, end, j, many, odd, 0, 1, by_a, by_b);
}

/* Blocks of up to 64 of k, each one product of tiles: as much work as scaling its sums. Batches of as many blocks as
 * there are sums, so that results are read and written once a batch. */
INLINE void by_batches(const brci_integer_tile *t, const int two, const int by_a, const int by_b) {
    tile_sums sums[16] __attribute__((aligned(64)));
    const int64_t first = t->k / t->length, end = first + (t->depth + t->length - 1) / t->length;
    const int many = 2 + 2 * two;
    if (t->k == 0) memset(t->c, 0, ROWS * COLUMNS * sizeof *t->c);
    if (t->rows < SIDE) memset(sums, 0, sizeof sums); /* rows that tiles lack are added too */
    batch(t, sums, first, end, many, 0, 0, by_a, by_b);
    int odd = 1;
    for (int64_t block = first + many; block < end + many; block += many, odd = !odd)
        if (odd) batch(t, sums, block, end, many, 1, 1, by_a, by_b);
        else batch(t, sums, block, end, many, 0, 1, by_a, by_b);
    finish(t);
}

INLINE void scaled(const brci_integer_tile *t, const int two, const int brief) {
    if (t->a_scale != NULL && t->b_scale != NULL) brief ? by_batches(t, two, 1, 1) : by_blocks(t, two, 1, 1);
    else if (t->a_scale != NULL) brief ? by_batches(t, two, 1, 0) : by_blocks(t, two, 1, 0);
    else brief ? by_batches(t, two, 0, t->b_scale != NULL) : by_blocks(t, two, 0, t->b_scale != NULL);
}

INLINE void wide(const brci_integer_tile *t, const int two) {
    if (t->a_scale == NULL && t->b_scale == NULL && t->whole <= t->length) whole(t, two);
    else if (t->length <= DEPTH) scaled(t, two, 1);
    else scaled(t, two, 0);
}

void brci_integer_wide_amx_int8(const brci_integer_tile *t) {
    if (t->rows > SIDE) wide(t, 1);
    else wide(t, 0);
}
