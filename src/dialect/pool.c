/* SPDX-License-Identifier: Apache-2.0 */
#include "dialect/pool.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const char *kept(brci_pool *pool, const char *text) {
    if (text == NULL) pool->failed = 1;
    return text == NULL ? "" : text;
}

void *brci_pool_alloc(brci_pool *pool, size_t bytes) {
    void *made = brci_arena_take(&pool->arena, bytes);
    if (made == NULL) pool->failed = 1;
    else memset(made, 0, bytes);
    return made;
}

const char *brci_pool_copy(brci_pool *pool, const char *text, size_t length) {
    return kept(pool, brci_arena_text(&pool->arena, text, length));
}

const char *brci_pool_print(brci_pool *pool, const char *format, ...) {
    va_list arguments;
    char *text;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (length < 0) return kept(pool, NULL);
    const char *made = brci_pool_copy(pool, text, (size_t)length);
    free(text);
    return made;
}

const char *brci_pool_shape(brci_pool *pool, int64_t rank, const int64_t *shape) {
    char text[512]; /* more dimensions than that are cut off: only error lines would show them */
    size_t length = 1;
    text[0] = '[';
    for (int64_t i = 0; i < rank && length < sizeof text - 32; i++)
        length += (size_t)snprintf(text + length, sizeof text - length, "%s%" PRId64, i == 0 ? "" : ",", shape[i]);
    snprintf(text + length, sizeof text - length, "]");
    return brci_pool_copy(pool, text, strlen(text));
}

void brci_pool_free(brci_pool *pool) { brci_arena_free(&pool->arena); }
