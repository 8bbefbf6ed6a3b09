/* SPDX-License-Identifier: Apache-2.0
 * A recipe for a tensor of a foreign file: one that gives its geometry, its formats and the kinds of its tables. How
 * its numbers were made is not known, and need not be to read them. */
#include "dialect/dialect.h"

#include <string.h>

static int same_block(brc_block a, brc_block b) { return a.batch == b.batch && a.rows == b.rows && a.cols == b.cols; }

static int same_table(const brc_table *a, const brc_table *b) {
    if (a->format == BRC_NONE || b->format == BRC_NONE) return a->format == b->format;
    return a->format == b->format && a->kind == b->kind && same_block(a->block, b->block);
}

int brci_recipe_describes(const brc_recipe *recipe, const brc_tensor *t) {
    brc_tensor plan;
    brc_recipe r = *recipe;
    r.partial = 1;
    return brc_tensor_plan(&r, t->rank, t->shape, &plan, NULL, NULL) == BRC_OK && plan.format == t->format &&
           same_table(&plan.scale, &t->scale) && same_table(&plan.global, &t->global) &&
           same_table(&plan.zero, &t->zero);
}

const char *brci_row_name(const brc_tensor *t) {
    for (unsigned i = 0; i < BRC_RECIPE_COUNT && !t->recipe.pow2; i++) {
        const brc_recipe_info *row = brc_recipe_get((brc_recipe_id)i);
        if (row->recipe.history_length == 0 && brci_recipe_describes(&row->recipe, t)) return row->name;
    }
    return "";
}

/* Whether a recipe of any arithmetic describes the tensor. */
static int settle_arithmetic(brc_recipe *r, const brc_tensor *t) {
    for (unsigned arith = 0; arith < BRC_ARITH_COUNT; arith++) {
        r->arith = (uint8_t)arith;
        if (brc_recipe_check(r, NULL) == BRC_OK && brci_recipe_describes(r, t)) return 1;
    }
    return 0;
}

static brc_recipe composed(const brc_tensor *t) {
    return (brc_recipe){.size = sizeof(brc_recipe),
                        .id = BRC_RECIPE_CUSTOM,
                        .element = t->format,
                        .scale = t->scale.format,
                        .zero = t->zero.format,
                        .levels = t->global.format == BRC_NONE ? 1 : 2,
                        .layout = t->layout,
                        .pow2 = t->scale.format == BRC_F32 && t->recipe.pow2,
                        .rule = t->zero.format == BRC_NONE ? BRC_RULE_AMAX : BRC_RULE_MINMAX,
                        .block = t->scale.block};
}

/* The text that the dialect gave, the rows as they are, then one composed of the parts. */
int brci_name_recipe(const brc_tensor *t, const char *text, brc_recipe *recipe) {
    int named = text != NULL && text[0] != '\0' && brc_recipe_parse(text, recipe, NULL) == BRC_OK &&
                brci_recipe_describes(recipe, t);
    for (unsigned i = 0; !named && i < BRC_RECIPE_COUNT; i++) {
        *recipe = brc_recipe_get((brc_recipe_id)i)->recipe;
        named = recipe->history_length == 0 && brci_recipe_describes(recipe, t);
    }
    if (!named) {
        *recipe = composed(t);
        named = settle_arithmetic(recipe, t);
    }
    if (named && (recipe->block.rows != 0 || recipe->block.cols != 0)) {
        brc_tensor plan;
        recipe->partial = 0;
        recipe->partial = brc_tensor_plan(recipe, t->rank, t->shape, &plan, NULL, NULL) != BRC_OK;
    }
    return named;
}
