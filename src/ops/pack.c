/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/pack.h"

#include "ops/memory.h"
#include "ops/parallel.h"
#include "ops/side.h"

#include <stdatomic.h>
#include <stdlib.h>

typedef struct job {
    const brc_packed *packed;
    const brci_weight *weight;
    atomic_int refused;
} job;

static void pack(void *argument, uint32_t part, int64_t first, int64_t last) {
    job *j = argument;
    (void)part;
    if (!j->packed->packing->pack(j->packed, j->weight, first, last)) atomic_store(&j->refused, 1);
}

int brci_pack_as(const brci_packing *packing, const brci_weight *weight, const brc_options *options,
                 brc_packed *packed) {
    job j = {.packed = packed, .weight = weight};
    packed->packing = packing;
    if (!packing->plan(packed, weight)) return 0;
    packed->data = brci_allocate(packed->data_bytes);
    if (packed->data == NULL) return -1;
    if (packed->values.rank > 0) packed->values.data = packed->data;
    brci_parallel(brci_parts(options, packed->items, packed->n * packed->k * packed->batch), packed->items, pack, &j);
    if (!atomic_load(&j.refused)) return 1;
    free(packed->data);
    packed->data = NULL;
    return 0;
}

brc_status brc_pack_new(const brc_operand *weight, brc_format activations, const brc_options *options, brc_packed **out,
                        brc_error *err) {
    const brc_format_info *format = brc_format_get(activations);
    brci_side side = {0};
    if (out == NULL) return brci_fail(err, BRC_ARGUMENT, 0, "packed is missing");
    *out = NULL;
    if (weight == NULL) return brci_fail(err, BRC_ARGUMENT, 0, "weight is missing");
    if (format == NULL || format->role == BRC_CARRIED)
        return brci_fail(err, BRC_FORMAT, 0, "activations: a format of numbers is needed, such as bf16 or int8");
    TRY(brci_options_check(options, err));
    TRY(brci_side_of(weight, "weight", &side, err));
    const brci_weight w = {side.source, weight->transposed != 0, side.source.view.batch, side.cols, side.rows,
                           activations};
    brc_packed *packed = malloc(sizeof *packed);
    for (size_t i = 0; packed != NULL && brci_packing_get(i) != NULL; i++) {
        *packed = (brc_packed){.kernels = brci_cpu(), .rank = side.rank, .batch = w.batch, .n = w.n, .k = w.k};
        memcpy(packed->shape, side.shape, (size_t)side.rank * sizeof *side.shape);
        packed->shape[side.rank - 2] = w.n;
        packed->shape[side.rank - 1] = w.k;
        const int done = brci_pack_as(brci_packing_get(i), &w, options, packed);
        if (done < 0) break;
        if (done == 0) continue;
        *out = packed;
        return BRC_OK;
    }
    free(packed);
    return brci_fail(err, BRC_MEMORY, 0, "out of memory: a packed weight of [%lld, %lld, %lld]", (long long)w.batch,
                     (long long)w.n, (long long)w.k);
}

int64_t brc_packed_bytes(const brc_packed *p) { return p == NULL ? 0 : (int64_t)sizeof *p + p->data_bytes; }

const char *brc_packed_kind(const brc_packed *p) { return p == NULL ? NULL : p->packing->name; }

void brc_packed_free(brc_packed *p) {
    if (p != NULL) free(p->data);
    free(p);
}
