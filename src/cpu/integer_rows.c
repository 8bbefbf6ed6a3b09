/* SPDX-License-Identifier: Apache-2.0
 * Few rows of integer codes times a weight of 4 or 8 bits as it is stored: nothing is packed but the few rows, once.
 * What the kernels want of them: kernels.h, brci_integer_rows. */
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

/* Geometry of a product, derived from the job alone. */
typedef struct plan {
    brci_integer_side a, b;
    int single;                          /* neither side's scales change along k */
    int64_t span, chunks, length;        /* of k in a chunk, and with the same scales */
    int64_t groups, group, scales, many; /* as brci_integer_rows; many: scales of all k */
    int64_t a_row, row_bytes;
} plan;

static int plan_of(const brci_job *job, plan *p) {
    const brci_multiplication *m = job->product;
    *p = (plan){0};
    if (job->packed != NULL || m->m > BRCI_ROWS_FEW || m->transpose_a || !m->transpose_b ||
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
    p->a_row = p->chunks * p->span;
    return p->scales <= SCALES_MOST;
}

/* What all threads read of a. */
typedef struct left {
    int8_t *codes;
    int32_t *start;
    float *scale;
    float *all;
    uint32_t *strange; /* 1 where a row cannot be done in integers */
} left;

static int64_t left_bytes(const plan *p, int64_t m) {
    return m * (p->a_row + p->groups * LANES * 8) + BRCI_ROWS_FEW * 8;
}

static left left_at(const plan *p, int64_t m, uint8_t *memory) {
    left l = {.codes = (int8_t *)memory};
    l.start = (int32_t *)(void *)(memory + m * p->a_row);
    l.scale = (float *)(void *)(l.start + m * p->groups * LANES);
    l.all = l.scale + m * p->groups * LANES;
    l.strange = (uint32_t *)(void *)(l.all + BRCI_ROWS_FEW);
    return l;
}

/* A thread's: scales of a row of b for every `length` of k, as they are stored, and sums. */
static int64_t part_bytes(const plan *p) {
    return brci_ceil((p->many + SLACK + p->b.scales) * 4, 64) * 64 + BRCI_ROWS_FEW * COLUMNS * 4;
}

static int serves(const brci_job *job, brci_needs *needs) {
    plan p;
    if (!plan_of(job, &p)) return 0;
    *needs = (brci_needs){.rounds = job->product->batch,
                          .shared_bytes = left_bytes(&p, job->product->m),
                          .part_bytes = part_bytes(&p),
                          .prepare = job->product->m,
                          .multiply = brci_ceil(job->product->n, COLUMNS)};
    return 1;
}

/* Numbers of a chunk in the order of the weight's. */
static void place(const plan *p, const int8_t *numbers, int8_t *out) {
    if (p->span == CHUNK) {
        memcpy(out, numbers, CHUNK);
        return;
    }
    for (int i = 0; i < CHUNK; i++) {
        out[i] = numbers[2 * i];
        out[CHUNK + i] = numbers[2 * i + 1];
    }
}

static int prepare(const brci_job *job, uint32_t part, int64_t first, int64_t last) {
    const brci_multiplication *m = job->product;
    plan p;
    (void)part;
    if (!plan_of(job, &p)) return 0;
    const left l = left_at(&p, m->m, job->shared);
    const int64_t each = p.span / LANES; /* of k in a lane */
    float *scales = malloc((size_t)brci_most(1, p.a.scales) * sizeof *scales);
    if (scales == NULL) return 0;
    for (int64_t j = first; j < last; j++) {
        const brci_integer_row r = brci_integer_row_of(&m->a, &p.a, m->a_batch == 1 ? 0 : job->round, j);
        int fine = brci_integer_scales(job->kernels, &r, 1, scales, l.all + j);
        for (int64_t chunk = 0; chunk < p.chunks; chunk++) {
            const int64_t at = (chunk / p.group * m->m + j) * LANES;
            int8_t numbers[2 * CHUNK], *out = l.codes + j * p.a_row + chunk * p.span;
            for (int64_t k = 0; k < p.span; k += DEPTH)
                fine &= brci_integer_bytes(job->kernels, &r, chunk * p.span + k, 0, (uint8_t *)numbers + k);
            place(&p, numbers, out);
            for (int64_t lane = 0; lane < LANES; lane++) {
                int32_t sum = 0;
                for (int64_t i = 0; i < each; i++) sum += numbers[lane * each + i];
                l.start[at + lane] = (chunk % p.group == 0 ? 0 : l.start[at + lane]) - BRCI_INTEGER_BIAS * sum;
                const int64_t k = chunk * p.span + lane * each;
                if (chunk % p.group == 0)
                    l.scale[at + lane] = p.a.block == 0 ? 1 : k < m->k ? scales[k / p.a.block] : 0;
            }
        }
        l.strange[j] = !fine;
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

static void multiply(const brci_job *job, uint32_t part, int64_t first, int64_t last) {
    const brci_multiplication *m = job->product;
    plan p;
    if (!plan_of(job, &p)) return;
    const left l = left_at(&p, m->m, job->shared);
    const int64_t batch = m->b_batch == 1 ? 0 : job->round;
    float *c = (float *)(void *)(job->parts + part * job->needs.part_bytes), *scales = c + BRCI_ROWS_FEW * COLUMNS,
          *room = scales + p.many + SLACK;
    for (int64_t i = 0; i < p.many + SLACK; i++) scales[i] = p.b.block == 0 ? 1 : 0;
    for (int64_t item = first; item < last; item++) {
        const int64_t n = item * COLUMNS, cols = brci_least(COLUMNS, m->n - n);
        for (int64_t i = 0; i < cols; i++) {
            const brci_integer_row r = brci_integer_row_of(&m->b, &p.b, batch, n + i);
            float all = 0;
            const int fine = scales_of(job, &p, &r, scales, room, &all);
            const brci_integer_rows rows = {
                .format = &p.b.format,
                .b = r.codes,
                .bytes = brci_ceil(m->k * p.b.format.bits, 8),
                .groups = p.groups,
                .group = p.group,
                .scales = (int)p.scales,
                .b_scale = p.single ? NULL : scales,
                .rows = (int)m->m,
                .a = l.codes,
                .a_row = p.a_row,
                .start = l.start,
                .a_scale = l.scale,
                .sums = c + i,
            };
            job->kernels->integer_rows(&rows);
            for (int64_t j = 0; j < m->m; j++)
                c[j * COLUMNS + i] = fine && !l.strange[j]
                                         ? c[j * COLUMNS + i] * l.all[j] * all
                                         : brci_integer_element(job->kernels, m, job->round, j, n + i);
        }
        brci_cpu_finish(job->kernels, m, job->round, 0, n, m->m, cols, c, COLUMNS);
    }
}

const brci_way brci_way_integer_rows = {.serves = serves, .prepare = prepare, .multiply = multiply};
