/* SPDX-License-Identifier: Apache-2.0
 * A recipe for a tensor of a foreign file: one that gives its geometry, its formats and the kinds of its tables. How
 * its numbers were made is not known, and need not be to read them. */
#include "dialect/dialect.h"

const char *brci_row_name(const brc_tensor *t) {
    for (unsigned i = 0; i < BRC_RECIPE_COUNT && !t->recipe.pow2; i++) {
        const brc_recipe_info *row = brc_recipe_get((brc_recipe_id)i);
        if (row->recipe.history_length == 0 && brc_recipe_describes(&row->recipe, t)) return row->name;
    }
    return "";
}

/* The text that the dialect gave, the rows as they are, then what the tables say. */
brc_status brci_name_recipe(const brc_tensor *t, const char *text, brc_recipe *recipe, brc_error *err) {
    int named = text != NULL && text[0] != '\0' && brc_recipe_parse(text, recipe, NULL) == BRC_OK &&
                brc_recipe_describes(recipe, t);
    for (unsigned i = 0; !named && i < BRC_RECIPE_COUNT; i++) {
        *recipe = brc_recipe_get((brc_recipe_id)i)->recipe;
        recipe->pow2 = t->recipe.pow2;
        named = recipe->history_length == 0 && brc_recipe_describes(recipe, t);
    }
    if (!named) TRY(brc_recipe_of(t, recipe, err));
    if (recipe->block.rows != 0 || recipe->block.cols != 0) {
        brc_tensor plan;
        recipe->partial = 0;
        recipe->partial = brc_tensor_plan(recipe, t->rank, t->shape, &plan, NULL, NULL) != BRC_OK;
    }
    return BRC_OK;
}

brc_status brc_entry_recipe(const brc_entry *entry, const brc_tensor *tensor, brc_recipe *recipe, brc_error *err) {
    if (entry == NULL || tensor == NULL || recipe == NULL)
        return brci_fail(err, BRC_ARGUMENT, 0, "entry, tensor and recipe must be given");
    if (tensor->recipe.id == BRC_RECIPE_UNKNOWN) return brci_name_recipe(tensor, entry->recipe, recipe, err);
    return brc_recipe_of(tensor, recipe, err);
}
