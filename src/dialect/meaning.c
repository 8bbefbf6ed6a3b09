/* SPDX-License-Identifier: Apache-2.0
 * What a tensor's tables mean, in words: the answer that inspect gives. */
#include "dialect/dialect.h"

#include <string.h>

const char *brci_block_text(brci_pool *pool, brc_block block, int rank) {
    if (block.rows == 0 && block.cols == 0) return block.batch == 1 && rank > 2 ? "matrix" : "tensor";
    if (block.rows == 1 && block.cols == 0) return "row";
    if (block.rows == 0 && block.cols == 1) return "column";
    if (block.rows == 0) return brci_pool_print(pool, "%u columns", block.cols);
    return brci_pool_print(pool, "%ux%u block", block.rows, block.cols);
}

static const char *global_text(brci_pool *pool, const brc_table *global, const char *sign) {
    switch ((brc_kind)global->kind) {
    case BRC_KIND_DIVISOR: return brci_pool_print(pool, "%s (scale / global_scale)", sign);
    case BRC_KIND_AMAX: return brci_pool_print(pool, "%s (scale * global_scale / %g)", sign, (double)global->constant);
    default: return brci_pool_print(pool, "%s (scale * global_scale)", sign);
    }
}

/* Tables are told apart by format: their pointers may still be missing. */
static const char *value_text(brci_pool *pool, const brc_tensor *t) {
    const char *sign = t->scale.kind == BRC_KIND_DIVISOR ? "/" : "*";
    const char *scale =
        t->global.format != BRC_NONE ? global_text(pool, &t->global, sign) : brci_pool_print(pool, "%s scale", sign);
    if (t->zero.format == BRC_NONE) return brci_pool_print(pool, "value = element %s", scale);
    if (t->zero.kind == BRC_KIND_REAL) return brci_pool_print(pool, "value = element %s + zero_point", scale);
    return brci_pool_print(pool, "value = (element - zero_point) %s", scale);
}

brc_recipe brci_recipe_of(const brc_tensor *t) {
    return (brc_recipe){.size = sizeof(brc_recipe),
                        .id = BRC_RECIPE_UNKNOWN,
                        .element = t->format,
                        .scale = t->scale.format,
                        .zero = t->zero.format,
                        .levels = t->global.format != BRC_NONE ? 2 : 1,
                        .layout = t->layout,
                        .partial = 1,
                        .block = t->scale.block};
}

static const char *recipe_text(brci_pool *pool, const brc_tensor *t) {
    const char *row = brci_row_name(t);
    char text[512];
    if (t->recipe.id != BRC_RECIPE_UNKNOWN) {
        brc_recipe_text(&t->recipe, text, sizeof text);
        return brci_pool_print(pool, "%s", text);
    }
    if (row[0] != '\0') return row;
    return brci_pool_print(pool, "%s, %s per %s", brc_format_get((brc_format)t->format)->name,
                           brc_format_get((brc_format)t->scale.format)->name,
                           brci_block_text(pool, t->scale.block, t->rank));
}

void brci_describe(brci_pool *pool, brc_entry *entry) {
    const brc_tensor *t = &entry->tensor;
    const char *block = brci_block_text(pool, t->scale.block, t->rank);
    entry->meaning = brci_pool_print(pool, "%s; one scale for %s %s%s%s", value_text(pool, t),
                                     strcmp(block, "tensor") == 0 ? "the" : "each", block,
                                     t->group_index != NULL ? " of columns in the order of the group index" : "",
                                     t->scale.format == BRC_E8M0 ? "; a scale byte b is 2^(b - 127)" : "");
    if (entry->recipe[0] == '\0') entry->recipe = recipe_text(pool, t);
}
