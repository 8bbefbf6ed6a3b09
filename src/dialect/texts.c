/* SPDX-License-Identifier: Apache-2.0
 * Parts of the texts that dialects write beside their arrays. */
#include "dialect/dialect.h"

#include <stdlib.h>
#include <string.h>

const char *brci_json_text(brci_pool *pool, json_t *value) {
    char *text = value == NULL ? NULL : json_dumps(value, JSON_INDENT(2));
    const char *made = text == NULL ? NULL : brci_pool_copy(pool, text, strlen(text));
    if (text == NULL) pool->failed = 1;
    json_decref(value);
    free(text);
    return made;
}

void brci_set_kept_modules(json_t *object, const char *key, const brci_summary *summary) {
    json_t *modules = json_array();
    for (size_t i = 0; i < summary->n_kept; i++) {
        const int64_t length = brci_stem(summary->kept[i], ".weight");
        if (length > 0) json_array_append_new(modules, json_stringn(summary->kept[i], (size_t)length));
    }
    if (json_array_size(modules) > 0) json_object_set(object, key, modules);
    json_decref(modules);
}
