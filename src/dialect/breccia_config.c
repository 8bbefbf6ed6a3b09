/* SPDX-License-Identifier: Apache-2.0
 * {"version":2,"recipe":{"name":..,"fields":{..}},"layout":{"name":..,"fields":{..}},"shape":[..]}
 * Version 2 says every field of the recipe under its key of brc_recipe_key_get, so that a later change of a default
 * cannot change an old file; "row" is the recipe's name on the command line, for several rows share one file name.
 * Without "version": the fields of the Python package 0.1.
 * Limits: 64 KiB of text, dimensions as BRC_MAX_RANK. Unknown members are refused: they would carry meaning. */
#include "dialect/breccia_config.h"

#include <jansson.h>

#include <ctype.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_LIMIT ((size_t)64 * 1024)
#define RECIPE_ROOM 512 /* "row:key=value,.." with every key */

int brci_is_breccia_config(const char *text) {
    return text[strspn(text, " \t\r\n")] == '{' && strstr(text, "\"recipe\"") != NULL &&
           strstr(text, "\"layout\"") != NULL;
}

/* ------------------------------------------------------------------------------------------------- reading */

/* A recipe in the making: text for brc_recipe_parse. */
typedef struct draft {
    char text[RECIPE_ROOM];
    size_t length;
} draft;

static brc_status add(draft *d, const char *key, const char *value, brc_error *err) {
    int separator = strchr(d->text, ':') == NULL ? ':' : ',';
    for (const char *c = value; *c != '\0'; c++)
        if (!isalnum((unsigned char)*c) && strchr("_.+-/@", *c) == NULL)
            return brci_fail(err, BRC_MALFORMED, 0, "its config has a strange value for %s", key);
    int wrote = snprintf(d->text + d->length, sizeof d->text - d->length, "%c%s=%s", separator, key, value);
    if (wrote < 0 || (size_t)wrote >= sizeof d->text - d->length)
        return brci_fail(err, BRC_LIMIT, 0, "its config is too long");
    d->length += (size_t)wrote;
    return BRC_OK;
}

/* A JSON number or string as the value of a key. */
static brc_status add_json(draft *d, const char *key, const json_t *value, brc_error *err) {
    char number[64];
    if (json_is_string(value)) return add(d, key, json_string_value(value), err);
    if (json_is_integer(value)) snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value)) snprintf(number, sizeof number, "%.9g", json_real_value(value));
    else return brci_fail(err, BRC_MALFORMED, 0, "its config: %s is neither a number nor a string", key);
    return add(d, key, number, err);
}

static int is_key(const char *name) {
    const char *key;
    for (size_t i = 0; (key = brc_recipe_key_get(i, NULL)) != NULL; i++)
        if (strcmp(key, name) == 0) return 1;
    return 0;
}

/* Version 2: every field is a key of the recipe, but "row", which the text begins with, "epsilon", which is set as the
 * number it is: text would depend on the locale, and "layout", the recipe's own name for its block where the tensor has
 * the other. */
static brc_status add_fields(draft *d, const json_t *fields, brc_error *err) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)fields, name, value) {
        if (strcmp(name, "row") == 0 || strcmp(name, "epsilon") == 0 || strcmp(name, "layout") == 0) continue;
        if (!is_key(name))
            return brci_fail(err, BRC_UNSUPPORTED, 0, "its config has the recipe field '%.40s', unknown here", name);
        TRY(add_json(d, name, value, err));
    }
    return BRC_OK;
}

/* The Python package 0.1: its field -> a key; NULL = said by the layout, or handled in add_old_fields. */
static const struct {
    const char *field, *key;
} old_fields[] = {
    {"fp8_format", "format"}, {"fp4_format", "format"},  {"amax_history_len", "length"},
    {"margin", "margin"},     {"scale_format", "scale"}, {"scale_dtype", "scale"},
    {"block_k", NULL},        {"block_size", NULL},      {"group_size", NULL},
    {"signed", NULL},         {"symmetric", NULL},
};

static brc_status add_old_fields(draft *d, const char *recipe, const json_t *fields, brc_error *err) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)fields, name, value) {
        size_t i = 0;
        while (i < sizeof old_fields / sizeof *old_fields && strcmp(old_fields[i].field, name) != 0) i++;
        if (i == sizeof old_fields / sizeof *old_fields)
            return brci_fail(err, BRC_UNSUPPORTED, 0, "its config has the recipe field '%.40s', unknown here", name);
        if (old_fields[i].key != NULL) TRY(add_json(d, old_fields[i].key, value, err));
    }
    if (strcmp(recipe, "nvfp4") == 0) TRY(add(d, "levels", "1", err));
    if (json_is_false(json_object_get(fields, "signed"))) TRY(add(d, "format", "uint4", err));
    if (json_is_false(json_object_get(fields, "symmetric"))) TRY(add(d, "rule", "minmax", err));
    return BRC_OK;
}

static brc_status read_side(const json_t *fields, const char *name, uint32_t *side, brc_error *err) {
    const json_t *value = json_object_get(fields, name);
    if (!json_is_integer(value) || json_integer_value(value) < 1 || json_integer_value(value) > INT32_MAX)
        return brci_fail(err, BRC_MALFORMED, 0, "its config: the layout's %s is missing or no positive number", name);
    *side = (uint32_t)json_integer_value(value);
    return BRC_OK;
}

/* The layout's block: the sides that its row leaves free come from the fields. */
static brc_status read_layout(const json_t *root, brc_recipe *recipe, brc_error *err) {
    const json_t *object = json_object_get(root, "layout"), *fields = json_object_get(object, "fields");
    const char *name = json_string_value(json_object_get(object, "name"));
    brc_layout layout = name == NULL ? BRC_LAYOUT_COUNT : brc_layout_find(name);
    const brc_layout_info *row = brc_layout_get(layout);
    if (row == NULL)
        return brci_fail(err, BRC_UNSUPPORTED, 0, "its config names the layout '%.40s', unknown here",
                         name == NULL ? "" : name);
    recipe->layout = (uint8_t)layout;
    recipe->block = row->block;
    if (row->block.rows == BRC_FREE) {
        TRY(read_side(fields, "block_m", &recipe->block.rows, err));
        TRY(read_side(fields, "block_n", &recipe->block.cols, err));
    } else if (row->block.cols == BRC_FREE) {
        TRY(read_side(fields, "block_size", &recipe->block.cols, err));
    } else if (json_is_true(json_object_get(fields, "expert"))) {
        recipe->block.batch = 1;
    }
    return BRC_OK;
}

/* The first row with this file name that has the layout, else the first at all; NULL if there is none. */
static const brc_recipe_info *row_of(const char *file_name, brc_layout layout) {
    const brc_recipe_info *first = NULL;
    for (unsigned i = 0; i < BRC_RECIPE_COUNT; i++) {
        const brc_recipe_info *row = brc_recipe_get((brc_recipe_id)i);
        if (strcmp(row->file_name, file_name) != 0) continue;
        if (row->recipe.layout == layout) return row;
        if (first == NULL) first = row;
    }
    return first;
}

/* What a recipe is called in files. */
static const char *file_name(const brc_recipe *recipe) {
    const brc_recipe_info *row = brc_recipe_get((brc_recipe_id)recipe->id);
    return row != NULL ? row->file_name : recipe->id == BRC_RECIPE_UNKNOWN ? "stored" : "custom";
}

static brc_status read_recipe(const json_t *root, brci_breccia_config *config, brc_error *err) {
    const json_t *object = json_object_get(root, "recipe"), *fields = json_object_get(object, "fields");
    const char *name = json_string_value(json_object_get(object, "name"));
    const char *row_name = json_string_value(json_object_get(fields, "row"));
    draft d = {.length = 0};
    brc_recipe layout = {0};
    if (name == NULL || !json_is_object(fields))
        return brci_fail(err, BRC_MALFORMED, 0, "its config has no recipe name and fields");
    TRY(read_layout(root, &layout, err));
    if (row_name == NULL) {
        const brc_recipe_info *first = row_of(name, (brc_layout)layout.layout);
        row_name = first == NULL ? name : first->name;
    }
    int wrote = snprintf(d.text, sizeof d.text, "%.40s", row_name);
    d.length = wrote < 0 ? 0 : (size_t)wrote;
    if (strpbrk(d.text, ":,=") != NULL) return brci_fail(err, BRC_MALFORMED, 0, "its config has a strange recipe name");
    TRY(config->version == 1 ? add_old_fields(&d, name, fields, err) : add_fields(&d, fields, err));
    if (layout.layout == BRC_PER_TENSOR) TRY(add(&d, "block", layout.block.batch == 1 ? "expert" : "tensor", err));
    TRY(brc_recipe_parse(d.text, &config->recipe, err));
    if (strcmp(name, file_name(&config->recipe)) != 0)
        return brci_fail(err, BRC_MALFORMED, 0, "its config contradicts itself: the recipe %.40s has no row %.40s",
                         name, row_name);
    const json_t *own = json_object_get(fields, "layout");
    const char *own_name = json_is_string(own) ? json_string_value(own) : "";
    config->layout = (brc_layout)layout.layout;
    config->recipe.layout = (uint8_t)(own == NULL ? config->layout : brc_layout_find(own_name));
    config->recipe.block = layout.block;
    config->recipe.epsilon = (float)json_number_value(json_object_get(fields, "epsilon"));
    return brc_recipe_check(&config->recipe, err);
}

static brc_status read_shape(const json_t *shape, brci_breccia_config *config, brc_error *err) {
    size_t rank = json_array_size(shape);
    if (!json_is_array(shape) || rank < 1 || rank > BRC_MAX_RANK)
        return brci_fail(err, BRC_MALFORMED, 0, "its config needs a shape of 1 to %d dimensions", BRC_MAX_RANK);
    config->rank = (int)rank;
    for (size_t i = 0; i < rank; i++) {
        const json_t *n = json_array_get(shape, i);
        if (!json_is_integer(n) || json_integer_value(n) < 0)
            return brci_fail(err, BRC_MALFORMED, 0, "its config has a shape with something that is no dimension");
        config->shape[i] = json_integer_value(n);
    }
    return BRC_OK;
}

static brc_status read_root(const json_t *root, brci_breccia_config *config, brc_error *err) {
    static const char *const members[] = {"version", "recipe", "layout", "shape"};
    const json_t *version = json_object_get(root, "version");
    const char *name;
    json_t *value;
    *config = (brci_breccia_config){.version = version == NULL ? 1 : 2};
    if (version != NULL && json_integer_value(version) != 2)
        return brci_fail(err, BRC_UNSUPPORTED, 0,
                         "its config is of a version that this breccia does not know (2 is the newest)");
    json_object_foreach((json_t *)root, name, value) {
        size_t i = 0;
        while (i < 4 && strcmp(members[i], name) != 0) i++;
        if (i == 4) return brci_fail(err, BRC_UNSUPPORTED, 0, "its config has the member '%.40s', unknown here", name);
    }
    TRY(read_recipe(root, config, err));
    return config->version == 2 ? read_shape(json_object_get(root, "shape"), config, err) : BRC_OK;
}

brc_status brci_breccia_config_read(const char *text, brci_breccia_config *config, brc_error *err) {
    json_error_t where;
    size_t length = strlen(text);
    if (length > TEXT_LIMIT) return brci_fail(err, BRC_LIMIT, 0, "its config is longer than %zu bytes", TEXT_LIMIT);
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &where);
    if (root == NULL) return brci_fail(err, BRC_MALFORMED, 0, "its config is not valid JSON (%.80s)", where.text);
    brc_status status = json_is_object(root) ? read_root(root, config, err)
                                             : brci_fail(err, BRC_MALFORMED, 0, "its config is not a JSON object");
    json_decref(root);
    return status;
}

/* ------------------------------------------------------------------------------------------------- writing */

/* Of stored numbers only what their tables mean is known: the pairs of the recipe's text, less those of the layout. */
static json_t *stored_fields(const brc_recipe *r) {
    json_t *fields = json_pack("{s:s}", "row", "stored");
    char text[RECIPE_ROOM];
    brc_recipe_text(r, text, sizeof text);
    for (char *end = text + strcspn(text, ":"); *end != '\0';) {
        char *key = end + 1, *value;
        end = key + strcspn(key, ",");
        const char separator = *end;
        *end = '\0';
        value = strchr(key, '=');
        *value++ = '\0';
        if (strcmp(key, "block") != 0 && strcmp(key, "group") != 0)
            json_object_set_new(fields, key, json_string(value));
        *end = separator;
    }
    return fields;
}

static json_t *fields_of(const brc_recipe *r, brc_layout layout) {
    const brc_recipe_info *info = brc_recipe_get((brc_recipe_id)r->id);
    const char *row = info == NULL ? "custom" : info->name;
    if (r->id == BRC_RECIPE_UNKNOWN) return stored_fields(r);
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:s, s:I, s:f, s:s*}", "row", row, "format",
                     brc_format_get((brc_format)r->element)->name, "scale", brc_format_get((brc_format)r->scale)->name,
                     "rule", brc_rule_name((brc_rule)r->rule), "arith", brc_arith_name((brc_arith)r->arith), "levels",
                     (int)r->levels, "pow2", (int)r->pow2, "partial", (int)r->partial, "margin", (int)r->margin,
                     "history", r->history == BRC_HISTORY_MOST_RECENT ? "most_recent" : "max", "length",
                     (json_int_t)r->history_length, "epsilon", (double)r->epsilon, "layout",
                     r->layout == layout ? NULL : brc_layout_get((brc_layout)r->layout)->name);
}

/* The sides that the layout's row leaves free. */
static json_t *sides_of(const brc_recipe *r, brc_layout layout) {
    const brc_block free_sides = brc_layout_get(layout)->block;
    if (free_sides.rows == BRC_FREE)
        return json_pack("{s:I, s:I}", "block_m", (json_int_t)r->block.rows, "block_n", (json_int_t)r->block.cols);
    if (free_sides.cols == BRC_FREE) return json_pack("{s:I}", "block_size", (json_int_t)r->block.cols);
    return r->block.batch != free_sides.batch ? json_pack("{s:b}", "expert", 1) : json_object();
}

const char *brci_breccia_config_write(brci_pool *pool, const brc_recipe *r, brc_layout layout, int rank,
                                      const int64_t *shape) {
    json_t *dimensions = json_array(), *root;
    const char *made;
    char *text;
    for (int i = 0; i < rank; i++) json_array_append_new(dimensions, json_integer(shape[i]));
    root = json_pack("{s:i, s:{s:s, s:o}, s:{s:s, s:o}, s:o}", "version", 2, "recipe", "name", file_name(r), "fields",
                     fields_of(r, layout), "layout", "name", brc_layout_get(layout)->name, "fields",
                     sides_of(r, layout), "shape", dimensions);
    text = root == NULL ? NULL : json_dumps(root, JSON_COMPACT);
    made = text == NULL ? NULL : brci_pool_copy(pool, text, strlen(text));
    free(text);
    json_decref(root);
    return made;
}
