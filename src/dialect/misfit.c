/* SPDX-License-Identifier: Apache-2.0
 * Why a scale does not fit its weight: the misreading that it would be. */
#include "dialect/dialect.h"

#include <string.h>

/* Whether the scale fits with its last two sides exchanged. */
static int is_transposed(const brc_tensor *t, const brc_named_array *scale, const brc_block *block) {
    brc_named_array turned = *scale;
    int64_t shape[BRC_MAX_RANK];
    brc_block guessed;
    if (scale->rank < 2 || scale->rank > BRC_MAX_RANK) return 0;
    memcpy(shape, scale->shape, scale->rank * sizeof *shape);
    shape[scale->rank - 2] = scale->shape[scale->rank - 1];
    shape[scale->rank - 1] = scale->shape[scale->rank - 2];
    turned.shape = shape;
    return block == NULL ? brci_guess_block(t, &turned, &guessed) : brci_table_fits(t, *block, &turned);
}

/* Whether any block at all could give as many scales along an axis. */
static int is_possible(int64_t n, int64_t count) {
    if (count < 1 || count > n) return 0;
    const int64_t side = n / count + (n % count != 0);
    return n / side + (n % side != 0) == count;
}

static int is_of_some_block(const brc_tensor *t, const brc_named_array *scale) {
    const uint32_t r = t->rank;
    return scale->rank == r && r >= 2 && is_possible(t->shape[r - 2], scale->shape[r - 2]) &&
           is_possible(t->shape[r - 1], scale->shape[r - 1]);
}

void brci_refuse_table(brci_reader *reader, brci_reading *reading, const brc_named_array *scale, const brc_block *block,
                       const char *says) {
    const brc_tensor *t = &reading->entry.tensor;
    brci_pool *pool = reader->pool;
    const char *weight = brci_pool_shape(pool, t->rank, t->shape), *has = brci_array_text(pool, scale);
    brc_block guessed;
    if (block != NULL && brci_guess_block(t, scale, &guessed))
        brci_refuse(reader, reading, BRC_AMBIGUITY, BRC_AMBIGUOUS,
                    brci_pool_print(pool,
                                    "%s is %s: one scale for each %s of %s; but %s contradicts it; correct one of them",
                                    scale->name, has, brci_block_text(pool, guessed, t->rank), weight, says));
    else if (is_transposed(t, scale, block))
        brci_refuse(reader, reading, BRC_ERROR, BRC_SHAPE,
                    brci_pool_print(pool, "%s is transposed: it is %s, the weight %s", scale->name, has, weight));
    else if (block == NULL && is_of_some_block(t, scale))
        brci_refuse(reader, reading, BRC_AMBIGUITY, BRC_AMBIGUOUS,
                    brci_pool_print(pool,
                                    "%s is %s: for the weight %s it fits no usual block, and several others; "
                                    "config.json must say which",
                                    scale->name, has, weight));
    else
        brci_refuse(reader, reading, BRC_ERROR, BRC_SHAPE,
                    brci_pool_print(pool, "%s is %s, which does not belong to the weight %s%s%s", scale->name, has,
                                    weight, block == NULL ? "" : ": it does not fit ", block == NULL ? "" : says));
}
