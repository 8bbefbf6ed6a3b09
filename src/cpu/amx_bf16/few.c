/* SPDX-License-Identifier: Apache-2.0
 * Up to 16 rows times panels as they are packed: some of k becomes BF16 in the first-level cache, is multiplied by
 * tiles (tile.c), and the sums are scaled while their rows stay in registers. */
#define ISA amx_bf16
#include "cpu/halves.inc"

#define SIDE 16
#define PIECE 128 /* of k that becomes BF16 at a time: 4 KB a panel */
#define STEP 32   /* of k, of a product of tiles */
#define AHEAD 8192

typedef float tile_sums[SIDE * SIDE];

typedef struct place {
    uint16_t b[2][2][PIECE * BRCI_COLUMNS]; /* of a piece and the next one, by panels */
    tile_sums sums[PIECE / STEP][2];
} place;

/* A step of k of both panels. Two pairs of tiles take turns: an addition takes longer than one pair's products. */
#define MULTIPLY(left, right)                                                                                          \
    for (int p = 0; p < t->planes; p++) {                                                                              \
        _tile_loadd(4, a + p * t->a_plane, 64);                                                                        \
        if (p == 0) {                                                                                                  \
            _tile_loadd(6, b[0] + at * BRCI_COLUMNS, 64);                                                              \
            _tile_loadd(7, b[1] + at * BRCI_COLUMNS, 64);                                                              \
        }                                                                                                              \
        _tile_dpbf16ps(left, 4, 6);                                                                                    \
        _tile_dpbf16ps(right, 4, 7);                                                                                   \
    }
#define KEEP(left, right, to)                                                                                          \
    _tile_stored(left, (to)[0], 4 * SIDE);                                                                             \
    _tile_stored(right, (to)[1], 4 * SIDE)

/* A step of k of both panels as BF16. */
INLINE void open_step(const brci_bf16_few *t, const reader *r, place *m, int64_t k, const float fold,
                      const brci_narrow_kind kind) {
    const int64_t to = t->depth - k < STEP ? t->depth : k + STEP;
    for (int j = 0; j < 2; j++) {
        uint16_t *out = m->b[k / PIECE % 2][j] + k % PIECE * BRCI_COLUMNS;
        halve_units(&t->panels[j], r, k, to, fold, out, kind, AHEAD);
        if (to - k < STEP)
            memset(out + (to - k) * BRCI_COLUMNS, 0, (size_t)((k + STEP - to) * BRCI_COLUMNS) * sizeof *out);
    }
    __asm__ volatile("" ::: "memory"); /* to the compiler, tile loads read no memory */
}

/* `count` blocks' sums, of one panel, into c. */
INLINE void add(const brci_bf16_few *t, place *m, int half, int64_t block, int count, const int scaled) {
    vf c[SIDE];
    float *to = t->c + half * SIDE;
#pragma GCC unroll 16
    for (int i = 0; i < SIDE; i++) c[i] = load(to + i * BRCI_BF16_TILE);
    for (int j = 0; j < count; j++) {
        const vf s = scaled ? scale_in_units(t->panels[half].narrow, t->panels[half].scales, block + j, 0) : all(1);
#pragma GCC unroll 16
        for (int i = 0; i < SIDE; i++) c[i] += s * load(m->sums[j][half] + i * SIDE);
    }
#pragma GCC unroll 16
    for (int i = 0; i < SIDE; i++) save(to + i * BRCI_BF16_TILE, c[i]);
}

INLINE void few(const brci_bf16_few *t, const int folded, const brci_narrow_kind kind) {
    _Alignas(64) place here, *m = &here;
    const brci_narrow *n = t->panels[0].narrow;
    const int blocks = !folded && n->block != 0; /* each with sums of its own */
    const int64_t end = (t->depth + STEP - 1) / STEP * STEP, length = blocks ? n->block : end;
    const reader r = reader_of(n);
    const float fold = folded ? t->fold : 0;
    int64_t within = 0, block = 0;
    int odd = 0;
    memset(t->c, 0, SIDE * BRCI_BF16_TILE * sizeof *t->c);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t k = 0; k < end && k < PIECE; k += STEP) open_step(t, &r, m, k, fold, kind);
    for (int64_t k = 0; k < end; k += PIECE) {
        const int64_t steps = end - k < PIECE ? end - k : PIECE;
        uint16_t(*b)[PIECE * BRCI_COLUMNS] = m->b[k / PIECE % 2];
        int done = 0;
        for (int64_t at = 0; at < steps; at += STEP) {
            if (k + at + PIECE < end) open_step(t, &r, m, k + at + PIECE, fold, kind); /* while tiles are multiplied */
            const uint16_t *a = t->a + (k + at) / STEP * BRCI_BF16_PART;
            if (odd) {
                MULTIPLY(2, 3)
            } else {
                MULTIPLY(0, 1)
            }
            within += STEP;
            if (!blocks) odd = !odd;
            if (!blocks || (within < length && k + at + STEP < end)) continue;
            if (odd) {
                KEEP(2, 3, m->sums[done]);
                _tile_zero(2);
                _tile_zero(3);
            } else {
                KEEP(0, 1, m->sums[done]);
                _tile_zero(0);
                _tile_zero(1);
            }
            odd = !odd;
            within = 0;
            done++;
        }
        if (done == 0) continue;
        for (int half = 0; half < 2; half++) add(t, m, half, block, done, 1);
        block += done;
    }
    if (!blocks) {
        KEEP(0, 1, m->sums[0]);
        KEEP(2, 3, m->sums[1]);
        for (int half = 0; half < 2; half++) add(t, m, half, 0, 2, 0);
    }
    for (int half = 0; half < 2; half++) {
        const vf s = folded ? all(1)
                            : all(brci_stored_unit(n->scale_format)) *
                                  (blocks ? all(1) : scale_in_units(n, t->panels[half].scales, 0, 0));
        for (int i = 0; i < SIDE; i++) {
            float *to = t->c + i * BRCI_BF16_TILE + half * SIDE;
            save(to, load(to) * s);
        }
    }
}

void KERNEL_NAME(bf16_few)(const brci_bf16_few *t) {
    switch (t->panels[0].narrow->kind) {
    case BRCI_NARROW_4:
        if (t->fold != 0) few(t, 1, BRCI_NARROW_4);
        else few(t, 0, BRCI_NARROW_4);
        break;
    case BRCI_NARROW_FINE: break; /* not exact */
    case BRCI_NARROW_FLOAT:
        if (t->fold != 0) few(t, 1, BRCI_NARROW_FLOAT);
        else few(t, 0, BRCI_NARROW_FLOAT);
        break;
    case BRCI_NARROW_BYTE:
        if (t->fold != 0) few(t, 1, BRCI_NARROW_BYTE);
        else few(t, 0, BRCI_NARROW_BYTE);
        break;
    }
}
