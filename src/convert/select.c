/* SPDX-License-Identifier: Apache-2.0
 * Which tensors of a checkpoint are quantized. */
#include "convert/select.h"

#include "dialect/dialect.h"

#include <fnmatch.h>
#include <stddef.h>

static const struct {
    const char *glob, *why;
} excludes[] = {
#define EXCLUDE(glob, why) {glob, why},
#include "convert/excludes.def"
};

const char *brc_exclude_get(size_t i, const char **why) {
    if (i >= sizeof excludes / sizeof *excludes) return NULL;
    if (why != NULL) *why = excludes[i].why;
    return excludes[i].glob;
}

enum kind { CODES, SCALE, SHARED, COMPANION, CACHE };

/* As dialect/recognise.def says; and breccia's own tables, for when its files are read as plain. */
static const struct {
    const char *suffix, *needs;
    enum kind kind;
} parts[] = {
#define PATTERN(suffix, entry, role, needs, kind, numbers, dialects) {suffix, needs, kind},
#define METHOD(word, dialect)
#include "dialect/recognise.def"
    {".scale", ".data", SCALE},
    {".global_scale", ".data", SCALE},
    {".zero_point", ".data", SCALE},
    {".group_index", ".data", SCALE}};

/* The array called stem + suffix; NULL if there is none. */
static const brc_named_array *beside(const brc_file *file, const char *name, int64_t stem, const char *suffix) {
    brci_pool pool = {0};
    const brc_named_array *found = brc_file_find(file, brci_pool_print(&pool, "%.*s%s", (int)stem, name, suffix));
    brci_pool_free(&pool);
    return found;
}

int brci_is_part(const brc_file *file, const brc_named_array *array) {
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        const int64_t stem = brci_stem(array->name, parts[i].suffix);
        if (stem < 0 || (parts[i].kind == CODES && brci_is_high(array))) continue;
        if (parts[i].needs[0] == '\0') return 1;
        const brc_named_array *other = beside(file, array->name, stem, parts[i].needs);
        if (other != NULL && !(parts[i].kind == SHARED && brci_is_high(other))) return 1;
    }
    return 0;
}

int brci_is_high(const brc_named_array *array) {
    const brc_format_info *f = brc_format_get((brc_format)array->array.format);
    return f != NULL && f->role == BRC_HIGH;
}

int brci_matches(const char *name, const char *const *globs, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (fnmatch(globs[i], name, 0) == 0) return 1;
    return 0;
}

const char *brci_kept_because(const brc_file *file, const brc_entry *entry, const brc_quantize_options *options) {
    static const char *const ranks[] = {"scalar", "1-D", "2-D", "3-D", "4-D", "5-D", "6-D", "7-D", "8-D"};
    const brc_named_array *array = entry->parts[0].array;
    int included = options->n_include > 0 && brci_matches(entry->name, options->include, options->n_include);
    if (!brci_is_high(array)) return array->dtype;
    if (array->rank > BRC_MAX_RANK) return "too many dimensions";
    if (array->rank < 2 || (array->rank > 2 && !included)) return ranks[array->rank];
    for (uint32_t i = 0; i < array->rank; i++)
        if (array->shape[i] == 0) return "empty";
    if (brci_is_part(file, array)) return "a scale";
    if (options->n_include > 0 && !included) return "not included";
    if (brci_matches(entry->name, options->exclude, options->n_exclude)) return "excluded";
    for (size_t i = 0; !included && i < sizeof excludes / sizeof *excludes; i++)
        if (fnmatch(excludes[i].glob, entry->name, FNM_CASEFOLD) == 0) return excludes[i].why;
    return NULL;
}
