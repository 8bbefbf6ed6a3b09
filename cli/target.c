/* SPDX-License-Identifier: Apache-2.0
 * A list of recipes is parted at commas, and so are the changes of one recipe: what has a '=' and no ':' before it
 * belongs to the recipe before ("int4:group=64,scale=bf16,nvfp4" are two). */
#include "target.h"

#include "print.h"

#include <stdlib.h>
#include <string.h>

static const char dense[] = "dense";

static int complain_target(const char *text) {
    char words[256] = "";
    for (size_t i = 0; choice_get(TARGETS, i) != NULL; i++) {
        const size_t used = strlen(words);
        snprintf(words + used, sizeof words - used, ", %s", choice_get(TARGETS, i));
    }
    const brc_dialect named = brc_dialect_find(text);
    if (named != BRC_DIALECT_COUNT && named != BRC_DIALECT_PLAIN) {
        complain("convert: --to: the dialect %s is not written yet; there is %s%s", text, dense, words);
        return EXIT_UNSUPPORTED;
    }
    complain("convert: --to: '%s' is none of %s%s", text, dense, words);
    return EXIT_USAGE;
}

static int starts_recipe(const char *text) {
    const size_t length = strcspn(text, ",");
    const char *colon = memchr(text, ':', length), *equals = memchr(text, '=', length);
    return equals == NULL || (colon != NULL && colon < equals);
}

static int read_recipe(const char *text, struct target *target) {
    brc_error err;
    if (target->n_recipes == TARGET_RECIPES) {
        complain("convert: --to: more than %d recipes", TARGET_RECIPES);
        return EXIT_USAGE;
    }
    if (brc_recipe_parse(text, &target->recipes[target->n_recipes++], &err) == BRC_OK) return 0;
    complain("convert: --to: %s%s", err.text,
             strstr(err.text, "`breccia recipes`") == NULL ? "; `breccia recipes` lists recipes and keys" : "");
    return EXIT_USAGE;
}

static int read_recipes(char *text, struct target *target) {
    int code = 0;
    for (char *at = text; code == 0 && at != NULL;) {
        char *end = strchr(at, ',');
        while (end != NULL && !starts_recipe(end + 1)) end = strchr(end + 1, ',');
        if (end != NULL) *end++ = '\0';
        code = read_recipe(at, target);
        at = end;
    }
    return code;
}

static int read_type(const char *text, struct target *target) {
    target->format = brc_format_find(text);
    for (size_t i = 0; choice_get(DTYPES, i) != NULL; i++)
        if (strcmp(choice_get(DTYPES, i), text) == 0) return 0;
    complain("convert: --to: '%s' is no type of plain numbers; there are bf16, f16 and f32", text);
    return EXIT_USAGE;
}

int target_read(const struct invocation *in, struct target *target) {
    char *text = strdup(option_value(in, OPTION_TO));
    int code = 0;
    if (text == NULL) return complain("out of memory"), EXIT_IO;
    char *colon = strchr(text, ':');
    if (colon != NULL) *colon++ = '\0';
    *target = (struct target){.dialect = brc_dialect_find(text)};
    const brc_dialect_info *info = brc_dialect_get(target->dialect);
    if (strcmp(text, dense) == 0 || target->dialect == BRC_DIALECT_PLAIN) {
        target->dialect = BRC_DIALECT_PLAIN;
        code = colon != NULL ? read_type(colon, target) : 0;
    } else if (info == NULL || !info->writes) {
        code = complain_target(text);
    } else if (colon != NULL) {
        code = read_recipes(colon, target);
    }
    free(text);
    return code;
}
