/* SPDX-License-Identifier: Apache-2.0
 * Tiles of sums in AMX registers: 0..3 sums, 4, 5 of a, 6, 7 of b (Intel SDM vol. 1, 18; TDPBF16PS: each pair of
 * products is added with one rounding each, subnormals are zero). */
#define ISA amx_bf16
#include "cpu/vector.inc"

#include "cpu/bf16.h"

#define SIDE 16
#define C_STEP (BRCI_BF16_TILE * 4) /* bytes of a row of sums */

/* The registers' shapes (SDM, LDTILECFG): all of 16 rows of 64 bytes. */
typedef struct shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} shapes;

/* In memory for good: the compilers' intrinsic does not say that it reads all of it. */
static const shapes every = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE},
};

void KERNEL_NAME(bf16_open)(int open) {
    if (open) _tile_loadconfig(&every);
    else _tile_release();
}

#define LOAD_B(k)                                                                                                      \
    _tile_loadd(6, t->b[0] + (k)*BRCI_BF16_PART, 64);                                                                  \
    _tile_loadd(7, t->b[1] + (k)*BRCI_BF16_PART, 64)
#define A_AT(p, k) (t->a + (p)*t->a_plane + (k)*BRCI_BF16_PART)

/* Step k of a tile of 32 rows: four sums. */
#define MULTIPLY_32(k)                                                                                                 \
    for (int p = 0; p < t->planes; p++) {                                                                              \
        const uint16_t *a = A_AT(p, k);                                                                                \
        _tile_loadd(4, a, 64);                                                                                         \
        _tile_loadd(5, a + t->a_rows, 64);                                                                             \
        if (p == 0) { LOAD_B(k); }                                                                                     \
        _tile_dpbf16ps(0, 4, 6);                                                                                       \
        _tile_dpbf16ps(1, 4, 7);                                                                                       \
        _tile_dpbf16ps(2, 5, 6);                                                                                       \
        _tile_dpbf16ps(3, 5, 7);                                                                                       \
    }
/* And of 16 rows: two, `left` and `right`. */
#define MULTIPLY_16(k, left, right)                                                                                    \
    for (int p = 0; p < t->planes; p++) {                                                                              \
        _tile_loadd(4, A_AT(p, k), 64);                                                                                \
        if (p == 0) { LOAD_B(k); }                                                                                     \
        _tile_dpbf16ps(left, 4, 6);                                                                                    \
        _tile_dpbf16ps(right, 4, 7);                                                                                   \
    }

#define STORE(left, right, c)                                                                                          \
    _tile_stored(left, c, C_STEP);                                                                                     \
    _tile_stored(right, (c) + SIDE, C_STEP)
#define ZERO(left, right)                                                                                              \
    _tile_zero(left);                                                                                                  \
    _tile_zero(right)

/* c += s * sums, the sums as they lie in tiles. */
INLINE void add(float *c, vf left, vf right, const float *sums, int rows) {
    for (int i = 0; i < rows; i++, c += BRCI_BF16_TILE, sums += BRCI_BF16_TILE) {
        save(c, load(c) + left * load(sums));
        save(c + SIDE, load(c + SIDE) + right * load(sums + SIDE));
    }
}

/* No scales: sums stay in registers over all steps. Of 16 rows odd steps have sums of their own, as an addition takes
 * longer than the two that do not wait for each other. */
static void tile_whole(const brci_bf16_tile *t) {
    float *c = t->c, *below = c + SIDE * BRCI_BF16_TILE;
    if (t->more) {
        _tile_loadd(0, c, C_STEP);
        _tile_loadd(1, c + SIDE, C_STEP);
    } else {
        ZERO(0, 1);
    }
    if (t->rows > SIDE) {
        if (t->more) {
            _tile_loadd(2, below, C_STEP);
            _tile_loadd(3, below + SIDE, C_STEP);
        } else {
            ZERO(2, 3);
        }
        for (int64_t k = 0; k < t->steps; k++) { MULTIPLY_32(k) }
        STORE(0, 1, c);
        STORE(2, 3, below);
        return;
    }
    _Alignas(64) float odd[SIDE * BRCI_BF16_TILE];
    ZERO(2, 3);
    for (int64_t k = 0; k < t->steps; k += 2) {
        MULTIPLY_16(k, 0, 1)
        if (k + 1 < t->steps) { MULTIPLY_16(k + 1, 2, 3) }
    }
    STORE(0, 1, c);
    STORE(2, 3, odd);
    add(c, all(1), all(1), odd, t->rows);
}

/* A scale for each block of steps. Of 16 rows two blocks are under way at a time. */
static void tile_blocks(const brci_bf16_tile *t) {
    _Alignas(64) float sums[BRCI_BF16_TILE * BRCI_BF16_TILE];
    float *below = sums + SIDE * BRCI_BF16_TILE;
    if (!t->more) memset(t->c, 0, sizeof(float) * BRCI_BF16_TILE * (size_t)t->rows);
    for (int64_t k = 0, block = 0; k < t->steps; block++) {
        const int64_t end = t->steps - k < t->every ? t->steps : k + t->every,
                      next = t->steps - end < t->every ? t->steps : end + t->every;
        const float *left = t->scales[0] + block * SIDE, *right = t->scales[1] + block * SIDE;
        ZERO(0, 1);
        ZERO(2, 3);
        if (t->rows > SIDE) {
            for (; k < end; k++) { MULTIPLY_32(k) }
            STORE(0, 1, sums);
            STORE(2, 3, below);
            add(t->c, load(left), load(right), sums, t->rows);
            continue;
        }
        for (int64_t j = 0; j < t->every; j++) {
            if (k + j < end) { MULTIPLY_16(k + j, 0, 1) }
            if (end + j < next) { MULTIPLY_16(end + j, 2, 3) }
        }
        STORE(0, 1, sums);
        STORE(2, 3, below);
        add(t->c, load(left), load(right), sums, t->rows);
        if (end < next) add(t->c, load(left + SIDE), load(right + SIDE), below, t->rows);
        block += end < next;
        k = next;
    }
}

#define BATCH 2 /* blocks whose sums are added at once: they stay in the first-level cache beside a and b */

typedef float tile_sums[BRCI_BF16_TILE * BRCI_BF16_TILE];

/* 16 by 16 of the sums of `count` blocks, each row times a number of the block. */
INLINE void add_by_rows(float *c, tile_sums *sums, int64_t at, int count, const float *scales) {
    vf sum[SIDE];
#pragma GCC unroll 16
    for (int i = 0; i < SIDE; i++) sum[i] = load(c + at + i * BRCI_BF16_TILE);
    for (int j = 0; j < count; j++, scales += BRCI_BF16_TILE)
#pragma GCC unroll 16
        for (int i = 0; i < SIDE; i++) sum[i] += scales[i] * load(sums[j] + at + i * BRCI_BF16_TILE);
#pragma GCC unroll 16
    for (int i = 0; i < SIDE; i++) save(c + at + i * BRCI_BF16_TILE, sum[i]);
}

/* A scale for each block of steps and row. */
static void tile_by_rows(const brci_bf16_tile *t) {
    _Alignas(64) tile_sums sums[BATCH];
    const int64_t below = SIDE * BRCI_BF16_TILE;
    const float *scales = t->row_scales;
    if (!t->more) memset(t->c, 0, sizeof(float) * BRCI_BF16_TILE * BRCI_BF16_TILE);
    for (int64_t k = 0; k < t->steps;) {
        int count = 0;
        for (; count < BATCH && k < t->steps; count++) {
            const int64_t end = t->steps - k < t->every ? t->steps : k + t->every;
            ZERO(0, 1);
            if (t->rows > SIDE) {
                ZERO(2, 3);
                for (; k < end; k++) { MULTIPLY_32(k) }
                STORE(2, 3, sums[count] + below);
            } else {
                for (; k < end; k++) { MULTIPLY_16(k, 0, 1) }
            }
            STORE(0, 1, sums[count]);
        }
        add_by_rows(t->c, sums, 0, count, scales);
        add_by_rows(t->c, sums, SIDE, count, scales);
        if (t->rows > SIDE) {
            add_by_rows(t->c, sums, below, count, scales + SIDE);
            add_by_rows(t->c, sums, below + SIDE, count, scales + SIDE);
        }
        scales += count * BRCI_BF16_TILE;
    }
}

void KERNEL_NAME(bf16_tile)(const brci_bf16_tile *t) {
    if (t->every == 0) tile_whole(t);
    else if (t->row_scales != NULL) tile_by_rows(t);
    else tile_blocks(t);
}

void KERNEL_NAME(bf16_scale)(float *c, int rows, const float *factors, const float *left, const float *right) {
    const vf l = load(left), r = load(right);
    for (int i = 0; i < rows; i++, c += BRCI_BF16_TILE) {
        save(c, load(c) * l * factors[i]);
        save(c + SIDE, load(c + SIDE) * r * factors[i]);
    }
}
