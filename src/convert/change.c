/* SPDX-License-Identifier: Apache-2.0 */
#include "convert/change.h"

#include "convert/carried.h"
#include "convert/scales.h"
#include "convert/select.h"
#include "convert/transfer.h"
#include "convert/turn.h"

#include <stdlib.h>
#include <string.h>

brc_status brci_conversion_begin(brci_conversion *c, const brc_checkpoint *source, const brc_convert_options *options,
                                 brci_pool *pool, brc_error *err) {
    *c = (brci_conversion){.source = source,
                           .options = options,
                           .target = brci_dialect_of(options->dialect),
                           .pool = pool,
                           .threads = {.size = sizeof c->threads, .threads = options->threads}};
    const char *const *texts = c->target->recipes;
    while (texts != NULL && texts[c->n_own] != NULL) c->n_own++;
    c->own = brci_pool_alloc(pool, (c->n_own + 1) * sizeof *c->own);
    if (c->own == NULL) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    for (size_t i = 0; i < c->n_own; i++) TRY(brc_recipe_parse(texts[i], &c->own[i], err));
    return BRC_OK;
}

/* ----------------------------------------------------------------------------------------------- the texts */

static const char *recipe_text(const brci_conversion *c, const brc_recipe *recipe) {
    char text[512];
    brc_recipe whole = *recipe;
    whole.partial = 0; /* edge blocks are of the shape, not of the recipe */
    brc_recipe_text(&whole, text, sizeof text);
    return brci_pool_copy(c->pool, text, strlen(text));
}

/* What the tensor is now. */
static const char *text_before(const brci_conversion *c, const brc_entry *entry) {
    brc_recipe recipe;
    if (entry->tensor.format == BRC_NONE) return entry->parts[0].array->dtype;
    return brc_recipe_parse(entry->recipe, &recipe, NULL) == BRC_OK ? recipe_text(c, &recipe) : entry->recipe;
}

/* ------------------------------------------------------------------------------------------------ deciding */

static int packs_any(const brci_store *store) {
    for (size_t i = 0; i < store->n; i++)
        if (store->arrays[i].pack != NULL) return 1;
    return 0;
}

/* Some numbers have no place in an order that holds others, or in a dialect whose scales have no signs: only they
 * themselves tell. */
static brc_status try_numbers(const brci_conversion *c, const brc_entry *entry, const brci_change *change,
                              brc_error *err) {
    const brc_dialect to = c->options->dialect;
    const brc_tensor *t = &entry->tensor, unknown = {.recipe = {.id = BRC_RECIPE_UNKNOWN}},
                     *there = to == BRC_DIALECT_BRECCIA ? t : &unknown; /* others do not keep the recipe */
    brci_pool pool = {0};
    brci_store store = {.pool = &pool};
    brci_made made;
    brc_status status = c->target->store(entry->name, &change->tensor, change->origin, &store, err);
    const int packs = status == BRC_OK && packs_any(&store),
              stricter = (brci_takes_signs(entry->dialect, t) && !brci_takes_signs(to, there)) ||
                         (brci_takes_zeros(entry->dialect, t) && !brci_takes_zeros(to, there));
    brci_pool_free(&pool);
    if (status != BRC_OK || (!packs && !stricter)) return status;
    status = brci_change_make(c, entry, change, &made, err);
    if (status == BRC_OK && stricter && !c->options->keep_nonfinite) {
        made.stored.recipe = there->recipe;
        status = brci_check_scales(to, &made.stored, err) == BRC_OK ? BRC_OK : BRC_UNSUPPORTED;
    }
    brci_made_end(&made);
    return status;
}

/* Under the dialect's own names without any change of its numbers. */
static brc_status settle_as_it_is(const brci_conversion *c, const brc_entry *entry, brci_change *change,
                                  brc_error *err) {
    change->tensor = entry->tensor;
    TRY(brci_settle(c->target, entry->name, &change->tensor, change->origin, err));
    change->way = change->tensor.global.kind == entry->tensor.global.kind ? BRCI_STORE : BRCI_TURN;
    change->to = change->from;
    return try_numbers(c, entry, change, err);
}

/* Whether the dialect stores what a recipe makes of this shape. */
static brc_status settle_recipe(const brci_conversion *c, const char *name, const brc_recipe *recipe, int64_t rank,
                                const int64_t *shape, brci_change *change, brc_error *err) {
    change->recipe = brci_recipe_for(recipe, rank, shape);
    TRY(brc_tensor_plan(&change->recipe, (int)rank, shape, &change->tensor, NULL, err));
    TRY(brci_settle(c->target, name, &change->tensor, change->origin, err));
    change->to = recipe_text(c, recipe);
    return BRC_OK;
}

/* The first recipe that keeps every value; BRC_UNSUPPORTED if none does. */
static brc_status settle_exact(const brci_conversion *c, const brc_entry *entry, const brc_recipe *recipes, size_t n,
                               brci_change *change, brc_error *err) {
    brc_owned before = {0};
    brc_status status = BRC_UNSUPPORTED;
    for (size_t i = 0; i < n && status == BRC_UNSUPPORTED; i++) {
        brc_owned after = {0};
        if (settle_recipe(c, entry->name, &recipes[i], entry->tensor.rank, entry->tensor.shape, change, NULL) != BRC_OK)
            continue;
        if (before.tensor.size == 0) TRY(brc_checkpoint_load(c->source, entry, &before, err));
        status = brc_requantize_exact_new(&before.tensor, &change->recipe, &c->threads, &after, NULL, err);
        brc_release(&after);
    }
    brc_release(&before);
    change->way = BRCI_EXACT;
    return status;
}

/* Another recipe: exactly if one of them can, else the first, through F32. */
static brc_status settle_another(const brci_conversion *c, const brc_entry *entry, const brc_recipe *recipes, size_t n,
                                 brci_change *change, brc_error *err) {
    const brc_status status = settle_exact(c, entry, recipes, n, change, err);
    if (status != BRC_UNSUPPORTED) return status;
    change->way = BRCI_CAST;
    return settle_recipe(c, entry->name, &recipes[0], entry->tensor.rank, entry->tensor.shape, change, err);
}

/* Whether a tensor is of one of the recipes already, whatever the direction of its global scale. */
static int describes_any(const brc_recipe *recipes, size_t n, const brc_tensor *tensor) {
    static const uint8_t kinds[] = {BRC_KIND_MULTIPLIER, BRC_KIND_DIVISOR};
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < sizeof kinds; k++) {
            brc_tensor turned = *tensor;
            turned.global.kind = kinds[k];
            if (brc_recipe_describes(&recipes[i], &turned)) return 1;
        }
    return 0;
}

static void settle_carry(const brc_entry *entry, brci_change *change) {
    change->way = BRCI_CARRY;
    change->tensor = entry->tensor;
    change->to = change->from;
    change->judged = 1;
}

static void settle_dense(brci_change *change, brc_format format) {
    *change = (brci_change){.way = BRCI_DENSE,
                            .format = format,
                            .origin = change->origin,
                            .from = change->from,
                            .tensor = {.size = sizeof change->tensor},
                            .to = brc_format_get(format)->name};
}

/* Of a tensor that was chosen. */
static brc_status settle_chosen(const brci_conversion *c, const brc_entry *entry, brci_change *change, brc_error *err) {
    const brc_convert_options *o = c->options;
    const int listed = o->n_recipes == 0 ||
                       (entry->tensor.group_index == NULL && describes_any(o->recipes, o->n_recipes, &entry->tensor));
    if (o->dialect == BRC_DIALECT_PLAIN) {
        settle_dense(change, o->format == BRC_NONE ? BRC_BF16 : o->format);
        return BRC_OK;
    }
    if (listed && entry->dialect == o->dialect) {
        settle_carry(entry, change);
        return BRC_OK;
    }
    if (listed) {
        const brc_status status = settle_as_it_is(c, entry, change, err);
        if (status != BRC_UNSUPPORTED || (o->n_recipes == 0 && c->n_own == 0)) return status;
    }
    return o->n_recipes > 0 ? settle_another(c, entry, o->recipes, o->n_recipes, change, err)
                            : settle_another(c, entry, c->own, c->n_own, change, err);
}

/* Plain numbers that hold every value: BF16 if it can. */
static brc_status settle_plain_exactly(const brci_conversion *c, const brc_entry *entry, brci_change *change,
                                       brc_error *err) {
    settle_dense(change, BRC_BF16);
    TRY(brci_change_measure(c, entry, change, err));
    if (change->exactness > BRC_VALUE_EXACT) settle_dense(change, BRC_F32);
    return BRC_OK;
}

/* Of one that was not: every value stays. */
static brc_status settle_kept(const brci_conversion *c, const brc_entry *entry, brci_change *change, brc_error *err) {
    if (entry->dialect == c->options->dialect || c->options->dialect == BRC_DIALECT_PLAIN) {
        settle_carry(entry, change);
        return BRC_OK;
    }
    brc_status status = settle_as_it_is(c, entry, change, err);
    if (status == BRC_UNSUPPORTED) status = settle_exact(c, entry, c->own, c->n_own, change, err);
    return status == BRC_UNSUPPORTED ? settle_plain_exactly(c, entry, change, err) : status;
}

/* A plain tensor that a glob names and a recipe is there for. */
static brc_status settle_quantized(const brci_conversion *c, const brc_entry *entry, brci_change *change,
                                   brc_error *err) {
    const brc_named_array *array = entry->parts[0].array;
    change->way = BRCI_QUANTIZE;
    return settle_recipe(c, entry->name, &c->options->recipes[0], array->rank, array->shape, change, err);
}

static int is_to_be_quantized(const brci_conversion *c, const brc_entry *entry) {
    const brc_convert_options *o = c->options;
    const brc_quantize_options q = {
        .include = o->include, .n_include = o->n_include, .exclude = o->exclude, .n_exclude = o->n_exclude};
    return o->n_recipes > 0 && o->n_include > 0 && brci_kept_because(brc_checkpoint_file(c->source), entry, &q) == NULL;
}

brc_status brci_change_plan(const brci_conversion *c, const brc_entry *entry, brci_change *change, brc_error *err) {
    const brc_convert_options *o = c->options;
    *change = (brci_change){.tensor = {.size = sizeof change->tensor}, .from = text_before(c, entry)};
    if (entry->tensor.format == BRC_NONE) {
        if (is_to_be_quantized(c, entry)) return settle_quantized(c, entry, change, err);
        settle_carry(entry, change);
        return BRC_OK;
    }
    change->origin = brci_companions(c->pool, entry);
    if (change->origin == NULL) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    return brci_matches(entry->name, o->exclude, o->n_exclude) ||
                   (o->n_include > 0 && !brci_matches(entry->name, o->include, o->n_include))
               ? settle_kept(c, entry, change, err)
               : settle_chosen(c, entry, change, err);
}

/* ------------------------------------------------------------------------------------------------- making */

static brc_status make_dense(const brci_conversion *c, const brc_entry *entry, brc_format format, brci_made *made,
                             brc_error *err) {
    const brc_tensor *t = &made->before.tensor;
    const int64_t bytes = brci_entry_elements(entry) * brc_format_get(format)->bits / 8;
    made->memory = malloc((size_t)bytes + 1);
    if (made->memory == NULL) return brci_fail(err, BRC_MEMORY, 0, "out of memory: %lld bytes", (long long)bytes);
    made->dense = brc_array_of(format, t->rank, t->shape, made->memory);
    return brc_dequantize(t, &c->threads, &made->dense, err);
}

/* As brc_requantize through F32, but in two calls that run on vectors. */
static brc_status make_cast(const brci_conversion *c, const brci_change *change, brci_made *made, brc_error *err) {
    const brc_tensor *t = &made->before.tensor;
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->shape[i];
    float *numbers = malloc((size_t)n * sizeof *numbers + 1);
    if (numbers == NULL) return brci_fail(err, BRC_MEMORY, 0, "out of memory: %lld numbers", (long long)n);
    brc_array array = brc_array_of(BRC_F32, t->rank, t->shape, numbers);
    brc_status status = brc_dequantize(t, &c->threads, &array, err);
    if (status == BRC_OK) status = brc_cast_new(&array, &change->recipe, &c->threads, NULL, &made->after, NULL, err);
    free(numbers);
    return status;
}

/* The tensor to be stored, before its global scale is turned. */
static brc_status make_scaled(const brci_conversion *c, const brc_entry *entry, const brci_change *change,
                              brci_made *made, brc_error *err) {
    const brc_tensor *before = &made->before.tensor;
    made->stored = *before;
    if (change->way == BRCI_EXACT)
        TRY(brc_requantize_exact_new(before, &change->recipe, &c->threads, &made->after, NULL, err));
    if (change->way == BRCI_CAST) TRY(make_cast(c, change, made, err));
    if (change->way == BRCI_QUANTIZE)
        TRY(brci_quantize(entry->parts[0].array, &change->recipe, &c->threads, (int)c->options->keep_nonfinite,
                          &made->after, err));
    if (change->way >= BRCI_EXACT) made->stored = made->after.tensor;
    return BRC_OK;
}

brc_status brci_change_make(const brci_conversion *c, const brc_entry *entry, const brci_change *change,
                            brci_made *made, brc_error *err) {
    *made = (brci_made){.stored = {.size = sizeof made->stored}};
    if (change->way != BRCI_QUANTIZE) {
        TRY(brc_checkpoint_load(c->source, entry, &made->before, err));
        if (!c->options->keep_nonfinite) TRY(brci_check_scales(entry->dialect, &made->before.tensor, err));
    }
    if (change->way == BRCI_DENSE) return make_dense(c, entry, change->format, made, err);
    TRY(make_scaled(c, entry, change, made, err));
    if (made->stored.global.format != BRC_NONE && made->stored.global.kind != change->tensor.global.kind)
        TRY(brci_turn(&made->stored, change->tensor.global.kind, &made->memory, err));
    return brci_pack(c->target, entry->name, &made->stored, change->origin, &made->packed, err);
}

void brci_made_end(brci_made *made) {
    brci_packed_free(&made->packed);
    brc_release(&made->before);
    brc_release(&made->after);
    free(made->memory);
}

brc_status brci_change_measure(const brci_conversion *c, const brc_entry *entry, brci_change *change, brc_error *err) {
    brci_made made;
    brc_status status = brci_change_make(c, entry, change, &made, err);
    if (status == BRC_OK) status = brci_change_judge(c, entry, &made, change, err);
    brci_made_end(&made);
    return status;
}
