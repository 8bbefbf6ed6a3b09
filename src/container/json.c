/* SPDX-License-Identifier: Apache-2.0
 * Limit: DEPTH_MAX levels of arrays and objects, as serde_json in the Rust reader of safetensors. */
#include "container/json.h"

#include <string.h>

#define DEPTH_MAX 127

brc_status brci_json_fail(brci_json text, const char *what, brc_error *err) {
    return brci_fail(err, BRC_MALFORMED, text.offset, "%s: %s (at byte %llu)", brci_clip(text.file).text, what,
                     (unsigned long long)text.offset);
}

static brci_json skip(brci_json text, size_t bytes) {
    text.at += bytes;
    text.offset += bytes;
    text.length -= bytes;
    return text;
}

static brci_json skip_space(brci_json text) {
    size_t n = 0;
    while (n < text.length && (text.at[n] == ' ' || text.at[n] == '\n' || text.at[n] == '\t' || text.at[n] == '\r'))
        n++;
    return skip(text, n);
}

static int begins_with(brci_json text, char c) { return text.length > 0 && text.at[0] == c; }

/* Bytes of the string that begins at `from`, with its quotation marks; to the end of the text if it is not closed. */
static size_t string_bytes(brci_json text, size_t from) {
    size_t i = from + 1;
    while (i < text.length && text.at[i] != '"') i += text.at[i] == '\\' ? 2 : 1;
    return (i < text.length ? i + 1 : text.length) - from;
}

/* Bytes up to the comma or bracket that ends a value. What lies between is for Jansson to judge. */
static brc_status value_bytes(brci_json text, int depth, size_t *bytes, brc_error *err) {
    int level = depth;
    size_t i = 0;
    while (i < text.length) {
        char c = text.at[i];
        if (c == '"') {
            i += string_bytes(text, i);
            continue;
        }
        if ((c == ',' || c == '}' || c == ']') && level == depth) break;
        if (c == '{' || c == '[') level++;
        if (c == '}' || c == ']') level--;
        if (level > DEPTH_MAX)
            return brci_fail(err, BRC_LIMIT, text.offset + i, "%s: JSON nested deeper than %d (at byte %llu)",
                             brci_clip(text.file).text, DEPTH_MAX, (unsigned long long)(text.offset + i));
        i++;
    }
    *bytes = i;
    return BRC_OK;
}

brc_status brci_json_walk_object(brci_json_walk *walk, brci_json text, int depth, brc_error *err) {
    text = skip_space(text);
    if (!begins_with(text, '{')) return brci_json_fail(text, "a JSON object is expected", err);
    *walk = (brci_json_walk){.rest = skip(text, 1), .depth = depth};
    return BRC_OK;
}

brc_status brci_json_next(brci_json_walk *walk, brci_json_member *member, int *more, brc_error *err) {
    brci_json rest = skip_space(walk->rest);
    size_t bytes = 0;
    if (begins_with(rest, '}')) {
        rest = skip_space(skip(rest, 1));
        if (rest.length > 0) return brci_json_fail(rest, "bytes behind the end of the JSON object", err);
        *more = 0;
        return BRC_OK;
    }
    if (walk->started) {
        if (!begins_with(rest, ',')) return brci_json_fail(rest, "invalid JSON: ',' or '}' is expected", err);
        rest = skip_space(skip(rest, 1));
    }
    if (!begins_with(rest, '"'))
        return brci_json_fail(rest, "invalid JSON: a name in quotation marks is expected", err);
    member->key = rest;
    member->key.length = string_bytes(rest, 0);
    rest = skip_space(skip(rest, member->key.length));
    if (!begins_with(rest, ':')) return brci_json_fail(rest, "invalid JSON: ':' is expected", err);
    rest = skip_space(skip(rest, 1));
    TRY(value_bytes(rest, walk->depth, &bytes, err));
    member->value = rest;
    member->value.length = bytes;
    walk->rest = skip(rest, bytes);
    walk->started = 1;
    *more = 1;
    return BRC_OK;
}

brc_status brci_json_load(brci_json text, size_t limit, json_t **value, brc_error *err) {
    json_error_t error;
    if (text.length > limit)
        return brci_fail(err, BRC_LIMIT, text.offset, "%s: a JSON value is longer than %zu bytes (at byte %llu)",
                         brci_clip(text.file).text, limit, (unsigned long long)text.offset);
    *value = json_loadb(text.at, text.length, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (*value != NULL) return BRC_OK;
    if (json_error_code(&error) == json_error_out_of_memory)
        return brci_fail(err, BRC_MEMORY, 0, "%s: no memory to read its JSON", brci_clip(text.file).text);
    return brci_fail(err, BRC_MALFORMED, text.offset + (uint64_t)error.position,
                     "%s: invalid JSON: %.90s (at byte %llu)", brci_clip(text.file).text, error.text,
                     (unsigned long long)text.offset + (unsigned)error.position);
}

brc_status brci_json_string(brci_json text, brci_arena *arena, const char **string, brc_error *err) {
    json_t *value;
    brc_status status = BRC_OK;
    if (!begins_with(text, '"')) return brci_json_fail(text, "a JSON string is expected", err);
    TRY(brci_json_load(text, text.length, &value, err));
    if (memchr(json_string_value(value), 0, json_string_length(value)) != NULL)
        status = brci_json_fail(text, "NUL in a name or text; rename it", err);
    else if ((*string = brci_arena_text(arena, json_string_value(value), json_string_length(value))) == NULL)
        status = brci_fail(err, BRC_MEMORY, 0, "%s: no memory for its names", brci_clip(text.file).text);
    json_decref(value);
    return status;
}
