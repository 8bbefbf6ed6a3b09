/* SPDX-License-Identifier: Apache-2.0
 * Limit: PROBES_MAX names in one run of the hash table. Honest names at half load stay below a hundred; names made to
 * collide would otherwise cost the square of their number. */
#include "container/names.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define PROBES_MAX 4096
#define BLOCK_BYTES ((size_t)64 << 10)

typedef struct brci_arena_block {
    struct brci_arena_block *next;
    size_t used, capacity;
    uint64_t memory[]; /* aligned for all that is kept here: text and int64 */
} brci_arena_block;

void *brci_arena_take(brci_arena *arena, size_t bytes) {
    brci_arena_block *block = arena->blocks;
    void *taken;
    if (bytes > SIZE_MAX / 2) return NULL;
    bytes = (bytes + 7) & ~(size_t)7;
    if (block == NULL || block->capacity - block->used < bytes) {
        size_t capacity = bytes > BLOCK_BYTES / 4 ? bytes : BLOCK_BYTES;
        block = malloc(sizeof *block + capacity);
        if (block == NULL) return NULL;
        block->used = 0;
        block->capacity = capacity;
        if (capacity == BLOCK_BYTES || arena->blocks == NULL) {
            block->next = arena->blocks;
            arena->blocks = block;
        } else { /* a block of its own goes behind the current one, which has room left */
            block->next = arena->blocks->next;
            arena->blocks->next = block;
        }
    }
    taken = (char *)block->memory + block->used;
    block->used += bytes;
    return taken;
}

char *brci_arena_text(brci_arena *arena, const char *text, size_t length) {
    char *copy = brci_arena_take(arena, length + 1);
    if (copy == NULL) return NULL;
    memcpy(copy, text, length);
    copy[length] = 0;
    return copy;
}

char *brci_arena_print(brci_arena *arena, const char *format, ...) {
    va_list arguments;
    char *text;
    int length;
    va_start(arguments, format);
    length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    text = length < 0 ? NULL : brci_arena_take(arena, (size_t)length + 1);
    if (text == NULL) return NULL;
    va_start(arguments, format);
    vsnprintf(text, (size_t)length + 1, format, arguments);
    va_end(arguments);
    return text;
}

void brci_arena_free(brci_arena *arena) {
    while (arena->blocks != NULL) {
        brci_arena_block *next = arena->blocks->next;
        free(arena->blocks);
        arena->blocks = next;
    }
}

typedef struct brci_name_slot {
    const char *name; /* NULL = free */
    uint32_t hash, number;
} brci_name_slot;

/* The slot of a name, or the free one where it belongs. NULL after PROBES_MAX steps. */
static brci_name_slot *slot_of(const brci_names *names, const char *name, uint32_t hash) {
    size_t mask = names->capacity - 1;
    for (size_t step = 0; step < PROBES_MAX && step <= mask; step++) {
        brci_name_slot *slot = &names->slots[(hash + step) & mask];
        if (slot->name == NULL || (slot->hash == hash && strcmp(slot->name, name) == 0)) return slot;
    }
    return NULL;
}

static uint32_t hash_of(const char *name) { return (uint32_t)XXH3_64bits(name, strlen(name)); }

static brc_status collision(brc_error *err) {
    return brci_fail(err, BRC_LIMIT, 0, "more than %d names share one hash", PROBES_MAX);
}

static brc_status grow(brci_names *names, brc_error *err) {
    brci_names larger = {.count = names->count, .capacity = names->capacity > 0 ? 2 * names->capacity : 64};
    larger.slots = calloc(larger.capacity, sizeof *larger.slots);
    if (larger.slots == NULL) return brci_fail(err, BRC_MEMORY, 0, "no memory for %zu names", larger.count);
    for (size_t i = 0; i < names->capacity; i++) {
        const brci_name_slot *old = &names->slots[i];
        brci_name_slot *slot;
        if (old->name == NULL) continue;
        slot = slot_of(&larger, old->name, old->hash);
        if (slot == NULL) {
            brci_names_free(&larger);
            return collision(err);
        }
        *slot = *old;
    }
    free(names->slots);
    *names = larger;
    return BRC_OK;
}

brc_status brci_names_add(brci_names *names, const char *name, uint32_t number, uint32_t *present, brc_error *err) {
    uint32_t hash = hash_of(name);
    brci_name_slot *slot;
    if (2 * names->count >= names->capacity) TRY(grow(names, err));
    slot = slot_of(names, name, hash);
    if (slot == NULL) return collision(err);
    if (slot->name != NULL) {
        if (present != NULL) *present = slot->number;
        return brci_fail(err, BRC_EXISTS, 0, "%s: the name is there twice", brci_clip(name).text);
    }
    *slot = (brci_name_slot){name, hash, number};
    names->count++;
    return BRC_OK;
}

int64_t brci_names_find(const brci_names *names, const char *name) {
    const brci_name_slot *slot = names->capacity == 0 ? NULL : slot_of(names, name, hash_of(name));
    return slot == NULL || slot->name == NULL ? -1 : (int64_t)slot->number;
}

void brci_names_free(brci_names *names) {
    free(names->slots);
    *names = (brci_names){0};
}

brci_clipped brci_clip(const char *text) {
    brci_clipped clipped;
    size_t length = strlen(text), capacity = sizeof clipped.text - 1;
    if (length <= capacity) {
        memcpy(clipped.text, text, length + 1);
    } else {
        const char *tail = text + length - (capacity - 3);
        while ((*tail & 0xC0) == 0x80) tail++; /* not within a character */
        snprintf(clipped.text, sizeof clipped.text, "...%s", tail);
    }
    return clipped;
}
