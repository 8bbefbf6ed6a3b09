/* SPDX-License-Identifier: Apache-2.0
 * The order that holds every weight: its values as F32, [.., n, k]. */
#include "cpu/packed.h"

static int plan(brc_packed *p, const brci_weight *w) {
    int64_t count;
    (void)w;
    if (__builtin_mul_overflow(p->batch * p->n, p->k, &count) || count > INT64_MAX / 8) return 0;
    p->items = p->k == 0 ? 0 : p->batch * p->n;
    p->data_bytes = (count * 4 + 63) / 64 * 64;
    p->values = brc_array_of(BRC_F32, p->rank, p->shape, NULL);
    return 1;
}

static int pack(const brc_packed *p, const brci_weight *w, int64_t first, int64_t last) {
    float *out = p->data;
    const int fast = p->kernels != NULL && w->along && brci_cpu_read_fits(&w->source);
    for (int64_t i = first; i < last; i++) {
        const int64_t batch = i / p->n, n = i % p->n;
        if (fast) brci_cpu_read(p->kernels, &w->source, batch, n, 0, p->k, out + i * p->k);
        else if (w->along) brci_read(&w->source, batch, n, 0, p->k, out + i * p->k);
        else
            for (int64_t k = 0; k < p->k; k++) brci_read(&w->source, batch, k, n, 1, out + i * p->k + k);
    }
    return 1;
}

const brci_packing brci_packing_values = {.name = "f32", .plan = plan, .pack = pack};
