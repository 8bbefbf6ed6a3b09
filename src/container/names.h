/* SPDX-License-Identifier: Apache-2.0
 * Text that lives as long as a file, and names found by hash. */
#ifndef BRCI_NAMES_H
#define BRCI_NAMES_H

#include "core/status.h"

#include <stddef.h>

/* Memory that is freed at once. Zero-initialize. */
typedef struct brci_arena {
    struct brci_arena_block *blocks;
} brci_arena;

/* 8-byte aligned; NULL when there is no memory. */
void *brci_arena_take(brci_arena *arena, size_t bytes);
/* A copy of `length` bytes with a NUL behind. */
char *brci_arena_text(brci_arena *arena, const char *text, size_t length);
char *brci_arena_print(brci_arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));
void brci_arena_free(brci_arena *arena);

/* Name -> number. The names are the caller's and outlive the table. Zero-initialize. */
typedef struct brci_names {
    struct brci_name_slot *slots;
    size_t count, capacity;
} brci_names;

/* BRC_EXISTS, with the number it has in *present (may be NULL), where the name is there already; BRC_LIMIT where
 * hostile names were made to collide. */
brc_status brci_names_add(brci_names *names, const char *name, uint32_t number, uint32_t *present, brc_error *err);
/* The number of a name, or -1. */
int64_t brci_names_find(const brci_names *names, const char *name);
void brci_names_free(brci_names *names);

/* The end of a long text, for error lines, which hold 239 bytes: use as brci_clip(path).text within one expression. */
typedef struct brci_clipped {
    char text[84];
} brci_clipped;
brci_clipped brci_clip(const char *text);

#endif
