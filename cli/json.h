/* SPDX-License-Identifier: Apache-2.0
 * One JSON object on stdout, written as it comes: a checkpoint may have 200,000 tensors. The values are Jansson's. */
#ifndef CLI_JSON_H
#define CLI_JSON_H

#include "breccia/breccia.h"

#include <jansson.h>

/* Opens the object, or a list or object inside it; json_put adds a member and json_item an element, each on a line, and
 * takes the value over (NULL = out of memory, remembered). json_close ends what was opened last; for the outermost it
 * gives 0, or the exit code after a message. */
enum { JSON_DEPTH = 4 };
struct json_out {
    int depth, first[JSON_DEPTH], failed;
    char end[JSON_DEPTH];
};
void json_open(struct json_out *out, const char *key, char bracket);
void json_put(struct json_out *out, const char *key, json_t *value);
void json_item(struct json_out *out, json_t *value);
int json_close(struct json_out *out);

/* Text from a file or a path: invalid UTF-8 becomes U+FFFD; NULL becomes null. */
json_t *json_text(const char *text);
/* null where the number is NaN or infinite: JSON has neither. */
json_t *json_number(double number);
json_t *json_shape(int rank, const int64_t *shape);
json_t *json_block(brc_block block);

#endif
