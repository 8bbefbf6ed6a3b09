/* SPDX-License-Identifier: Apache-2.0
 * Memory that lives as long as a checkpoint is open: names, evidence, entries. Freed at once.
 * Failure is sticky, so that text can be composed without a check at each step: test `failed` when done. */
#ifndef BRCI_ARENA_H
#define BRCI_ARENA_H

#include <stddef.h>
#include <stdint.h>

typedef struct brci_arena {
    struct brci_arena_block *last;
    int failed;                         /* 1 = out of memory at least once */
} brci_arena;

/* Zeroed, aligned to 16 bytes; NULL when out of memory. */
void *brci_arena_alloc(brci_arena *arena, size_t bytes);
/* Text that lives in the arena; "" when out of memory. */
const char *brci_arena_copy(brci_arena *arena, const char *text, size_t length);
const char *brci_arena_print(brci_arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "[140,264]" */
const char *brci_arena_shape(brci_arena *arena, int64_t rank, const int64_t *shape);
void brci_arena_free(brci_arena *arena);

#endif
