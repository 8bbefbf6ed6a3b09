/* SPDX-License-Identifier: Apache-2.0
 * RFC 8259, section 4 and 7, as far as finding the ends of a value needs it. Limit: none but the text's own length;
 * the depth of nesting is only counted. */
#include "dialect/config_text.h"

#include <string.h>

static size_t space(const char *t, size_t i) { return i + strspn(t + i, " \t\r\n"); }

/* One past the closing quote of a string that starts at `i`; 0 if it does not end. */
static size_t string_end(const char *t, size_t i) {
    for (i++; t[i] != '\0'; i++) {
        if (t[i] == '"') return i + 1;
        if (t[i] == '\\' && t[++i] == '\0') return 0;
    }
    return 0;
}

/* One past a value that starts at `i`; 0 if it does not end. */
static size_t value_end(const char *t, size_t i) {
    size_t depth = 0, start = i;
    while (t[i] != '\0') {
        if (t[i] == '"') {
            i = string_end(t, i);
            if (i == 0) return 0;
        } else if (t[i] == '{' || t[i] == '[') {
            depth++;
            i++;
        } else if (t[i] == '}' || t[i] == ']') {
            if (depth == 0) break;
            depth--;
            i++;
        } else if (depth == 0 && strchr(", \t\r\n", t[i]) != NULL) {
            break;
        } else {
            i++;
            continue;
        }
        if (depth == 0) return i;
    }
    return t[i] == '\0' || i == start ? 0 : i;
}

int brci_config_member(const char *t, const char *key, brci_member *member) {
    size_t i = space(t, 0), count = 0, length = strlen(key);
    brci_member m = {0};
    if (t[i] != '{') return 0;
    i++;
    for (size_t first = i;; first = i) {
        size_t at = space(t, i), end;
        if (t[at] == '}' && count == 0) break;
        if (t[at] != '"' || (end = string_end(t, at)) == 0) return 0;
        int wanted = end - at == length + 2 && memcmp(t + at + 1, key, length) == 0;
        if (wanted && m.found) return 0;
        if (wanted) m = (brci_member){.first = first, .key = at, .found = 1, .only = count == 0};
        i = space(t, end);
        if (t[i] != ':') return 0;
        i = space(t, i + 1);
        end = value_end(t, i);
        if (end == 0) return 0;
        if (wanted) {
            m.value = i;
            m.value_end = end;
        }
        i = space(t, end);
        if (wanted) {
            m.end = i;
            m.last = t[i] == '}';
        }
        count++;
        if (t[i] == '}') break;
        if (t[i++] != ',') return 0;
    }
    i = space(t, i);
    if (t[i] != '}' || t[space(t, i + 1)] != '\0') return 0;
    if (!m.found) { /* where it would go: before the closing brace */
        m.end = i;
        m.only = count == 0;
        for (m.value_end = i; m.value_end > 0 && strchr(" \t\r\n", t[m.value_end - 1]) != NULL;) m.value_end--;
    }
    m.only = m.only && m.last;
    if (!m.found) m.only = count == 0;
    *member = m;
    return 1;
}

const char *brci_config_without(brci_pool *pool, const char *text, const char *key) {
    brci_member m;
    if (!brci_config_member(text, key, &m)) return NULL;
    if (!m.found) return text;
    /* A member that others follow goes with its comma, the last one with the comma before it. */
    size_t from = m.last && !m.only ? m.first - 1 : m.first;
    size_t to = m.last ? m.value_end : m.end + 1;
    return brci_pool_print(pool, "%.*s%s", (int)from, text, text + to);
}

const char *brci_config_with(brci_pool *pool, const char *text, const char *key, const char *value) {
    brci_member m;
    if (!brci_config_member(text, key, &m)) return NULL;
    if (m.found) return brci_pool_print(pool, "%.*s%s%s", (int)m.value, text, value, text + m.value_end);
    return brci_pool_print(pool, "%.*s%s\n  \"%s\": %s\n%s", (int)m.value_end, text, m.only ? "" : ",", key, value, text + m.end);
}
