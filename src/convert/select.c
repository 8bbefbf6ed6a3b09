/* SPDX-License-Identifier: Apache-2.0
 * Which tensors of a checkpoint are quantized. */
#include "convert/select.h"

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

int brci_is_high(const brc_named_array *array) {
    const brc_format_info *f = brc_format_get((brc_format)array->array.format);
    return f != NULL && f->role == BRC_HIGH;
}

static int matches(const char *name, const char *const *globs, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (fnmatch(globs[i], name, 0) == 0) return 1;
    return 0;
}

const char *brci_kept_because(const brc_entry *entry, const brc_quantize_options *options) {
    static const char *const ranks[] = {"scalar", "1-D", "2-D", "3-D", "4-D", "5-D", "6-D", "7-D", "8-D"};
    const brc_named_array *array = entry->parts[0].array;
    int included = options->n_include > 0 && matches(entry->name, options->include, options->n_include);
    if (!brci_is_high(array)) return array->dtype;
    if (array->rank > BRC_MAX_RANK) return "too many dimensions";
    if (array->rank < 2 || (array->rank > 2 && !included)) return ranks[array->rank];
    for (uint32_t i = 0; i < array->rank; i++)
        if (array->shape[i] == 0) return "empty";
    if (options->n_include > 0 && !included) return "not included";
    if (matches(entry->name, options->exclude, options->n_exclude)) return "excluded";
    for (size_t i = 0; !included && i < sizeof excludes / sizeof *excludes; i++)
        if (fnmatch(excludes[i].glob, entry->name, FNM_CASEFOLD) == 0) return excludes[i].why;
    return NULL;
}
