/* SPDX-License-Identifier: Apache-2.0 */
#include "convert/carried.h"

#include <string.h>

/* Parts that the value itself is made of, or that only say how it is stored. */
static const char *const own[] = {"data",  "scale",    "global_scale",   "zero_point",  "group_index",
                                  "shape", "codebook", "scale_codebook", "description", "marker"};

/* Roles for the same number: `as` = the number itself, or its reciprocal. A dialect that asks for one gets the other.
 */
static const struct {
    const char *role, *as;
    int reciprocal;
} aliases[] = {{"input_scale", "input_divisor", 1},
               {"input_divisor", "input_scale", 1},
               {"activation_scale", "input_scale", 0},
               {"activation_scale", "input_divisor", 1}};

static int is_own(const char *role) {
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (strcmp(own[i], role) == 0) return 1;
    return 0;
}

/* Scales of inputs are F32 where they are more than an amax. */
static const brc_named_array *reciprocal_of(brci_pool *pool, const brc_named_array *array) {
    brc_named_array *made = brci_pool_alloc(pool, sizeof *made);
    float *numbers = brci_pool_alloc(pool, (size_t)array->bytes + 1);
    if (made == NULL || numbers == NULL) return NULL;
    memcpy(numbers, array->array.data, (size_t)array->bytes);
    for (int64_t i = 0; i < array->bytes / (int64_t)sizeof *numbers; i++) numbers[i] = 1.0f / numbers[i];
    *made = *array;
    made->array.data = numbers;
    return made;
}

const brc_entry *brci_companions(brci_pool *pool, const brc_entry *entry) {
    brci_reading *copy = brci_pool_alloc(pool, sizeof *copy);
    if (copy == NULL) return NULL;
    *copy = *(const brci_reading *)(const void *)entry;
    copy->entry.parts = copy->parts;
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++) {
        const brc_named_array *array = brci_part(entry, aliases[i].role);
        if (array == NULL || brci_part(&copy->entry, aliases[i].as) != NULL || copy->entry.n_parts == BRCI_MAX_PARTS)
            continue;
        if (aliases[i].reciprocal) array = array->array.format == BRC_F32 ? reciprocal_of(pool, array) : NULL;
        if (array != NULL) copy->parts[copy->entry.n_parts++] = (brc_part){aliases[i].as, array};
    }
    return pool->failed ? NULL : &copy->entry;
}

static int is_stored(const brci_store *store, const brc_entry *origin, const char *role) {
    const brc_named_array *array = brci_part(origin, role);
    for (size_t i = 0; array != NULL && i < store->n; i++)
        if (store->arrays[i].bytes == array->array.data) return 1;
    return 0;
}

const char *brci_left_behind(const brc_entry *entry, size_t i, const brc_entry *origin, const brci_store *store) {
    const char *role = entry->parts[i].role;
    if (is_own(role)) return NULL;
    if (store == NULL) return role;
    if (is_stored(store, origin, role)) return NULL;
    for (size_t a = 0; a < sizeof aliases / sizeof *aliases; a++)
        if (strcmp(aliases[a].role, role) == 0 && is_stored(store, origin, aliases[a].as)) return NULL;
    return role;
}

brc_status brci_check_left(const char *role, const char *dialect, brc_error *err) {
    if (strcmp(role, "pre_quant_scale") != 0) return BRC_OK;
    return brci_fail(
        err, BRC_UNSUPPORTED, 0,
        "%s has no place for its pre_quant_scale, and without it the values mean something else; dequantize "
        "multiplies it into the weight",
        dialect == NULL ? "a plain tensor" : dialect);
}
