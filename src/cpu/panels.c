/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/panels.h"

#include "cpu/finish.h"
#include "cpu/side.h"
#include "cpu/way.h"

#define FEW 8 /* rows of a, up to which weights are expanded in registers */

int64_t brci_panels_piece(const brc_packed *packed, int64_t piece) {
    const int64_t block = packed->panels.narrow.block;
    if (block == 0 || block % piece == 0) return piece;
    return block < piece ? piece / block * block : block;
}

brci_panel brci_panel_at(const brc_packed *p, int64_t batch, int64_t panel, int64_t k) {
    const brci_panels *s = &p->panels;
    const uint8_t *from = (const uint8_t *)p->data + (batch * s->panels + panel) * s->panel_bytes;
    const int64_t at = s->narrow.block == 0 ? 0 : k / s->narrow.block, unit = brci_narrow_many(s->narrow.kind),
                  scale_bytes = brci_format((brc_format)s->narrow.scale_format)->bits / 8;
    return (brci_panel){.narrow = &s->narrow,
                        .codes = from + k / unit * BRCI_UNIT,
                        .left = s->code_bytes - k / unit * BRCI_UNIT,
                        .skip = s->panel_bytes - s->code_bytes,
                        .scales = from + s->code_bytes + at * BRCI_COLUMNS * scale_bytes,
                        .zeros = s->narrow.zero == BRCI_ZERO_NONE
                                     ? NULL
                                     : (const float *)(const void *)(from + s->code_bytes + s->scale_bytes) +
                                           at * BRCI_COLUMNS};
}

void brci_panels_expand(const brc_packed *p, int64_t batch, int64_t n, int64_t k, int64_t depth, float *out,
                        int64_t width) {
    if (width < BRCI_COLUMNS) { /* one panel gives several of the width: all but the wanted one go to waste */
        float room[BRCI_COLUMNS * BRCI_PANEL_BLOCK_MOST];
        const brci_panel from = brci_panel_at(p, batch, n / BRCI_COLUMNS, k);
        p->kernels->expand(&from, depth, room, width);
        memcpy(out, room + n % BRCI_COLUMNS * depth, (size_t)(depth * width) * sizeof *out);
        return;
    }
    for (int64_t i = 0; i < width; i += BRCI_COLUMNS) {
        const int64_t panel = (n + i) / BRCI_COLUMNS;
        if (panel < p->panels.panels) {
            const brci_panel from = brci_panel_at(p, batch, panel, k);
            p->kernels->expand(&from, depth, out + i, width);
        } else {
            for (int64_t j = 0; j < depth; j++) memset(out + j * width + i, 0, BRCI_COLUMNS * sizeof *out);
        }
    }
}

void brci_panels_scale(const brc_packed *p, float *sums, int64_t n) {
    for (int64_t i = 0; p->panels.global != 1 && i < n; i++) sums[i] *= p->panels.global;
}

static int is_streamed(const brci_job *job) {
    return job->product->m <= FEW && job->packed->panels.narrow.zero == BRCI_ZERO_NONE;
}

static int64_t groups_of(const brci_job *job) { return brci_ceil(job->product->m, job->kernels->stream_rows); }

static int serves(const brci_job *job, brci_needs *needs) {
    const brci_multiplication *p = job->product;
    if (!is_streamed(job)) return brci_way_tiles.serves(job, needs);
    *needs = (brci_needs){.rounds = p->batch,
                          .shared_bytes = brci_ceil(p->m * job->packed->panels.depth * 4, 64) * 64,
                          .prepare = groups_of(job),
                          .multiply = job->packed->panels.panels,
                          .refuses = 1};
    return p->m > 0;
}

/* x[k][rows] of each group of rows, filled up with zeros, in the kernel's units. */
static int prepare(const brci_job *job, uint32_t part, int64_t first, int64_t last) {
    const brci_multiplication *p = job->product;
    const int64_t depth = job->packed->panels.depth, groups = groups_of(job);
    const float unit = brci_stored_unit(job->packed->panels.narrow.scale_format);
    float *x = (float *)(void *)job->shared;
    if (!is_streamed(job)) { return brci_way_tiles.prepare(job, part, first, last); }
    for (int64_t i = first; i < last; i++) {
        const int64_t row = brci_share(p->m, groups, i), rows = brci_share(p->m, groups, i + 1) - row;
        brci_pack_panel(job->kernels, &p->a, p->a_batch == 1 ? 0 : job->round, !p->transpose_a, row, rows, 0, p->k,
                        rows, x + row * depth);
        memset(x + row * depth + rows * p->k, 0, (size_t)(rows * (depth - p->k)) * sizeof *x);
        for (int64_t j = row * depth; j < (row + rows) * depth; j++) {
            x[j] *= unit;
            if (brci_magnitude(x[j]) >= BRCI_MOST_BITS) return 0;
        }
    }
    return 1;
}

static void multiply(const brci_job *job, uint32_t part, int64_t first, int64_t last) {
    const brci_multiplication *p = job->product;
    const int64_t depth = job->packed->panels.depth, groups = groups_of(job), batch = p->b_batch == 1 ? 0 : job->round;
    const float *x = (const float *)(const void *)job->shared;
    float sums[BRCI_STREAM_MOST * BRCI_COLUMNS];
    if (!is_streamed(job)) {
        brci_way_tiles.multiply(job, part, first, last);
        return;
    }
    for (int64_t i = first; i < last; i++)
        for (int64_t j = 0; j < groups; j++) {
            const int64_t row = brci_share(p->m, groups, j), rows = brci_share(p->m, groups, j + 1) - row;
            const brci_panel panel = brci_panel_at(job->packed, batch, i, 0);
            job->kernels->stream(&panel, depth, x + row * depth, (int)rows, sums);
            brci_panels_scale(job->packed, sums, rows * BRCI_COLUMNS);
            brci_cpu_finish(job->kernels, p, job->round, row, i * BRCI_COLUMNS, rows,
                            brci_least(BRCI_COLUMNS, p->n - i * BRCI_COLUMNS), sums, BRCI_COLUMNS);
        }
}

const brci_way brci_way_panels = {.serves = serves, .prepare = prepare, .multiply = multiply};
