/* SPDX-License-Identifier: Apache-2.0 */
#include "dialect/arena.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES ((size_t)64 * 1024) /* one malloc for many small strings */

struct brci_arena_block {
    struct brci_arena_block *before;
    size_t used, room;
    _Alignas(16) char bytes[];
};

void *brci_arena_alloc(brci_arena *arena, size_t bytes) {
    struct brci_arena_block *block = arena->last;
    size_t padded = (bytes + 15) & ~(size_t)15;
    void *made;
    if (padded < bytes) {
        arena->failed = 1;
        return NULL;
    }
    if (block == NULL || block->room - block->used < padded) {
        size_t room = padded > BLOCK_BYTES ? padded : BLOCK_BYTES;
        block = room > SIZE_MAX - sizeof *block ? NULL : malloc(sizeof *block + room);
        if (block == NULL) {
            arena->failed = 1;
            return NULL;
        }
        *block = (struct brci_arena_block){.before = arena->last, .room = room};
        arena->last = block;
    }
    made = block->bytes + block->used;
    block->used += padded;
    return memset(made, 0, bytes);
}

const char *brci_arena_copy(brci_arena *arena, const char *text, size_t length) {
    char *made = brci_arena_alloc(arena, length + 1);
    return made == NULL ? "" : memcpy(made, text, length);
}

const char *brci_arena_print(brci_arena *arena, const char *format, ...) {
    va_list arguments;
    int length;
    char *made;
    va_start(arguments, format);
    length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    made = length < 0 ? NULL : brci_arena_alloc(arena, (size_t)length + 1);
    if (made == NULL) return "";
    va_start(arguments, format);
    vsnprintf(made, (size_t)length + 1, format, arguments);
    va_end(arguments);
    return made;
}

const char *brci_arena_shape(brci_arena *arena, int64_t rank, const int64_t *shape) {
    char text[512];
    size_t length = 1;
    text[0] = '[';
    for (int64_t i = 0; i < rank && length < sizeof text - 32; i++)
        length += (size_t)snprintf(text + length, sizeof text - length, "%s%" PRId64, i == 0 ? "" : ",", shape[i]);
    snprintf(text + length, sizeof text - length, "]");
    return brci_arena_print(arena, "%s", text);
}

void brci_arena_free(brci_arena *arena) {
    while (arena->last != NULL) {
        struct brci_arena_block *before = arena->last->before;
        free(arena->last);
        arena->last = before;
    }
}
