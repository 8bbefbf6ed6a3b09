/* SPDX-License-Identifier: Apache-2.0
 * Few rows times a weight of 4 or 8 bits as it is stored, whose codes become numbers in registers. What the kernels
 * want of the few rows: kernels.h, brci_line. Blocks' scales are applied to sums: the range that products of integers
 * keep. */
#include "cpu/finish.h"
#include "cpu/integer.h"
#include "cpu/panels.h"

#define ROWS_FEW 8 /* up to so many this is faster than other ways */
#define COLUMNS BRCI_LINE_STEP
#define LANES BRCI_ROWS_LANES
#define ROWS_DOT 4    /* of rows.c */
#define SPAN_MOST 128 /* of k in a unit */
#define DEPTH_MOST (1 << 20)
#define SCALES_MOST 8 /* of a unit */
#define PIECE 256     /* of k, read at a time by the slow way */
#define SLACK 16      /* scales that a kernel may read past the last */

/* Geometry of a product, derived from the job alone. */
typedef struct plan {
    brci_narrow narrow;
    brci_integer_side side; /* the weight's, for its scales */
    uint32_t flip;
    int64_t span, units, groups, group, scales; /* span: of k in a unit; the others as the kernel's */
} plan;

static int plan_of(const brci_job *job, plan *p) {
    const brci_multiplication *m = job->product;
    const brc_tensor *t = m->b.tensor;
    int16_t map[256];
    *p = (plan){0};
    if (job->packed != NULL || m->m > ROWS_FEW || m->transpose_a || !m->transpose_b || t == NULL ||
        m->k < BRCI_PANEL_DEPTH_LEAST || m->k > DEPTH_MOST || t->zero.data != NULL || t->group_index != NULL)
        return 0;
    const brc_format_info *f = brci_format(t->format);
    if ((f->bits != 4 && f->bits != 8) || !brci_cpu_read_fits(&m->a) || !brci_cpu_read_fits(&m->b) ||
        !brci_narrow_of(f, &p->narrow, map))
        return 0;
    /* What is not finite comes from tables; of 4 bits nothing is. */
    if (p->narrow.kind == BRCI_NARROW_FLOAT && (job->kernels->look_up == NULL || map[128] < 0)) return 0;
    p->flip = p->narrow.kind == BRCI_NARROW_BYTE ? (uint32_t)map[0] : 0;
    p->span = LANES * brci_narrow_many(p->narrow.kind);
    p->units = brci_ceil(m->k, p->span);
    p->side = (brci_integer_side){.format = {.bits = f->bits, .unit = 1}};
    for (int i = 0; i < 16 && f->bits == 4; i++) p->side.format.values[i] = p->narrow.values[i] != 0;
    p->side.block = t->scale.block.cols >= m->k ? 0 : t->scale.block.cols;
    const int64_t length = p->side.block == 0 ? p->units * p->span : p->side.block;
    if (length % p->span != 0 && (p->span % length != 0 || p->span / length > SCALES_MOST || length % LANES != 0))
        return 0;
    p->group = brci_most(1, length / p->span);
    p->scales = brci_most(1, p->span / length);
    p->groups = brci_ceil(p->units, p->group);
    return 1;
}

static int64_t scale_numbers(const plan *p) { return p->groups * p->scales + SLACK; }

static int serves(const brci_job *job, brci_needs *needs) {
    const brci_multiplication *m = job->product;
    plan p;
    if (!plan_of(job, &p)) return 0;
    *needs = (brci_needs){.rounds = m->batch,
                          .shared_bytes = m->m * p.units * p.span * 4,
                          .part_bytes = brci_ceil((ROWS_FEW * COLUMNS + scale_numbers(&p)) * 4, 64) * 64,
                          .prepare = m->m,
                          .multiply = brci_ceil(m->n, COLUMNS),
                          .refuses = 1};
    return 1;
}

/* Which of a unit's k is element i of a lane (narrow.h). */
static int64_t place_of(const plan *p, int64_t i, int64_t lane) {
    return p->span == SPAN_MOST ? 8 * lane + i : lane / 4 * 16 + lane % 4 * 2 + i % 2 + i / 2 * 8;
}

static int prepare(const brci_job *job, uint32_t part, int64_t first, int64_t last) {
    const brci_multiplication *m = job->product;
    const int64_t batch = m->a_batch == 1 ? 0 : job->round;
    plan p;
    (void)part;
    if (!plan_of(job, &p)) return 0;
    for (int64_t row = first; row < last; row++)
        for (int64_t unit = 0; unit < p.units; unit++) {
            float numbers[SPAN_MOST] = {0}, *out = (float *)(void *)job->shared + (row * p.units + unit) * p.span;
            brci_cpu_read(job->kernels, &m->a, batch, row, unit * p.span, brci_least(p.span, m->k - unit * p.span),
                          numbers);
            for (int64_t i = 0; i < p.span; i++) {
                if (brci_magnitude(numbers[i]) >= BRCI_MOST_BITS) return 0;
                out[i] = numbers[place_of(&p, i / LANES, i % LANES)];
            }
        }
    return 1;
}

/* One element from dequantized values, for rows that have scales out of range. Sums may overflow there: they are added
 * as the ways do it that serve where this one does not (rows.c, tiles.c), and overflow alike. */
static float element(const brci_job *job, int64_t row, int64_t n) {
    const brci_multiplication *m = job->product;
    const int64_t a = m->a_batch == 1 ? 0 : job->round, b = m->b_batch == 1 ? 0 : job->round;
    float x[PIECE], w[PIECE], sum = 0;
    for (int64_t k = 0; k < m->k; k += PIECE) {
        const int64_t count = brci_least(PIECE, m->k - k);
        brci_cpu_read(job->kernels, &m->a, a, row, k, count, x);
        brci_cpu_read(job->kernels, &m->b, b, n, k, count, w);
        if (m->m <= ROWS_DOT) sum += job->kernels->dot(x, w, count);
        for (int64_t i = 0; m->m > ROWS_DOT && i < count; i++) sum = (float)((double)x[i] * (double)w[i] + (double)sum);
    }
    return sum;
}

static void multiply(const brci_job *job, uint32_t part, int64_t first, int64_t last) {
    const brci_multiplication *m = job->product;
    plan p;
    if (!plan_of(job, &p)) return;
    const int64_t batch = m->b_batch == 1 ? 0 : job->round, apart = brci_integer_rows_apart(&m->b);
    float *c = (float *)(void *)(job->parts + part * job->needs.part_bytes), *scales = c + ROWS_FEW * COLUMNS;
    for (int64_t i = 0; i < scale_numbers(&p); i++) scales[i] = p.side.block == 0 ? 1 : 0;
    for (int64_t n = first * COLUMNS; n < last * COLUMNS && n < m->n; n += COLUMNS) {
        const int64_t cols = brci_least(COLUMNS, m->n - n);
        brci_integer_row r = brci_integer_row_of(&m->b, &p.side, batch, n);
        for (int64_t i = 0; i < cols; i++) {
            float all = 0;
            if (i > 0) brci_integer_next_row(&m->b, batch, n + i, apart, &r);
            const int fine = brci_integer_scales(job->kernels, &r, 1, scales, &all);
            const brci_line line = {
                .narrow = &p.narrow,
                .flip = p.flip,
                .codes = r.codes,
                .bytes = brci_ceil(m->k * p.side.format.bits, 8),
                .groups = p.groups,
                .group = p.group,
                .scales = (int)p.scales,
                .scale = scales,
                .rows = (int)m->m,
                .x = (const float *)(const void *)job->shared,
                .x_row = p.units * p.span,
                .sums = c + i,
            };
            if (fine) job->kernels->line(&line);
            for (int64_t j = 0; j < m->m; j++) {
                float *to = c + j * COLUMNS + i;
                *to = fine ? *to * all : element(job, j, n + i);
            }
        }
        brci_cpu_finish(job->kernels, m, job->round, 0, n, m->m, cols, c, COLUMNS);
    }
}

const brci_way brci_way_narrow_rows = {.serves = serves, .prepare = prepare, .multiply = multiply};
