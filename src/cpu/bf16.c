/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bf16.h"

#include "cpu/finish.h"
#include "cpu/panels.h"
#include "cpu/side.h"

#define TILE BRCI_BF16_TILE
#define FEW 4                  /* rows of a, up to which weights are expanded in registers */
#define FEW_SPLIT 8            /* the same where a takes several numbers of BF16 */
#define HALF 16                /* rows of a register */
#define LEAST_FACTOR 0x1p-100f /* below, dequantization's own rounding to subnormals counts */
#define PIECE 256              /* of k, of b at a time: with a's in the first-level cache */
#define GROUP 8                /* tiles beside each other that an item has: a is read once for all */
#define READ 1024              /* numbers of a row of a at a time */
#define ROWS 1024              /* of a, packed at a time */
#define A_BYTES (32 << 20)     /* of packed a */
#define ITEMS 16               /* at least, where there is so much to do */

typedef struct shape {
    int64_t rows, blocks;  /* of a at a time; how often */
    int64_t first, m;      /* of this round */
    int64_t batch, depth;  /* k in whole steps */
    int64_t tiles;         /* of rows, in this round */
    int64_t groups, parts; /* items: columns, and parts of the tiles */
    int64_t piece, plane;  /* of k; numbers of a plane of a */
    int planes, group;
    int unscaled; /* a is read without its scales, of which there is one a row */
    int few;      /* rows: panels are read as they lie */
    float fold;   /* of the panels, where it is used */
} shape;

/* In how many numbers of BF16 the left side's are split at most; `unscaled`: its codes, with one scale a row. */
static int planes_of(const brci_source *a, int *unscaled) {
    const brc_tensor *t = a->tensor;
    *unscaled = 0;
    if (t == NULL) return a->array->format == BRC_BF16 ? 1 : a->array->format == BRC_F16 ? 2 : 3;
    if (t->group_index != NULL || brci_format(t->format)->bits > 8 || brci_format(t->format)->family == BRC_CODEBOOK)
        return 3;
    if (t->scale.block.cols == 0 && (t->global.data == NULL || t->global.block.cols == 0) &&
        (t->zero.data == NULL || t->zero.kind != BRC_KIND_REAL)) {
        *unscaled = 1;
        return 1;
    }
    return t->scale.format == BRC_E8M0 && t->global.data == NULL && t->zero.data == NULL ? 1 : 3;
}

static shape shape_of(const brci_job *job) {
    const brci_multiplication *p = job->product;
    const brci_panels *w = &job->packed->panels;
    shape s = {.depth = brci_ceil(p->k, TILE) * TILE, .piece = brci_panels_piece(job->packed, PIECE), .group = GROUP};
    s.planes = planes_of(&p->a, &s.unscaled);
    s.few = p->m <= HALF;
    /* Of few rows scaling the sums costs less than scaling the numbers. */
    s.fold = s.few && w->narrow.block % TILE == 0 ? 0 : w->fold;
    s.rows = brci_least(brci_ceil(p->m, TILE) * TILE, ROWS);
    s.rows = brci_least(s.rows, brci_most(A_BYTES / (2 * s.planes * s.depth) / TILE, 1) * TILE);
    s.plane = s.rows * s.depth;
    s.blocks = brci_ceil(p->m, s.rows);
    s.batch = job->round / s.blocks;
    s.first = job->round % s.blocks * s.rows;
    s.m = brci_least(s.rows, p->m - s.first);
    s.tiles = brci_ceil(s.m, TILE);
    while (s.group > 1 && (s.m <= TILE || p->n < (int64_t)ITEMS * s.group * TILE)) s.group /= 2;
    s.groups = brci_ceil(p->n, s.group * TILE);
    s.parts = brci_most(1, brci_least(brci_ceil(2 * ITEMS, s.groups), s.tiles / 4));
    return s;
}

static int64_t bytes_64(int64_t bytes) { return brci_ceil(bytes, 64) * 64; }
static int64_t factor_bytes(const shape *s) { return bytes_64(s->rows * (int64_t)sizeof(float)); }
static int64_t b_bytes(const shape *s) { return bytes_64(s->piece * s->group * TILE * 2); }
static int64_t scale_bytes(const shape *s) { return bytes_64(brci_most(1, s->piece / TILE) * TILE * s->group * 4); }

static int serves(const brci_job *job, brci_needs *needs) {
    const brci_multiplication *p = job->product;
    if (job->kernels->bf16_tile == NULL || p->transpose_a || p->k < TILE || p->m <= FEW ||
        p->k > A_BYTES / (2 * BRCI_BF16_PLANES * TILE))
        return 0;
    const brci_panels *w = &job->packed->panels;
    if (!w->exact_bf16 || (w->fold == 0 && w->narrow.block % TILE != 0) ||
        brci_panels_piece(job->packed, PIECE) % TILE != 0)
        return 0;
    const shape s = shape_of(job);
    if (p->m <= (s.planes == 1 ? FEW : FEW_SPLIT)) return 0;
    *needs = (brci_needs){.rounds = p->batch * s.blocks,
                          .shared_bytes = factor_bytes(&s) + bytes_64(s.plane * s.planes * 2),
                          .part_bytes = b_bytes(&s) + scale_bytes(&s) + s.rows * s.group * TILE * 4,
                          .prepare = s.rows,
                          .multiply = s.groups * s.parts,
                          .refuses = 1};
    return 1;
}

/* Rows of a, filled up with zeros to whole steps and tiles. */
static int prepare(const brci_job *job, uint32_t part, int64_t first, int64_t last) {
    const brci_multiplication *p = job->product;
    const shape s = shape_of(job);
    const brci_panels *w = &job->packed->panels;
    const float one = 1, least = s.fold == 0 ? 0x1p-80f : 0x1p-40f;
    const int64_t batch = p->a_batch == 1 ? 0 : s.batch;
    const int apart = brci_pair_apart(w->narrow.kind);
    float *factors = (float *)(void *)job->shared, x[READ];
    uint16_t *a = (uint16_t *)(void *)(job->shared + factor_bytes(&s));
    brci_source source = p->a;
    brc_tensor bare;
    (void)part;
    if (s.unscaled) {
        bare = *source.tensor;
        bare.scale = (brc_table){.data = (void *)(uintptr_t)&one, .format = BRC_F32, .kind = BRC_KIND_MULTIPLIER};
        bare.global = (brc_table){0};
        source.tensor = &bare;
    }
    for (int64_t i = first; i < last; i++) {
        const int64_t row = s.first + i;
        uint16_t *to = a + i / HALF * HALF * s.depth + i % HALF * TILE;
        if (i >= brci_ceil(s.m, HALF) * HALF) break; /* a tile's second half that is not read */
        factors[i] = w->global * (s.fold != 0 ? w->unfold : 1);
        if (i < s.m && s.unscaled) {
            const float own = brci_multiplier_at(p->a.tensor, batch, row, 0);
            if (!(brci_magnitude(own) < BRCI_F32_INFINITY) || (own != 0 && brci_absolute(own) < LEAST_FACTOR)) return 0;
            factors[i] *= own;
        }
        for (int64_t k = 0; k < s.depth; k += READ) {
            const int64_t n = brci_least(READ, s.depth - k), there = i < s.m ? brci_least(n, p->k - k) : 0;
            memset(x, 0, sizeof x);
            if (there > 0) brci_read_side(job->kernels, &source, batch, row, k, there, x);
            if (!job->kernels->split(x, n, least, apart, s.planes, s.plane, to + k * HALF)) return 0;
        }
    }
    return 1;
}

static const float ones[BRCI_COLUMNS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

typedef struct memory {
    const float *factors;
    const uint16_t *a;
    uint16_t *b;
    float *scales, *c;
} memory;

static void multiply_group(const brci_job *job, const shape *s, const memory *at, int64_t column, int64_t first,
                           int64_t last) {
    const brci_multiplication *p = job->product;
    const brci_panels *w = &job->packed->panels;
    const int64_t many = brci_least(s->group, brci_ceil(p->n - column, TILE)), batch = p->b_batch == 1 ? 0 : s->batch,
                  every = s->fold != 0 || w->narrow.block == 0 ? 0 : brci_least(w->narrow.block, s->piece) / TILE;
    const int64_t panel_scales = brci_most(1, s->piece / TILE) * BRCI_COLUMNS;
    for (int64_t k = 0; k < p->k; k += s->piece) {
        const int64_t depth = brci_least(s->piece, w->depth - k), steps = brci_ceil(depth, TILE);
        for (int64_t j = 0; j < 2 * many; j++) {
            const int64_t panel = brci_least(column / BRCI_COLUMNS + j, w->panels - 1); /* past the last: not used */
            const brci_panel from = brci_panel_at(job->packed, batch, panel, k);
            job->kernels->halve(&from, depth, s->fold, at->b + j * s->piece * BRCI_COLUMNS,
                                at->scales + j * panel_scales);
        }
        for (int64_t i = first; i < last; i++)
            for (int64_t j = 0; j < many; j++) {
                const uint16_t *b = at->b + j * s->piece * TILE;
                const float *scales = at->scales + j * 2 * panel_scales;
                const brci_bf16_tile tile = {
                    .a = at->a + i * TILE * s->depth + k * HALF,
                    .a_rows = HALF * s->depth,
                    .a_plane = s->plane,
                    .planes = s->planes,
                    .rows = (int)brci_least(TILE, s->m - i * TILE),
                    .b = {b, b + s->piece * BRCI_COLUMNS},
                    .steps = steps,
                    .every = every,
                    .scales = {scales, scales + panel_scales},
                    .more = k > 0,
                    .c = at->c + (j * (last - first) + i - first) * TILE * TILE,
                };
                job->kernels->bf16_tile(&tile);
            }
    }
    for (int64_t i = first; i < last; i++) /* a row's results are neighbours */
        for (int64_t j = 0; j < many; j++) {
            float *c = at->c + (j * (last - first) + i - first) * TILE * TILE;
            const int64_t rows = brci_least(TILE, s->m - i * TILE);
            const float *scales = at->scales + j * 2 * panel_scales;
            if (every != 0 || s->fold != 0) job->kernels->bf16_scale(c, (int)rows, at->factors + i * TILE, ones, ones);
            else job->kernels->bf16_scale(c, (int)rows, at->factors + i * TILE, scales, scales + panel_scales);
            brci_cpu_finish(job->kernels, p, s->batch, s->first + i * TILE, column + j * TILE, rows,
                            brci_least(TILE, p->n - column - j * TILE), c, TILE);
        }
}

static void multiply_few(const brci_job *job, const shape *s, const memory *at, int64_t column) {
    const brci_multiplication *p = job->product;
    const brci_panels *w = &job->packed->panels;
    const int64_t batch = p->b_batch == 1 ? 0 : s->batch, panel = column / BRCI_COLUMNS;
    const brci_bf16_few few = {
        .a = at->a,
        .a_plane = s->plane,
        .planes = s->planes,
        /* past the last: not used */
        .panels = {brci_panel_at(job->packed, batch, panel, 0),
                   brci_panel_at(job->packed, batch, brci_least(panel + 1, w->panels - 1), 0)},
        .depth = w->depth,
        .fold = s->fold,
        .c = at->c,
    };
    job->kernels->bf16_few(&few);
    job->kernels->bf16_scale(at->c, (int)s->m, at->factors, ones, ones);
    brci_cpu_finish(job->kernels, p, s->batch, s->first, column, s->m, brci_least(TILE, p->n - column), at->c, TILE);
}

static void multiply(const brci_job *job, uint32_t part, int64_t first, int64_t last) {
    const shape s = shape_of(job);
    uint8_t *own = job->parts + part * job->needs.part_bytes;
    const memory at = {.factors = (const float *)(const void *)job->shared,
                       .a = (const uint16_t *)(const void *)(job->shared + factor_bytes(&s)),
                       .b = (uint16_t *)(void *)own,
                       .scales = (float *)(void *)(own + b_bytes(&s)),
                       .c = (float *)(void *)(own + b_bytes(&s) + scale_bytes(&s))};
    job->kernels->bf16_open(1);
    for (int64_t i = first; i < last; i++) {
        const int64_t group = i / s.parts, share = i % s.parts;
        if (s.few) {
            multiply_few(job, &s, &at, group * TILE);
            continue;
        }
        multiply_group(job, &s, &at, group * s.group * TILE, brci_share(s.tiles, s.parts, share),
                       brci_share(s.tiles, s.parts, share + 1));
    }
    job->kernels->bf16_open(0);
}

const brci_way brci_way_bf16 = {.serves = serves, .prepare = prepare, .multiply = multiply};
