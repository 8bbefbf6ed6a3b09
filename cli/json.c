/* SPDX-License-Identifier: Apache-2.0
 * Streams one JSON object to stdout. */
#include "json.h"

#include "print.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ASCII only, so that no character of a file's names reaches a terminal. Real numbers in 17 digits: every double
 * survives. */
enum { FLAGS = JSON_COMPACT | JSON_ENSURE_ASCII | JSON_ENCODE_ANY };

/* Jansson leaves DEL as it is; since all else is ASCII, it can only stand in a text. */
static void write_safely(const char *text) {
    for (const char *del; (del = strchr(text, 0x7F)) != NULL; text = del + 1) {
        fwrite(text, 1, (size_t)(del - text), stdout);
        fputs("\\u007f", stdout);
    }
    fputs(text, stdout);
}

static void begin(struct json_out *out, const char *key) {
    if (out->depth > 0) {
        fputs(out->first[out->depth - 1] ? "\n" : ",\n", stdout);
        out->first[out->depth - 1] = 0;
    }
    if (key != NULL) printf("\"%s\": ", key);
}

void json_open(struct json_out *out, const char *key, char bracket) {
    begin(out, key);
    putchar(bracket);
    out->first[out->depth] = 1;
    out->end[out->depth++] = bracket == '{' ? '}' : ']';
}

void json_put(struct json_out *out, const char *key, json_t *value) {
    begin(out, key);
    char *text = value != NULL ? json_dumps(value, FLAGS) : NULL;
    if (text != NULL) write_safely(text);
    else out->failed = 1;
    free(text);
    json_decref(value);
}

void json_item(struct json_out *out, json_t *value) { json_put(out, NULL, value); }

int json_close(struct json_out *out) {
    if (!out->first[--out->depth]) putchar('\n');
    putchar(out->end[out->depth]);
    if (out->depth > 0) return 0;
    putchar('\n');
    if (!out->failed) return 0;
    complain("out of memory; the JSON object is incomplete");
    return EXIT_IO;
}

json_t *json_text(const char *text) {
    if (text == NULL) return json_null();
    json_t *value = json_string(text);
    if (value != NULL) return value;
    char *ascii = malloc(3 * strlen(text) + 1), *end = ascii;
    if (ascii == NULL) return NULL;
    for (const char *s = text; *s != '\0'; s++) {
        if ((unsigned char)*s < 0x80) *end++ = *s;
        else memcpy(end, "\xEF\xBF\xBD", 3), end += 3;
    }
    *end = '\0';
    value = json_string(ascii);
    free(ascii);
    return value;
}

json_t *json_number(double number) { return isfinite(number) ? json_real(number) : json_null(); }

json_t *json_shape(int rank, const int64_t *shape) {
    json_t *list = json_array();
    for (int i = 0; i < rank; i++) json_array_append_new(list, json_integer(shape[i]));
    return list;
}

json_t *json_block(brc_block block) {
    return json_pack("[I,I,I]", (json_int_t)block.batch, (json_int_t)block.rows, (json_int_t)block.cols);
}
