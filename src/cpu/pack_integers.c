/* SPDX-License-Identifier: Apache-2.0
 * The order "integers": weights of integer codes for activations that are integers (kernels.h). Up to 4 bits two codes
 * share a byte; others, and those with zero points, which are taken off, are bytes. */
#include "cpu/packed.h"

#include <stdlib.h>

#define COLUMNS BRCI_INTEGER_COLUMNS

static int64_t up(int64_t bytes) { return brci_ceil(bytes, 64) * 64; }

static int plan(brc_packed *p, const brci_weight *w) {
    brci_integer_weight *s = &p->integers;
    brci_source of = w->source;
    if (p->kernels == NULL || !w->along || p->n == 0 || p->batch == 0 || !brci_integer_side_of(&of, &s->side)) return 0;
    if (brci_format(w->activations)->family != BRC_INT || brci_format(w->activations)->bits > 8) return 0;
    s->narrow = s->side.format.bits <= 4 && of.tensor->zero.data == NULL;
    s->scale_format = of.tensor->scale.format;
    s->panels = brci_ceil(p->n, COLUMNS);
    s->code_bytes = COLUMNS * s->side.depth / (s->narrow ? 2 : 1);
    s->scale_bytes = up(s->side.scales * COLUMNS * brci_format(s->scale_format)->bits / 8);
    s->panel_bytes = s->code_bytes + s->scale_bytes + COLUMNS * (int64_t)sizeof(float);
    p->items = p->batch * s->panels;
    p->data_bytes = p->items * s->panel_bytes;
    return 1;
}

/* Codes instead of numbers, for panels that keep them. */
static brci_integer_format codes_of(const brci_integer_format *format) {
    brci_integer_format same = *format;
    for (int i = 0; i < 16; i++) same.values[i] = (int8_t)i;
    return same;
}

static int pack(const brc_packed *p, const brci_weight *w, int64_t first, int64_t last) {
    const brci_integer_weight *s = &p->integers;
    const brc_tensor *t = w->source.tensor;
    const int64_t bytes = brci_format(s->scale_format)->bits / 8;
    brci_integer_side side = s->side;
    if (s->narrow) side.format = codes_of(&side.format);
    float *scales = malloc((size_t)brci_most(1, side.scales) * sizeof *scales);
    if (scales == NULL) return 0;
    uint32_t strange[COLUMNS] = {0}, some = 0;
    for (int64_t i = first; i < last && !some; i++) {
        uint8_t *panel = (uint8_t *)p->data + i * s->panel_bytes, *stored = panel + s->code_bytes,
                two[BRCI_INTEGER_RUN * COLUMNS];
        float *all = (float *)(void *)(stored + s->scale_bytes);
        brci_integer_row r[COLUMNS];
        memset(stored, 0, (size_t)s->scale_bytes);
        for (int64_t c = 0; c < COLUMNS; c++) {
            /* Beyond the last column stands that one again: what comes of it is not stored. */
            const int64_t n = brci_least(i % s->panels * COLUMNS + c, p->n - 1);
            brci_integer_row own = brci_integer_row_of(&w->source, &s->side, i / s->panels, n);
            some |= (uint32_t)!brci_integer_scales(p->kernels, &own, 1, scales, all + c);
            const int64_t stored_scales = side.block == 0 ? 0 : brci_ceil(p->k, side.block);
            for (int64_t j = 0; j < stored_scales; j++)
                memcpy(stored + (j * COLUMNS + c) * bytes, (const uint8_t *)t->scale.data + (own.scale_at + j) * bytes,
                       (size_t)bytes);
            r[c] = own;
            r[c].side = &side;
        }
        for (int64_t k = 0; k < side.depth; k += BRCI_INTEGER_RUN) {
            const int64_t depth = brci_least(BRCI_INTEGER_RUN, side.depth - k);
            if (!s->narrow) {
                brci_integer_panel(p->kernels, r, k, depth, BRCI_INTEGER_BIAS, strange, panel + k * COLUMNS);
                continue;
            }
            brci_integer_panel(p->kernels, r, k, depth, 0, strange, two);
            for (int64_t j = 0; j < depth * COLUMNS / 2; j++) {
                const uint8_t *at = two + j / 64 * 128 + j % 64;
                panel[k * COLUMNS / 2 + j] = (uint8_t)(at[0] | at[64] << 4);
            }
        }
        for (int c = 0; c < COLUMNS; c++) some |= strange[c];
    }
    free(scales);
    return !some;
}

const brci_packing brci_packing_integers = {
    .name = "integers", .plan = plan, .pack = pack, .ways = {&brci_way_integers}};
