/* SPDX-License-Identifier: Apache-2.0
 * Products of integers (integer.h). The left side is packed for all threads, some groups of rows at a time; the right
 * side is packed by each thread as it goes, or was before (pack_integers.c). */
#include "cpu/bf16.h"
#include "cpu/finish.h"
#include "cpu/integer.h"
#include "cpu/packed.h"

#define ROWS BRCI_INTEGER_ROWS
#define COLUMNS BRCI_INTEGER_COLUMNS
#define DEPTH BRCI_INTEGER_DEPTH
#define LENGTH_MAX (1 << 16) /* of a block: 128 * 128 * length stays below 2^31 */
#define A_BYTES (32 << 20)   /* of packed a at a time: stays in a third-level cache */
#define B_BYTES (1 << 20)    /* of b a thread has at a time: half of a second-level cache */
#define ROWS_A_PANEL 64      /* up to this many rows of a, panels are packed one by one */
#define ROWS_NARROW 7        /* up to so many, vectors read codes of 4 bits as they are packed */
#define ROWS_FEW 16          /* the same of tiles, codes of 8 bits too */
#define WIDE_ROWS 5          /* from so many rows on, and blocks of 32 on, tiles are faster than vectors */
#define K_PIECE 512          /* of k: 32 rows and 32 columns of it stay in a first-level cache */
#define K_BRIEF 256          /* the same of tiles with blocks of up to 64, whose sums take as much again */
#define K_WHOLE 2048         /* the same of a single block, whose sums then wait in memory less often */
#define HALVED_ROWS 9        /* from so many rows on BF16 is faster than vectors with blocks of 16 */
#define K_HALVED 256         /* of k, as BF16 */
#define HALVED_MOST 16       /* magnitude of numbers that leave 4 bits of BF16's 8 to their scales */
#define HALVED_BLOCK 16      /* of k, of such scales */
#define PIECE 256            /* of k, read at a time by the slow way */
#define HALF 16              /* rows, columns of a tile's register */

/* Geometry of a product, derived from the job alone. */
typedef struct plan {
    brci_integer_side a, b;
    int64_t length, blocks;   /* blocks of k in which neither side's scale changes */
    int64_t a_every, b_every; /* blocks that share a scale, where it changes along k at all */
    int wide;                 /* by tiles of 16 rows (kernels.h: WIDE) */
    int few;                  /* the same of few rows and packed codes (FEW) */
    int halved;               /* both sides become BF16, b with its scales (kernels.h: integer_halve) */
    int narrow;               /* b is read as it was packed, two numbers a byte, */
    int as_packed;            /* or as bytes: so and so it takes no memory here */
    int stored;               /* b's scales are read as they were packed */
    int bias;                 /* added to the numbers of b */
    int64_t piece;            /* of k that is multiplied at a time */
    int64_t rows, rounds;     /* of a that are packed at a time, a multiple of 32; rounds of a matrix */
    int64_t panels, many;     /* of a matrix; that a thread has at a time */
    int64_t group_bytes, panel_bytes, number_bytes;
    int64_t batch, first, m; /* of this round: the matrix, its first row, rows */
} plan;

/* Scales that kernels read as they are stored (brci_kernels.narrow_scales). */
static int is_read(uint8_t format) {
    return format == BRC_F32 || format == BRC_F16 || format == BRC_BF16 || format == BRC_E8M0 || format == BRC_E4M3;
}

/* Whether tiles of BF16 serve, which those of integers do not. */
static int is_halved(const brci_job *job, const plan *p) {
    const brc_packed *w = job->packed;
    return job->kernels->integer_halve != NULL && job->product->m >= HALVED_ROWS && w != NULL && w->integers.narrow &&
           w->integers.scale_format == BRC_E4M3 && p->b.block == HALVED_BLOCK && p->b.format.least >= -HALVED_MOST &&
           p->b.format.largest <= HALVED_MOST && p->a.block % BRCI_BF16_TILE == 0 && p->a.depth <= LENGTH_MAX;
}

/* Of k as BF16: whole blocks of a, or even parts of them. */
static int64_t piece_of(int64_t block, int64_t length) {
    if (block == 0 || length % K_HALVED == 0) return K_HALVED;
    return length < K_HALVED ? K_HALVED / length * length : length;
}

/* Of k: codes of a panel that a thread keeps. */
static int64_t kept_of(const plan *p) { return p->as_packed ? 0 : p->halved && p->few ? p->piece : p->a.depth; }

static int plan_of(const brci_job *job, plan *p) {
    const brci_multiplication *m = job->product;
    *p = (plan){.rounds = 1};
    if (m->transpose_a || !brci_integer_side_of(&m->a, &p->a)) return 0;
    if (job->packed != NULL) p->b = job->packed->integers.side;
    else if (!m->transpose_b || !brci_integer_side_of(&m->b, &p->b)) return 0;
    p->halved = is_halved(job, p);
    const int64_t a = p->a.block, b = p->halved ? 0 : p->b.block, depth = p->a.depth;
    p->number_bytes = p->halved ? 2 : 1;
    p->length = brci_common(a, b); /* a multiple of 16, as both are */
    if (p->length == 0) p->length = brci_least(depth, LENGTH_MAX);
    if (p->length > LENGTH_MAX) return 0;
    p->blocks = brci_ceil(depth, p->length);
    p->a_every = a == 0 ? p->blocks : a / p->length;
    p->b_every = b == 0 ? p->blocks : b / p->length;
    p->wide = p->halved ||
              (job->kernels->integer_wide != NULL && m->m >= WIDE_ROWS && (p->length % DEPTH == 0 || p->length == 32));
    p->few = p->wide && m->m <= ROWS_FEW && job->packed != NULL && (p->halved || job->kernels->integer_few != NULL);
    p->narrow = ((p->few && !p->halved) || (!p->wide && m->m <= ROWS_NARROW)) && job->packed != NULL &&
                job->packed->integers.narrow;
    p->bias = p->wide && !p->few ? 0 : BRCI_INTEGER_BIAS;
    p->as_packed = p->narrow || (job->packed != NULL && !job->packed->integers.narrow && p->bias == BRCI_INTEGER_BIAS);
    p->stored = job->packed != NULL && (p->few || p->halved || (!p->wide && m->m <= ROWS_NARROW)) && p->b.scales > 0 &&
                job->kernels->narrow_scales && is_read(job->packed->integers.scale_format);
    p->piece = p->halved                       ? piece_of(a, p->length)
               : p->few || m->m <= ROWS_NARROW ? depth
               : p->blocks == 1
                   ? K_WHOLE
                   : brci_most(1, (p->wide && p->length <= DEPTH ? K_BRIEF : K_PIECE) / p->length) * p->length;
    p->group_bytes = ROWS * (depth * p->number_bytes + p->blocks * 4 + (p->a.scales + 2) * 4);
    p->panel_bytes = COLUMNS * (kept_of(p) * p->number_bytes + ((p->stored ? 0 : p->b.scales) + 2 + ROWS) * 4);
    p->panels = brci_ceil(m->n, COLUMNS);
    p->many = 1;
    if (m->m > ROWS_A_PANEL) p->many = brci_most(1, B_BYTES / (p->panel_bytes + (p->as_packed ? COLUMNS * depth : 0)));
    p->rows = brci_most(ROWS, brci_least(brci_ceil(m->m, ROWS) * ROWS, A_BYTES / p->group_bytes * ROWS));
    p->rounds = brci_ceil(m->m, p->rows);
    p->batch = job->round / p->rounds;
    p->first = job->round % p->rounds * p->rows;
    p->m = brci_least(p->rows, m->m - p->first);
    return 1;
}

static int serves(const brci_job *job, brci_needs *needs) {
    plan p;
    if (!plan_of(job, &p)) return 0;
    *needs = (brci_needs){.rounds = p.rounds * job->product->batch,
                          .shared_bytes = p.rows / ROWS * p.group_bytes,
                          .part_bytes = p.many * p.panel_bytes,
                          .prepare = p.rows / ROWS,
                          .multiply = p.panels};
    return 1;
}

/* The parts of a packed group of rows or panel of columns. */
typedef struct packed {
    uint8_t *codes;
    int32_t *start;     /* a: [blocks][32] */
    float *scale;       /* [scales][32], */
    const void *stored; /* b: or where they lie as they were packed; */
    const uint8_t *two; /* and so codes of two a byte */
    float *all;         /* [32]: of all k */
    uint32_t *strange;  /* [32]: 1 where a row cannot be done in integers */
    float *c;           /* b: [32][32], sums of a group with it */
} packed;

static packed group_at(const plan *p, uint8_t *memory, int64_t i) {
    packed g = {.codes = memory + i * p->group_bytes};
    g.start = (int32_t *)(void *)(g.codes + ROWS * p->a.depth * p->number_bytes);
    g.scale = (float *)(void *)(g.start + ROWS * p->blocks);
    g.all = g.scale + ROWS * p->a.scales;
    g.strange = (uint32_t *)(void *)(g.all + ROWS);
    return g;
}

/* A group as BF16: 16 rows, from k on (bf16.h). */
static uint16_t *halves_at(const plan *p, const packed *g, int64_t half, int64_t k) {
    return (uint16_t *)(void *)g->codes + (half * p->a.depth + k) * HALF;
}

static packed panel_at(const plan *p, uint8_t *memory, int64_t i) {
    packed b = {.codes = memory + i * p->panel_bytes};
    b.scale = (float *)(void *)(b.codes + COLUMNS * kept_of(p) * p->number_bytes);
    b.all = b.scale + (p->stored ? 0 : COLUMNS * p->b.scales);
    b.strange = (uint32_t *)(void *)(b.all + COLUMNS);
    b.c = (float *)(void *)(b.strange + COLUMNS);
    return b;
}

/* What the bias on b adds to the sums of each block is known from a alone. */
static void pack_starts(const plan *p, const uint8_t *codes, int32_t *start) {
    int64_t at = 0;
    for (int64_t block = 0; block < p->blocks; block++) {
        const int64_t end = brci_least(p->a.depth, at + p->length);
        int32_t sum = 0;
        while (at < end) {
            const int64_t stop = brci_least(end, at / DEPTH * DEPTH + DEPTH);
            const int8_t *x = (const int8_t *)codes + at / DEPTH * DEPTH * ROWS + at % DEPTH;
            for (int64_t i = 0; i < stop - at; i++) sum += x[i];
            at = stop;
        }
        start[block * ROWS] = -BRCI_INTEGER_BIAS * sum;
    }
}

static int prepare(const brci_job *job, uint32_t part, int64_t first, int64_t last) {
    const brci_multiplication *m = job->product;
    plan p;
    (void)part;
    if (!plan_of(job, &p)) return 0;
    for (int64_t i = first; i < last; i++) {
        const packed g = group_at(&p, job->shared, i);
        const int64_t rows = brci_least(ROWS, p.m - i * ROWS);
        if (rows < ROWS || p.a.scales > 0) memset(g.codes, 0, (size_t)p.group_bytes);
        for (int64_t j = 0; j < rows; j++) {
            const brci_integer_row r =
                brci_integer_row_of(&m->a, &p.a, m->a_batch == 1 ? 0 : p.batch, p.first + i * ROWS + j);
            int fine = brci_integer_scales(job->kernels, &r, ROWS, g.scale + j, g.all + j);
            for (int64_t k = 0; k < p.a.depth; k += DEPTH) {
                uint8_t numbers[DEPTH];
                fine &= brci_integer_bytes(job->kernels, &r, k, 0, p.halved ? numbers : g.codes + k * ROWS + j * DEPTH);
                if (p.halved)
                    job->kernels->integer_spread((const int8_t *)numbers,
                                                 halves_at(&p, &g, j / HALF, k) + j % HALF * BRCI_BF16_TILE);
            }
            if (!p.wide) pack_starts(&p, g.codes + j * DEPTH, g.start + j);
            g.strange[j] = !fine;
        }
    }
    return 1;
}

static void pack_panel(const brci_job *job, const plan *p, int64_t n, packed b) {
    const brci_multiplication *m = job->product;
    brci_integer_row r[COLUMNS];
    const int64_t count = brci_least(COLUMNS, m->n - n);
    memset(b.scale, 0, (size_t)(COLUMNS * p->b.scales) * sizeof *b.scale);
    for (int64_t i = 0; i < COLUMNS; i++) {
        /* Beyond the last column stands that one again: what comes of it is not stored. */
        r[i] = brci_integer_row_of(&m->b, &p->b, m->b_batch == 1 ? 0 : p->batch, n + brci_least(i, count - 1));
        b.strange[i] = !brci_integer_scales(job->kernels, &r[i], COLUMNS, b.scale + i, b.all + i);
    }
    for (int64_t k = 0; k < p->b.depth; k += BRCI_INTEGER_RUN)
        brci_integer_panel(job->kernels, r, k, brci_least(BRCI_INTEGER_RUN, p->b.depth - k), p->bias, b.strange,
                           b.codes + k * COLUMNS);
}

/* [k, k + depth) of a packed panel as BF16. */
static void halve(const brci_job *job, const plan *p, const packed *b, int64_t k, int64_t depth) {
    job->kernels->integer_halve(&p->b.format, b->two + k * COLUMNS / 2,
                                (const uint8_t *)b->stored + k / HALVED_BLOCK * COLUMNS, depth,
                                (uint16_t *)(void *)b->codes);
}

/* A panel that was packed before: its scales and codes as the kernels want them, if they do not lie so. */
static void open_panel(const brci_job *job, const plan *p, int64_t i, packed *b) {
    const brci_integer_weight *w = &job->packed->integers;
    const int64_t batch = job->product->b_batch == 1 ? 0 : p->batch;
    const uint8_t *from = (const uint8_t *)job->packed->data + (batch * p->panels + i) * w->panel_bytes;
    const brc_table scales = {.data = (void *)(uintptr_t)(from + w->code_bytes), .format = w->scale_format};
    if (p->stored) b->stored = scales.data;
    else if (p->b.scales > 0) brci_cpu_numbers(job->kernels, &scales, 0, COLUMNS * p->b.scales, b->scale);
    memcpy(b->all, from + w->code_bytes + w->scale_bytes, COLUMNS * sizeof *b->all);
    memset(b->strange, 0, COLUMNS * sizeof *b->strange);
    b->two = from;
    if (p->halved && p->few) return; /* some of k at a time */
    if (p->halved) halve(job, p, b, 0, p->b.depth);
    else if (p->as_packed) b->codes = (uint8_t *)(uintptr_t)from;
    else
        job->kernels->integer_widen(w->narrow ? &p->b.format : NULL, from, p->b.depth, p->bias, BRCI_INTEGER_AHEAD,
                                    b->codes);
}

static float scale_of(const brci_job *job, const plan *p, const packed *b, int64_t k, int column) {
    if (p->b.scales == 0) return 1;
    const int64_t at = k / p->b.block * COLUMNS + column;
    const brc_table stored = {.data = (void *)(uintptr_t)b->stored,
                              .format = p->stored ? job->packed->integers.scale_format : BRC_F32};
    return p->stored ? brci_table_float(&stored, at) : b->scale[at];
}

/* `count` numbers of column `column` of a panel from k on, as values. */
static void read_panel(const brci_job *job, const plan *p, const packed *w, int column, int64_t k, int64_t count,
                       float *out) {
    for (int64_t i = 0; i < count; i++) {
        const int64_t at = k + i, step = at / 4, byte = at % 4;
        int number;
        if (p->narrow || p->halved) {
            const uint8_t two = w->two[step * 64 + column % 16 * 4 + byte];
            number = p->b.format.values[column < 16 ? two & 15 : two >> 4];
        } else {
            number = (int8_t)(w->codes[step * 4 * COLUMNS + column * 4 + byte] - p->bias);
        }
        out[i] = (float)number * (scale_of(job, p, w, at, column) * w->all[column]);
    }
}

/* One element from dequantized values, for rows that have scales out of range. */
static float element(const brci_job *job, const plan *p, const packed *w, int64_t m, int64_t n) {
    const brci_multiplication *q = job->product;
    float x[PIECE], y[PIECE];
    double sum = 0;
    if (job->packed == NULL) return brci_integer_element(job->kernels, q, p->batch, m, n);
    for (int64_t k = 0; k < q->k; k += PIECE) {
        const int64_t count = brci_least(PIECE, q->k - k);
        brci_cpu_read(job->kernels, &q->a, q->a_batch == 1 ? 0 : p->batch, m, k, count, x);
        read_panel(job, p, w, (int)(n % COLUMNS), k, count, y);
        for (int64_t i = 0; i < count; i++) sum += (double)x[i] * (double)y[i];
    }
    return (float)sum;
}

/* What rows of numbers that integers cannot do give. */
static void replace_strange(const brci_job *job, const plan *p, int64_t m, int64_t n, int64_t rows, int64_t cols,
                            const packed *x, const packed *w) {
    uint32_t some = 0;
    for (int64_t i = 0; i < rows; i++) some |= x->strange[i];
    for (int64_t i = 0; i < cols; i++) some |= w->strange[i];
    for (int64_t i = 0; some && i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            if (x->strange[i] || w->strange[j]) w->c[i * COLUMNS + j] = element(job, p, w, m + i, n + j);
}

/* The same as multiply_group, of BF16. */
static void multiply_halves(const brci_job *job, const plan *p, const packed *x, int rows, const packed *panels,
                            int64_t count) {
    const brci_kernels *kernels = job->kernels;
    const int64_t depth = p->a.depth;
    kernels->bf16_open(1);
    for (int64_t k = 0; k < depth; k += p->piece)
        for (int64_t i = 0; i < count; i++) {
            const packed *w = &panels[i];
            const int64_t piece = brci_least(p->piece, depth - k), kept = p->few ? piece : depth;
            const uint16_t *b = (const uint16_t *)(const void *)w->codes + (p->few ? 0 : k * HALF);
            if (p->few) halve(job, p, w, k, piece);
            const brci_bf16_tile tile = {
                .a = halves_at(p, x, 0, k),
                .a_rows = HALF * depth,
                .planes = 1,
                .rows = rows,
                .b = {b, b + HALF * kept},
                .steps = piece / BRCI_BF16_TILE,
                .every = p->a.scales == 0 ? 0 : p->length / BRCI_BF16_TILE,
                .row_scales = p->a.scales == 0 ? NULL : x->scale + k / p->length * ROWS,
                .more = k > 0,
                .c = w->c,
            };
            kernels->bf16_tile(&tile);
            if (k + p->piece >= depth) kernels->bf16_scale(w->c, rows, x->all, w->all, w->all + HALF);
        }
    kernels->bf16_open(0);
}

/* A group times `count` panels. */
static void multiply_group(const brci_job *job, const plan *p, const packed *x, int rows, const packed *panels,
                           int64_t count) {
    const brci_kernels *kernels = job->kernels;
    brci_integer_tile_fn *kernel = p->few    ? kernels->integer_few
                                   : p->wide ? kernels->integer_wide
                                             : kernels->integer_tile;
    if (p->wide) kernels->integer_begin(rows, p->length);
    for (int64_t k = 0; k < p->a.depth; k += p->piece)
        for (int64_t i = 0; i < count; i++) {
            const packed *w = &panels[i];
            const brci_integer_tile tile = {
                .a = (const int8_t *)x->codes,
                .b = w->codes,
                .start = x->start,
                .a_scale = p->a.scales == 0 ? NULL : x->scale,
                .b_scale = p->b.scales == 0 ? NULL
                           : p->stored      ? w->stored
                                            : w->scale,
                .b_format = p->stored ? job->packed->integers.scale_format : BRC_F32,
                .a_all = x->all,
                .b_all = w->all,
                .a_every = p->a_every,
                .b_every = p->b_every,
                .length = p->length,
                .whole = p->a.depth,
                .k = k,
                .depth = brci_least(p->piece, p->a.depth - k),
                .rows = rows,
                .narrow = p->narrow ? &p->b.format : NULL,
                .skip = p->as_packed ? job->packed->integers.panel_bytes - job->packed->integers.code_bytes : 0,
                .c = w->c,
            };
            kernel(&tile);
        }
    if (p->wide) kernels->integer_end();
}

#define MANY 32 /* panels a thread has at a time */

static void multiply(const brci_job *job, uint32_t part, int64_t first, int64_t last) {
    const brci_multiplication *m = job->product;
    uint8_t *memory = job->parts + part * job->needs.part_bytes;
    packed panels[MANY];
    plan p;
    if (!plan_of(job, &p)) return;
    const int64_t many = brci_least(MANY, p.many);
    for (int64_t panel = first; panel < last; panel += many) {
        const int64_t count = brci_least(many, last - panel);
        for (int64_t i = 0; i < count; i++) {
            panels[i] = panel_at(&p, memory, i);
            if (job->packed == NULL) pack_panel(job, &p, (panel + i) * COLUMNS, panels[i]);
            else open_panel(job, &p, panel + i, &panels[i]);
        }
        for (int64_t group = 0; group * ROWS < p.m; group++) {
            const packed x = group_at(&p, job->shared, group);
            const int64_t rows = brci_least(ROWS, p.m - group * ROWS), at = p.first + group * ROWS;
            (p.halved ? multiply_halves : multiply_group)(job, &p, &x, (int)rows, panels, count);
            for (int64_t i = 0; i < count; i++) {
                const int64_t n = (panel + i) * COLUMNS, cols = brci_least(COLUMNS, m->n - n);
                replace_strange(job, &p, at, n, rows, cols, &x, &panels[i]);
                brci_cpu_finish(job->kernels, m, p.batch, at, n, rows, cols, panels[i].c, COLUMNS);
            }
        }
    }
}

const brci_way brci_way_integers = {.serves = serves, .prepare = prepare, .multiply = multiply};
