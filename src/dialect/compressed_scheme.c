/* SPDX-License-Identifier: Apache-2.0
 * What quantization_config says of a module. A target is a module's name, the name of a class ("Linear"), or "re:" and
 * a pattern for the start of a name; names go before patterns, patterns before classes. Patterns are Python's: those
 * that POSIX cannot say (look-ahead and the like) match nothing here, and the arrays alone decide. */
#include "dialect/compressed.h"

#include <ctype.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>

typedef struct target {
    const char *text;
    const brci_ct_scheme *scheme; /* NULL = ignored */
    regex_t regex;
} target;

struct brci_ct_schemes {
    brci_ct_scheme *schemes;
    size_t n;
    target *names; /* sorted; exact names of modules, and classes */
    size_t n_names;
    target *patterns; /* in the config's order */
    size_t n_patterns;
};

/* ------------------------------------------------------------------------------------------------ one group */

static int64_t integer_of(const json_t *object, const char *key, int64_t otherwise) {
    const json_t *value = json_object_get(object, key);
    return json_is_integer(value) ? json_integer_value(value) : otherwise;
}

/* block_structure: [r, c], or "rxc" in older files. */
static int read_structure(const json_t *structure, int64_t sides[2]) {
    if (json_is_string(structure)) {
        char *end;
        sides[0] = strtoll(json_string_value(structure), &end, 10);
        sides[1] = *end == 'x' ? strtoll(end + 1, &end, 10) : 0;
        return *end == '\0';
    }
    for (size_t i = 0; i < 2; i++) sides[i] = json_integer_value(json_array_get(structure, i));
    return json_array_size(structure) == 2;
}

/* The block of a weight under `strategy`; without one the group size tells. 0 = it makes no sense. */
static int read_block(const json_t *weights, brc_block *block) {
    const char *strategy = json_string_value(json_object_get(weights, "strategy"));
    const int64_t group = integer_of(weights, "group_size", 0);
    int64_t sides[2] = {1, group};
    if (strategy == NULL) strategy = group > 0 ? "group" : group < 0 ? "channel" : "tensor";
    *block = (brc_block){0, 0, 0};
    if (strcmp(strategy, "tensor") == 0) return 1;
    *block = (brc_block){1, 1, 0};
    if (strcmp(strategy, "channel") == 0) return 1;
    if (strcmp(strategy, "block") == 0 && !read_structure(json_object_get(weights, "block_structure"), sides)) return 0;
    if (strcmp(strategy, "block") != 0 && strcmp(strategy, "group") != 0 && strcmp(strategy, "tensor_group") != 0)
        return 0;
    if (sides[0] < 1 || sides[1] < 1 || sides[0] > INT32_MAX || sides[1] > INT32_MAX) return 0;
    *block = (brc_block){1, (uint32_t)sides[0], (uint32_t)sides[1]};
    return 1;
}

/* Absent fields have the defaults of the library's QuantizationArgs. */
static int read_scheme(const json_t *config, const char *key, const json_t *group, brci_ct_scheme *s) {
    const json_t *weights = json_object_get(group, "weights"), *symmetric = json_object_get(weights, "symmetric");
    const char *type = json_string_value(json_object_get(weights, "type")),
               *word = json_string_value(json_object_get(group, "format"));
    if (word == NULL) word = json_string_value(json_object_get(config, "format"));
    if (word != NULL && strcmp(word, "mixed-precision") == 0) word = NULL;
    *s = (brci_ct_scheme){.group = key,
                          .word = word,
                          .bits = (int)integer_of(weights, "num_bits", 8),
                          .is_float = type != NULL && strcmp(type, "float") == 0,
                          .symmetric = !json_is_false(symmetric),
                          .json = group};
    return json_is_object(weights) && read_block(weights, &s->block);
}

/* ------------------------------------------------------------------------------------------------- targets */

/* Python's pattern for the start of a string, in POSIX's words; 0 = they differ. */
static int translate(const char *from, char *to) {
    int bracket = 0;
    to = stpcpy(to, "^(");
    for (; *from != '\0'; from++) {
        if (from[0] == '\\' && from[1] == 'd') to = stpcpy(to, bracket ? "0-9" : "[0-9]");
        else if (from[0] == '\\' && (bracket || isdigit((unsigned char)from[1]) || from[1] == '\0')) return 0;
        else if (from[0] == '\\') *to++ = from[0], *to++ = from[1];
        else if (strncmp(from, "(?:", 3) == 0 && !bracket) *to++ = '(', from++;
        else if (strncmp(from, "(?", 2) == 0 && !bracket) return 0;
        else {
            bracket = bracket ? *from != ']' : *from == '[';
            *to++ = *from;
            continue;
        }
        from++;
    }
    strcpy(to, ")");
    return 1;
}

static int compile(target *t, const char *pattern) {
    char *text = malloc(strlen(pattern) * 5 + 4);
    const int known =
        text != NULL && translate(pattern, text) && regcomp(&t->regex, text, REG_EXTENDED | REG_NOSUB) == 0;
    free(text);
    return known;
}

static void add_target(brci_ct_schemes *s, const json_t *text, const brci_ct_scheme *scheme) {
    target t = {.text = json_string_value(text), .scheme = scheme};
    if (t.text == NULL) return;
    if (strncmp(t.text, "re:", 3) != 0) s->names[s->n_names++] = t;
    else if (compile(&t, t.text + 3)) s->patterns[s->n_patterns++] = t;
}

static int by_text(const void *a, const void *b) {
    return strcmp(((const target *)a)->text, ((const target *)b)->text);
}

static size_t count_targets(const json_t *groups, const json_t *ignore) {
    size_t n = json_array_size(ignore);
    const char *key;
    json_t *group;
    json_object_foreach((json_t *)(uintptr_t)groups, key, group) n +=
        json_array_size(json_object_get(group, "targets"));
    return n;
}

brci_ct_schemes *brci_ct_schemes_new(brci_reader *reader, const json_t *config) {
    const json_t *groups = json_object_get(config, "config_groups"), *ignore = json_object_get(config, "ignore");
    const size_t targets = count_targets(groups, ignore);
    const char *key;
    json_t *group, *text;
    size_t i;
    if (json_object_size(groups) == 0) return NULL;
    brci_ct_schemes *s = calloc(1, sizeof *s);
    if (s == NULL) return NULL;
    s->schemes = calloc(json_object_size(groups), sizeof *s->schemes);
    s->names = calloc(targets + 1, sizeof *s->names);
    s->patterns = calloc(targets + 1, sizeof *s->patterns);
    if (s->schemes == NULL || s->names == NULL || s->patterns == NULL) {
        brci_ct_schemes_free(s);
        return NULL;
    }
    json_object_foreach((json_t *)(uintptr_t)groups, key, group) {
        brci_ct_scheme *scheme = &s->schemes[s->n];
        if (json_is_object(group) && json_is_null(json_object_get(group, "weights")))
            continue; /* of activations only */
        if (!read_scheme(config, key, group, scheme)) {
            if (reader != NULL)
                brci_report(reader, BRC_WARNING, BRC_OK, "",
                            brci_pool_print(reader->pool,
                                            "config.json's %.60s does not say how weights are quantized; it is "
                                            "not used",
                                            key));
            continue;
        }
        s->n++;
        json_array_foreach(json_object_get(group, "targets"), i, text) add_target(s, text, scheme);
    }
    json_array_foreach(ignore, i, text) add_target(s, text, NULL);
    qsort(s->names, s->n_names, sizeof *s->names, by_text);
    return s;
}

void brci_ct_schemes_free(brci_ct_schemes *s) {
    if (s == NULL) return;
    for (size_t i = 0; i < s->n_patterns; i++) regfree(&s->patterns[i].regex);
    free(s->schemes);
    free(s->names);
    free(s->patterns);
    free(s);
}

/* ------------------------------------------------------------------------------------------------ matching */

size_t brci_ct_module(const char *tensor) {
    const int64_t length = brci_stem(tensor, ".weight");
    return length < 0 ? strlen(tensor) : (size_t)length;
}

/* The target that a module's name matches, of those that quantize or of those that are ignored. */
static const target *match(const brci_ct_schemes *s, const char *module, int ignored) {
    size_t low = 0, high = s->n_names;
    while (low < high) { /* the first of this name */
        const size_t middle = (low + high) / 2;
        if (strcmp(s->names[middle].text, module) < 0) low = middle + 1;
        else high = middle;
    }
    for (; low < s->n_names && strcmp(s->names[low].text, module) == 0; low++)
        if ((s->names[low].scheme == NULL) == ignored) return &s->names[low];
    for (size_t i = 0; i < s->n_patterns; i++)
        if ((s->patterns[i].scheme == NULL) == ignored && regexec(&s->patterns[i].regex, module, 0, NULL, 0) == 0)
            return &s->patterns[i];
    return NULL;
}

static const brci_ct_scheme *scheme_of_class(const brci_ct_schemes *s) {
    for (size_t i = 0; i < s->n_names; i++)
        if (s->names[i].scheme != NULL && strcmp(s->names[i].text, "Linear") == 0) return s->names[i].scheme;
    return NULL;
}

const brci_ct_scheme *brci_ct_scheme_of(const brci_ct_schemes *s, const char *tensor) {
    if (s == NULL) return NULL;
    char *module = strndup(tensor, brci_ct_module(tensor));
    const target *found = module == NULL ? NULL : match(s, module, 0);
    free(module);
    if (found != NULL) return found->scheme;
    const brci_ct_scheme *linear = scheme_of_class(s);
    /* one group is meant, whatever its targets: names in memory are not always those of the file */
    return linear != NULL || s->n != 1 ? linear : &s->schemes[0];
}

int brci_ct_is_ignored(const brci_ct_schemes *s, const char *tensor) {
    if (s == NULL) return 0;
    char *module = strndup(tensor, brci_ct_module(tensor));
    const target *found = module == NULL ? NULL : match(s, module, 1);
    free(module);
    return found != NULL;
}
