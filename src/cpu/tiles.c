/* SPDX-License-Identifier: Apache-2.0
 * Products in F32. The left side is packed for all threads, some rows at a time; the right side is packed by each
 * thread as it goes, so much of it as stays in the second-level cache, and tiles of sums are taken up again for each
 * piece of k.
 */
#include "cpu/finish.h"
#include "cpu/panels.h"
#include "cpu/side.h"
#include "cpu/way.h"

#define PIECE 256                               /* of k, packed at a time */
#define GROUP 4                                 /* tiles beside each other that an item has */
#define ROWS 1024                               /* of a, packed at a time */
#define A_BYTES (32 << 20)                      /* of packed a */
#define DEPTH_MAX (A_BYTES / (4 * BRCI_TILE_M)) /* of k: one tile of rows fills what a may take */
#define ITEMS 16                                /* at least, where there is so much to do */

typedef struct shape {
    int64_t rows, blocks; /* of a at a time; how often */
    int64_t first, m;     /* of this round */
    int64_t batch;
    int64_t tiles;         /* of rows, in this round */
    int64_t groups, parts; /* items: columns, and parts of the tiles */
    int64_t piece;         /* of k */
    int64_t depth;         /* k as it is packed */
    int group;
} shape;

static shape shape_of(const brci_job *job) {
    const brci_multiplication *p = job->product;
    const brci_kernels *k = job->kernels;
    shape s = {.depth = p->k, .piece = PIECE, .group = GROUP};
    if (job->packed != NULL) {
        s.depth = job->packed->panels.depth;
        s.piece = brci_panels_piece(job->packed, PIECE);
    }
    s.rows = brci_least(brci_least(p->m, ROWS), brci_most(A_BYTES / (4 * s.depth) / k->tile_m, 1) * k->tile_m);
    s.blocks = brci_ceil(p->m, s.rows);
    s.batch = job->round / s.blocks;
    s.first = job->round % s.blocks * s.rows;
    s.m = brci_least(s.rows, p->m - s.first);
    s.tiles = brci_ceil(s.m, k->tile_m);
    /* Few rows: a piece of one tile's columns stays in the first-level cache. */
    while (s.group > 1 && (s.m <= 64 || p->n < (int64_t)ITEMS * s.group * k->tile_n)) s.group /= 2;
    s.groups = brci_ceil(p->n, s.group * k->tile_n);
    s.parts = brci_most(1, brci_least(brci_ceil(2 * ITEMS, s.groups), s.tiles / 8));
    return s;
}

static int64_t bytes_64(int64_t floats) { return brci_ceil(floats * 4, 64) * 64; }

static int serves(const brci_job *job, brci_needs *needs) {
    const brci_multiplication *p = job->product;
    if (p->k == 0 || p->k > DEPTH_MAX || p->m == 0 || p->n == 0) return 0;
    const shape s = shape_of(job);
    *needs = (brci_needs){.rounds = p->batch * s.blocks,
                          .shared_bytes = bytes_64(s.rows * s.depth),
                          .part_bytes = bytes_64((s.piece + s.rows) * s.group * job->kernels->tile_n),
                          .prepare = s.tiles,
                          .multiply = s.groups * s.parts};
    return 1;
}

static int prepare(const brci_job *job, uint32_t part, int64_t first, int64_t last) {
    const brci_multiplication *p = job->product;
    const shape s = shape_of(job);
    float *a = (float *)(void *)job->shared;
    (void)part;
    for (int64_t i = first; i < last; i++) {
        const int64_t row = brci_share(s.m, s.tiles, i), rows = brci_share(s.m, s.tiles, i + 1) - row;
        brci_pack_panel(job->kernels, &p->a, p->a_batch == 1 ? 0 : s.batch, !p->transpose_a, s.first + row, rows, 0,
                        p->k, rows, a + row * s.depth);
        memset(a + row * s.depth + rows * p->k, 0, (size_t)(rows * (s.depth - p->k)) * sizeof *a);
    }
    return 1;
}

/* Columns [n, n + tile_n) of b, rows [k, k + depth). */
static void pack_columns(const brci_job *job, const shape *s, int64_t n, int64_t k, int64_t depth, float *out) {
    const brci_multiplication *p = job->product;
    const int64_t width = job->kernels->tile_n;
    if (job->packed != NULL) {
        brci_panels_expand(job->packed, p->b_batch == 1 ? 0 : s->batch, n, k, depth, out, width);
        brci_panels_scale(job->packed, out, depth * width);
    } else {
        brci_pack_panel(job->kernels, &p->b, p->b_batch == 1 ? 0 : s->batch, p->transpose_b, n,
                        brci_least(width, p->n - n), k, depth, width, out);
    }
}

static void multiply_group(const brci_job *job, const shape *s, int64_t column, int64_t first, int64_t last, float *b,
                           float *c) {
    const brci_multiplication *p = job->product;
    const brci_kernels *kernels = job->kernels;
    const int64_t width = kernels->tile_n, many = brci_least(s->group, brci_ceil(p->n - column, width)),
                  from = brci_share(s->m, s->tiles, first), to = brci_share(s->m, s->tiles, last);
    const float *a = (const float *)(const void *)job->shared;
    for (int64_t k = 0; k < s->depth; k += s->piece) {
        const int64_t depth = brci_least(s->piece, s->depth - k);
        for (int64_t j = 0; j < many; j++) pack_columns(job, s, column + j * width, k, depth, b + j * depth * width);
        for (int64_t j = 0; j < many; j++)
            for (int64_t i = first; i < last; i++) {
                const int64_t row = brci_share(s->m, s->tiles, i), rows = brci_share(s->m, s->tiles, i + 1) - row;
                kernels->tile(depth, (int)rows, k > 0, a + row * s->depth + k * rows, b + j * depth * width,
                              c + (j * (to - from) + row - from) * width);
            }
    }
    for (int64_t i = first; i < last; i++) /* a row's results are neighbours */
        for (int64_t j = 0; j < many; j++) {
            const int64_t row = brci_share(s->m, s->tiles, i), rows = brci_share(s->m, s->tiles, i + 1) - row;
            float *sums = c + (j * (to - from) + row - from) * width;
            brci_cpu_finish(kernels, p, s->batch, s->first + row, column + j * width, rows,
                            brci_least(width, p->n - column - j * width), sums, width);
        }
}

static void multiply(const brci_job *job, uint32_t part, int64_t first, int64_t last) {
    const shape s = shape_of(job);
    float *b = (float *)(void *)(job->parts + part * job->needs.part_bytes),
          *c = b + s.piece * s.group * job->kernels->tile_n;
    for (int64_t i = first; i < last; i++) {
        const int64_t group = i / s.parts, share = i % s.parts;
        multiply_group(job, &s, group * s.group * job->kernels->tile_n, brci_share(s.tiles, s.parts, share),
                       brci_share(s.tiles, s.parts, share + 1), b, c);
    }
}

const brci_way brci_way_tiles = {.serves = serves, .prepare = prepare, .multiply = multiply};
