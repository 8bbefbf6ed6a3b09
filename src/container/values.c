/* SPDX-License-Identifier: Apache-2.0
 * The values of GGUF's metadata, and how they are shown. Limits of what is shown: SHOWN_ITEMS items of an array, each
 * of SHOWN_BYTES bytes. */
#include "container/gguf.h"

#include <jansson.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN_ITEMS 8
#define SHOWN_BYTES 40

unsigned brci_value_bytes(unsigned type) {
    static const uint8_t bytes[BRC_VALUE_TYPE_COUNT] = {
        [BRC_VALUE_U8] = 1,  [BRC_VALUE_I8] = 1,  [BRC_VALUE_U16] = 2, [BRC_VALUE_I16] = 2,
        [BRC_VALUE_U32] = 4, [BRC_VALUE_I32] = 4, [BRC_VALUE_F32] = 4, [BRC_VALUE_BOOL] = 1,
        [BRC_VALUE_U64] = 8, [BRC_VALUE_I64] = 8, [BRC_VALUE_F64] = 8};
    return type < BRC_VALUE_TYPE_COUNT ? bytes[type] : 0;
}

static int is_signed(unsigned type) {
    return type == BRC_VALUE_I8 || type == BRC_VALUE_I16 || type == BRC_VALUE_I32 || type == BRC_VALUE_I64;
}

/* A whole number's bits, its sign extended. */
static uint64_t whole_number(unsigned type, const void *bytes) {
    const unsigned unused = 64 - 8 * brci_value_bytes(type);
    uint64_t bits = 0;
    memcpy(&bits, bytes, brci_value_bytes(type));
    return is_signed(type) ? (uint64_t)((int64_t)(bits << unused) >> unused) : bits;
}

int brci_value_unsigned(const brc_value *value, uint64_t *number) {
    if (brci_value_bytes(value->type) == 0 || value->type == BRC_VALUE_F32 || value->type == BRC_VALUE_F64 ||
        value->type == BRC_VALUE_BOOL)
        return 0;
    *number = whole_number(value->type, value->bytes);
    return !is_signed(value->type) || (int64_t)*number >= 0;
}

/* The shortest of the usual lengths that reads back as the same number; the point is '.', whatever the locale. */
static void real_text(double x, int narrow, char *text, size_t room) {
    const int digits[] = {narrow ? 6 : 15, narrow ? 9 : 17};
    for (int i = 0; i < 2; i++) {
        snprintf(text, room, "%.*g", digits[i], x);
        if (narrow ? (double)strtof(text, NULL) >= x && (double)strtof(text, NULL) <= x
                   : strtod(text, NULL) >= x && strtod(text, NULL) <= x)
            break;
    }
    for (; *text != '\0'; text++)
        if (*text == *localeconv()->decimal_point) *text = '.';
}

static void number_text(unsigned type, const void *bytes, char *text, size_t room) {
    float narrow;
    double wide;
    switch (type) {
    case BRC_VALUE_F32:
        memcpy(&narrow, bytes, sizeof narrow);
        real_text((double)narrow, 1, text, room);
        break;
    case BRC_VALUE_F64:
        memcpy(&wide, bytes, sizeof wide);
        real_text(wide, 0, text, room);
        break;
    case BRC_VALUE_BOOL: snprintf(text, room, "%s", *(const uint8_t *)bytes != 0 ? "true" : "false"); break;
    default:
        if (is_signed(type)) snprintf(text, room, "%lld", (long long)whole_number(type, bytes));
        else snprintf(text, room, "%llu", (unsigned long long)whole_number(type, bytes));
    }
}

/* A whole string; one that is no text says so. */
static const char *string_text(brci_arena *arena, const char *bytes, size_t length) {
    json_t *valid = memchr(bytes, 0, length) == NULL ? json_stringn(bytes, length) : NULL;
    const char *text = valid != NULL ? brci_arena_text(arena, bytes, length)
                                     : brci_arena_print(arena, "(%zu bytes that are no UTF-8 text)", length);
    json_decref(valid);
    return text;
}

static void item_text(unsigned type, const uint8_t **at, char *text, size_t room) {
    uint64_t length;
    if (type != BRC_VALUE_STRING) {
        number_text(type, *at, text, room);
        *at += brci_value_bytes(type);
        return;
    }
    memcpy(&length, *at, sizeof length);
    *at += sizeof length;
    snprintf(text, room, "\"%.*s\"%s", length > SHOWN_BYTES ? SHOWN_BYTES : (int)length, (const char *)*at,
             length > SHOWN_BYTES ? ".." : "");
    brci_make_utf8(text);
    *at += length;
}

const char *brci_value_text(brci_arena *arena, const brc_value *v) {
    char text[SHOWN_ITEMS * (SHOWN_BYTES + 8) + 64] = "[";
    const uint8_t *at = v->bytes;
    size_t used = 1;
    if (v->type == BRC_VALUE_STRING) return string_text(arena, v->bytes, (size_t)v->length);
    if (v->type != BRC_VALUE_ARRAY) {
        number_text(v->type, v->bytes, text, sizeof text);
        return brci_arena_text(arena, text, strlen(text));
    }
    for (uint64_t i = 0; i < v->count && i < SHOWN_ITEMS; i++) {
        if (i > 0) used += (size_t)snprintf(text + used, sizeof text - used, ", ");
        item_text(v->item, &at, text + used, sizeof text - used);
        used += strlen(text + used);
    }
    if (v->count > SHOWN_ITEMS)
        snprintf(text + used, sizeof text - used, ", .. %llu items]", (unsigned long long)v->count);
    else snprintf(text + used, sizeof text - used, "]");
    return brci_arena_text(arena, text, strlen(text));
}
