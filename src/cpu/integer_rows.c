/* SPDX-License-Identifier: Apache-2.0
 * Few rows of integer codes times a weight of 4 or 8 bits as it is stored: nothing is packed but the few rows, once.
 * What the kernels want of them: kernels.h, brci_integer_rows and brci_integer_rows_tile. */
#include "cpu/finish.h"
#include "cpu/integer.h"
#include "cpu/way.h"

#include <stdlib.h>

#define COLUMNS BRCI_INTEGER_COLUMNS
#define DEPTH BRCI_INTEGER_DEPTH
#define LANES BRCI_ROWS_LANES
#define CHUNK BRCI_ROWS_CHUNK
#define SCALES_MOST 8    /* of a chunk */
#define BLOCK_MOST 65536 /* of k: 128 * 255 * block stays below 2^31 */
#define SLACK 16         /* scales that a kernel may read past the last */
#define ROWS_FEW 16
#define ROWS_OF_VECTORS 8 /* up to so many rows vectors are faster than packing on the way, */
#define ROWS_OF_TILES 5   /* and from so many on tiles faster than vectors */
#define BESIDE_MOST 4

/* Geometry of a product, derived from the job alone. */
typedef struct plan {
    brci_integer_side a, b;
    int single, tiles;                   /* single: neither side's scales change along k */
    int64_t span, chunks, length;        /* of k in a chunk, and with the same scales */
    int64_t groups, group, scales, many; /* as the kernels'; many: scales of all k */
    int64_t beside, steps;               /* of tiles */
    int64_t code_bytes, lanes;           /* of a for all threads; numbers that stand for its scales */
} plan;

static int plan_of(const brci_job *job, plan *p) {
    const brci_multiplication *m = job->product;
    *p = (plan){.tiles = job->kernels->integer_rows_tile != NULL && m->m >= ROWS_OF_TILES, .beside = 1};
    if (job->packed != NULL || m->m > (p->tiles ? ROWS_FEW : ROWS_OF_VECTORS) || m->transpose_a || !m->transpose_b ||
        !brci_integer_side_of(&m->a, &p->a) || !brci_integer_side_of(&m->b, &p->b))
        return 0;
    const int64_t bits = p->b.format.bits;
    if ((bits != 4 && bits != 8) || m->b.tensor->zero.data != NULL) return 0;
    p->span = CHUNK * 8 / bits;
    p->chunks = brci_ceil(m->k, p->span);
    p->length = brci_common(p->a.block, p->b.block);
    p->single = p->length == 0;
    if (p->single) p->length = p->chunks * p->span;
    if (p->length > BLOCK_MOST || (p->length % p->span != 0 && p->span % p->length != 0)) return 0;
    p->group = brci_most(1, p->length / p->span);
    p->scales = brci_most(1, p->span / p->length);
    p->groups = brci_ceil(p->chunks, p->group);
    p->many = p->groups * p->scales;
    while (p->tiles && p->beside < BESIDE_MOST && 2 * p->beside <= p->scales && 2 * p->beside * m->m <= LANES)
        p->beside *= 2;
    p->steps = p->scales / p->beside;
    p->code_bytes = p->chunks * p->span * (p->tiles ? LANES : m->m);
    p->lanes = p->groups * LANES * (p->tiles ? p->steps : m->m);
    return p->scales <= SCALES_MOST;
}

/* What all threads read of a. */
typedef struct left {
    int8_t *codes;
    int32_t *start; /* not for tiles */
    float *scale;
    float *all;
    uint32_t *strange; /* 1 where a row cannot be done in integers */
} left;

static left left_at(const plan *p, uint8_t *memory) {
    left l = {.codes = (int8_t *)memory};
    l.start = (int32_t *)(void *)(memory + p->code_bytes);
    l.scale = (float *)(void *)(l.start + (p->tiles ? 0 : p->lanes));
    l.all = l.scale + p->lanes;
    l.strange = (uint32_t *)(void *)(l.all + ROWS_FEW);
    return l;
}

/* A thread's: sums, scales of 32 rows of b for every `length` of k, and as they are stored. */
static int64_t scales_row(const plan *p) { return p->many + SLACK; }
static int64_t part_bytes(const plan *p) {
    return brci_ceil(((ROWS_FEW + scales_row(p)) * COLUMNS + p->b.scales) * 4, 64) * 64;
}

static int serves(const brci_job *job, brci_needs *needs) {
    plan p;
    if (!plan_of(job, &p)) return 0;
    *needs = (brci_needs){.rounds = job->product->batch,
                          .shared_bytes = p.code_bytes + p.lanes * (p.tiles ? 4 : 8) + ROWS_FEW * 8,
                          .part_bytes = part_bytes(&p),
                          .prepare = job->product->m,
                          .multiply = brci_ceil(job->product->n, COLUMNS),
                          .refuses = 1};
    return 1;
}

/* The scale of a row of a, from `scales` of all its blocks, at k. */
static float scale_at(const plan *p, const float *scales, int64_t k, int64_t depth) {
    return p->a.block == 0 ? 1 : k < depth ? scales[k / p->a.block] : 0;
}

/* A chunk of row `row` of a, as vectors want it. */
static void place_lanes(const plan *p, const left *l, const brci_multiplication *m, int64_t row, int64_t chunk,
                        const int8_t *numbers, const float *scales) {
    const int64_t each = p->span / LANES, at = (chunk / p->group * m->m + row) * LANES; /* each: of k, of a lane */
    const int first = chunk % p->group == 0;
    int8_t *out = l->codes + (row * p->chunks + chunk) * p->span;
    for (int64_t lane = 0; lane < LANES; lane++) {
        int32_t sum = 0;
        for (int64_t i = 0; i < each; i++) sum += numbers[lane * each + i];
        l->start[at + lane] = (first ? 0 : l->start[at + lane]) - BRCI_INTEGER_BIAS * sum;
        if (first) l->scale[at + lane] = scale_at(p, scales, chunk * p->span + lane * each, m->k);
    }
    const int64_t parts = p->span / CHUNK; /* 2: the even, the odd k */
    for (int64_t part = 0; part < parts; part++)
        for (int64_t i = 0; i < CHUNK; i++) out[part * CHUNK + i] = numbers[parts * i + part];
}

/* The same for tiles: in the row's own columns zeros but in the one of the block; unused columns with row 0. */
static void place_tiles(const plan *p, const left *l, const brci_multiplication *m, int64_t row, int64_t chunk,
                        const int8_t *numbers, const float *scales) {
    const int64_t own = row * p->beside, used = m->m * p->beside, parts = p->span / CHUNK, block = p->span / p->scales,
                  words = block / 4;
    int8_t bytes[2 * CHUNK];
    uint32_t *out = (uint32_t *)(void *)(l->codes + chunk * p->span * LANES), word;
    if (parts == 1) memcpy(bytes, numbers, CHUNK);
    for (int64_t at = 0; parts == 2 && at < p->span; at += block) /* of a block the even k come first */
        for (int64_t i = 0; i < block / 2; i++) {
            bytes[at + i] = numbers[at + 2 * i];
            bytes[at + block / 2 + i] = numbers[at + 2 * i + 1];
        }
    for (int64_t i = 0, column = own; i < p->scales; i++, column = column + 1 < own + p->beside ? column + 1 : own)
        for (int64_t j = 0; j < words; j++, out += LANES) {
            memcpy(&word, bytes + (i * words + j) * 4, sizeof word);
            for (int64_t k = own; k < own + p->beside; k++) out[k] = k == column ? word : 0;
            for (int64_t k = used; row == 0 && k < LANES; k++) out[k] = 0;
        }
    if (chunk % p->group != 0) return;
    float *to = l->scale + chunk / p->group * p->steps * LANES;
    for (int64_t step = 0; step < p->steps; step++, to += LANES) {
        if (row == 0) memset(to + used, 0, (size_t)(LANES - used) * sizeof *to);
        for (int64_t i = 0; i < p->beside; i++)
            to[row * p->beside + i] = scale_at(p, scales, chunk * p->span + (step * p->beside + i) * block, m->k);
    }
}

static int prepare(const brci_job *job, uint32_t part, int64_t first, int64_t last) {
    const brci_multiplication *m = job->product;
    plan p;
    (void)part;
    if (!plan_of(job, &p)) return 0;
    const left l = left_at(&p, job->shared);
    float *scales = malloc((size_t)brci_most(1, p.a.scales) * sizeof *scales);
    if (scales == NULL) return 0;
    for (int64_t row = first; row < last; row++) {
        const brci_integer_row r = brci_integer_row_of(&m->a, &p.a, m->a_batch == 1 ? 0 : job->round, row);
        int fine = brci_integer_scales(job->kernels, &r, 1, scales, l.all + row);
        for (int64_t chunk = 0; chunk < p.chunks; chunk++) {
            int8_t numbers[2 * CHUNK];
            for (int64_t k = 0; k < p.span; k += DEPTH)
                fine &= brci_integer_bytes(job->kernels, &r, chunk * p.span + k, 0, (uint8_t *)numbers + k);
            (p.tiles ? place_tiles : place_lanes)(&p, &l, m, row, chunk, numbers, scales);
        }
        l.strange[row] = !fine;
    }
    free(scales);
    return 1;
}

/* A row's scales for every `length` of k. */
static int scales_of(const brci_job *job, const plan *p, const brci_integer_row *r, float *out, float *room,
                     float *all) {
    const int64_t every = p->b.block == 0 ? 0 : p->b.block / p->length;
    const int fine = brci_integer_scales(job->kernels, r, 1, every == 1 ? out : room, all);
    if (every > 1)
        for (int64_t i = 0; i < p->many && i / every < p->b.scales; i++) out[i] = room[i / every];
    return fine;
}

/* Rows [n, n + count) of b, the first of which is `b`. */
static void multiply_rows(const brci_job *job, const plan *p, const left *l, const brci_integer_row *b, int64_t count,
                          const float *scales, float *c) {
    const brci_multiplication *m = job->product;
    const int64_t bytes = brci_ceil(m->k * p->b.format.bits, 8), pitch = m->b.tensor->row_pitch;
    if (p->tiles) {
        const brci_integer_rows_tile tile = {
            .format = &p->b.format,
            .b = b->codes,
            .pitch = pitch,
            .bytes = bytes,
            .count = (int)count,
            .groups = p->groups,
            .group = p->group,
            .scales = (int)p->scales,
            .beside = (int)p->beside,
            .b_scale = scales,
            .b_row = scales_row(p),
            .rows = (int)m->m,
            .a = l->codes,
            .a_scale = l->scale,
            .sums = c,
        };
        job->kernels->integer_rows_tile(&tile);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        const brci_integer_rows rows = {
            .format = &p->b.format,
            .b = b->codes + i * pitch,
            .bytes = bytes,
            .groups = p->groups,
            .group = p->group,
            .scales = (int)p->scales,
            .b_scale = p->single ? NULL : scales + i * scales_row(p),
            .rows = (int)m->m,
            .a = l->codes,
            .a_row = p->chunks * p->span,
            .start = l->start,
            .a_scale = l->scale,
            .sums = c + i,
        };
        job->kernels->integer_rows(&rows);
    }
}

static void multiply(const brci_job *job, uint32_t part, int64_t first, int64_t last) {
    const brci_multiplication *m = job->product;
    plan p;
    if (!plan_of(job, &p)) return;
    const left l = left_at(&p, job->shared);
    const int64_t batch = m->b_batch == 1 ? 0 : job->round, width = scales_row(&p);
    const int64_t apart = brci_integer_rows_apart(&m->b);
    float *c = (float *)(void *)(job->parts + part * job->needs.part_bytes), *scales = c + ROWS_FEW * COLUMNS,
          *room = scales + COLUMNS * width;
    for (int64_t i = 0; i < COLUMNS * width; i++) scales[i] = p.b.block == 0 ? 1 : 0;
    if (p.tiles) job->kernels->integer_begin(COLUMNS, p.span / p.steps);
    for (int64_t n = first * COLUMNS; n < last * COLUMNS && n < m->n; n += COLUMNS) {
        const int64_t cols = brci_least(COLUMNS, m->n - n);
        const brci_integer_row b = brci_integer_row_of(&m->b, &p.b, batch, n);
        brci_integer_row r = b;
        float all[COLUMNS];
        int fine[COLUMNS];
        for (int64_t i = 0; i < cols; i++) {
            if (i > 0) brci_integer_next_row(&m->b, batch, n + i, apart, &r);
            fine[i] = scales_of(job, &p, &r, scales + i * width, room, all + i);
        }
        multiply_rows(job, &p, &l, &b, cols, scales, c);
        for (int64_t i = 0; i < m->m; i++)
            for (int64_t j = 0; j < cols; j++) {
                float *to = c + i * COLUMNS + j;
                if (fine[j] && !l.strange[i]) *to = *to * l.all[i] * all[j];
                else *to = brci_integer_element(job->kernels, m, job->round, i, n + j);
            }
        brci_cpu_finish(job->kernels, m, job->round, 0, n, m->m, cols, c, COLUMNS);
    }
    if (p.tiles) job->kernels->integer_end();
}

const brci_way brci_way_integer_rows = {.serves = serves, .prepare = prepare, .multiply = multiply};
