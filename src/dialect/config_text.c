/* SPDX-License-Identifier: Apache-2.0
 * Limit: the depth of nesting, as container/json.c has it. */
#include "dialect/config_text.h"

#include "container/json.h"

#include <string.h>

/* Where a member stands among its neighbours, as positions in the text; NULL = there is none. */
typedef struct place {
    const char *before;            /* end of the value before it; of the last value, where it is not found */
    const char *key, *value, *end; /* its key, its value and the value's end */
    const char *after;             /* the key behind it */
} place;

static const char *value_end(const brci_json *value) {
    const char *end = value->at + value->length;
    while (end > value->at && strchr(" \t\r\n", end[-1]) != NULL) end--;
    return end;
}

static int is_key(const brci_json *key, const char *name) {
    size_t length = strlen(name);
    return key->length == length + 2 && memcmp(key->at + 1, name, length) == 0;
}

static int find(const char *text, const char *name, place *found) {
    brci_json_walk walk;
    brci_json_member member;
    int more;
    *found = (place){0};
    if (brci_json_walk_object(&walk, (brci_json){"config.json", text, strlen(text), 0}, 1, NULL) != BRC_OK) return 0;
    for (;;) {
        if (brci_json_next(&walk, &member, &more, NULL) != BRC_OK) return 0;
        if (!more) return 1;
        int here = is_key(&member.key, name);
        if (here && found->key != NULL) return 0;
        if (here) {
            found->key = member.key.at;
            found->value = member.value.at;
            found->end = value_end(&member.value);
        } else if (found->key == NULL) {
            found->before = value_end(&member.value);
        } else if (found->after == NULL) {
            found->after = member.key.at;
        }
    }
}

/* `text` with the bytes from `from` to `to` replaced. */
static const char *replaced(brci_pool *pool, const char *text, const char *from, const char *to, const char *by) {
    return brci_pool_print(pool, "%.*s%s%s", (int)(from - text), text, by, to);
}

int brci_config_member(const char *text, const char *key, const char **value, size_t *length) {
    place p;
    *value = NULL;
    if (!find(text, key, &p)) return 0;
    *value = p.value;
    *length = p.key == NULL ? 0 : (size_t)(p.end - p.value);
    return 1;
}

const char *brci_config_without(brci_pool *pool, const char *text, const char *key) {
    place p;
    if (!find(text, key, &p)) return NULL;
    if (p.key == NULL) return text;
    if (p.after != NULL) return replaced(pool, text, p.key, p.after, "");
    return replaced(pool, text, p.before != NULL ? p.before : p.key, p.end, "");
}

/* `value`, with the lines behind its first one indented once more: it becomes a member. */
static const char *indented(brci_pool *pool, const char *value) {
    size_t lines = 0, length = strlen(value);
    for (const char *at = value; (at = strchr(at, '\n')) != NULL; at++) lines++;
    char *text = brci_pool_alloc(pool, length + 2 * lines + 1), *to = text;
    if (text == NULL) return "";
    for (const char *at = value; *at != '\0'; at++) {
        *to++ = *at;
        if (*at == '\n') {
            *to++ = ' ';
            *to++ = ' ';
        }
    }
    return text;
}

const char *brci_config_with(brci_pool *pool, const char *text, const char *key, const char *value) {
    place p;
    if (!find(text, key, &p)) return NULL;
    value = indented(pool, value);
    if (p.key != NULL) return replaced(pool, text, p.value, p.end, value);
    const char *at = p.before != NULL ? p.before : strchr(text, '{') + 1;
    const char *comma = p.before != NULL ? "," : "", *end = p.before != NULL ? "" : "\n";
    return replaced(pool, text, at, at, brci_pool_print(pool, "%s\n  \"%s\": %s%s", comma, key, value, end));
}
