/* SPDX-License-Identifier: Apache-2.0
 * Texts and entries that live as long as a checkpoint is open. Failure is sticky, so that text can be composed without
 * a check at each step: look at `failed` when done. */
#ifndef BRCI_POOL_H
#define BRCI_POOL_H

#include "container/names.h"

typedef struct brci_pool {
    brci_arena arena;
    int failed; /* 1 = out of memory at least once */
} brci_pool;

/* Zeroed; NULL when out of memory. */
void *brci_pool_alloc(brci_pool *pool, size_t bytes);
/* "" when out of memory. */
const char *brci_pool_copy(brci_pool *pool, const char *text, size_t length);
const char *brci_pool_print(brci_pool *pool, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "[140,264]" */
const char *brci_pool_shape(brci_pool *pool, int64_t rank, const int64_t *shape);
void brci_pool_free(brci_pool *pool);

#endif
