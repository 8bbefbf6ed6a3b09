/* SPDX-License-Identifier: Apache-2.0
 * JSON objects one member at a time. Jansson reads the keys and values; only the object around them is walked here,
 * because a tree of a whole header would take tens of times its bytes. */
#ifndef BRCI_JSON_H
#define BRCI_JSON_H

#include "container/names.h"

#include <jansson.h>

/* A piece of JSON text; `file` and `offset` (of `at` in the file) are for errors. */
typedef struct brci_json {
    const char *file;
    const char *at;
    size_t length;
    uint64_t offset;
} brci_json;

typedef struct brci_json_walk {
    brci_json rest;
    int depth; /* of the members' values */
    int started;
} brci_json_walk;

typedef struct brci_json_member {
    brci_json key, value;
} brci_json_member;

/* `text` must be one object, with nothing but white space around it; depth is 1 for a whole text. */
brc_status brci_json_walk_object(brci_json_walk *walk, brci_json text, int depth, brc_error *err);
/* *more = 0 behind the last member. */
brc_status brci_json_next(brci_json_walk *walk, brci_json_member *member, int *more, brc_error *err);

/* The value as Jansson's tree, to be released by json_decref. `limit` bounds its text, and so its memory. */
brc_status brci_json_load(brci_json text, size_t limit, json_t **value, brc_error *err);
/* The value, a string without NUL; lives as long as the arena. */
brc_status brci_json_string(brci_json text, brci_arena *arena, const char **string, brc_error *err);

/* BRC_MALFORMED naming the file and the byte where `text` begins. */
brc_status brci_json_fail(brci_json text, const char *what, brc_error *err);

#endif
