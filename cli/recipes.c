/* SPDX-License-Identifier: Apache-2.0
 * breccia recipes */
#include "breccia/breccia_file.h"
#include "json.h"
#include "options.h"
#include "print.h"

static const char *format_name(uint8_t format) { return brc_format_get((brc_format)format)->name; }

enum { SIDE = 4096 };

/* Bits per weight of a large matrix, scales included; NaN where the recipe's row cannot be planned. */
static double bits_per_weight(const brc_recipe *recipe) {
    const int64_t shape[2] = {SIDE, SIDE};
    brc_tensor tensor;
    brc_sizes sizes;
    if (brc_tensor_plan(recipe, 2, shape, &tensor, &sizes, NULL) != BRC_OK) return 0.0 / 0.0;
    return 8.0 * (double)(sizes.data + sizes.scale + sizes.global + sizes.zero) / ((double)SIDE * SIDE);
}

static int print_json(void) {
    struct json_out out = {0};
    const char *text, *help, *why;
    json_open(&out, NULL, '{');
    json_open(&out, "recipes", '[');
    for (int i = 0; i < BRC_RECIPE_COUNT; i++) {
        const brc_recipe_info *info = brc_recipe_get((brc_recipe_id)i);
        const brc_recipe *r = &info->recipe;
        json_item(&out, json_pack("{s:s,s:s,s:s,s:s,s:s,s:o,s:i,s:s,s:o,s:s,s:s,s:I,s:o}", "name", info->name, "class",
                                  info->class_name, "file_name", info->file_name, "element", format_name(r->element),
                                  "scale", format_name(r->scale), "zero",
                                  r->zero != BRC_NONE ? json_text(format_name(r->zero)) : json_null(), "levels",
                                  r->levels, "layout", brc_layout_get((brc_layout)r->layout)->name, "block",
                                  json_block(r->block), "rule", brc_rule_name((brc_rule)r->rule), "arith",
                                  brc_arith_name((brc_arith)r->arith), "history_length", (json_int_t)r->history_length,
                                  "bits_per_weight", json_number(bits_per_weight(r))));
    }
    json_close(&out);
    json_open(&out, "keys", '[');
    for (size_t i = 0; (text = brc_recipe_key_get(i, &help)) != NULL; i++)
        json_item(&out, json_pack("{s:s,s:s}", "key", text, "help", help));
    json_close(&out);
    json_open(&out, "excludes", '[');
    for (size_t i = 0; (text = brc_exclude_get(i, &why)) != NULL; i++)
        json_item(&out, json_pack("{s:s,s:s}", "glob", text, "why", why));
    json_close(&out);
    return json_close(&out);
}

static void print_excludes(void) {
    static const struct column columns[] = {{"glob", 0}, {"why", 0}};
    struct table table;
    const char *glob, *why;
    for (table_begin(&table, columns, 2); table_pass(&table);)
        for (size_t i = 0; (glob = brc_exclude_get(i, &why)) != NULL; i++)
            table_row(&table, (const char *[]){glob, why});
}

static void print_recipes(void) {
    static const struct column columns[] = {{"recipe", 0}, {"class", 0},  {"element", 0},
                                            {"scale", 0},  {"levels", 1}, {"layout", 0},
                                            {"rule", 0},   {"arith", 0},  {"bits/weight", 1}};
    enum { COLUMNS = sizeof columns / sizeof *columns };
    struct table table;
    for (table_begin(&table, columns, COLUMNS); table_pass(&table);) {
        for (int i = 0; i < BRC_RECIPE_COUNT; i++) {
            const brc_recipe_info *info = brc_recipe_get((brc_recipe_id)i);
            const brc_recipe *r = &info->recipe;
            struct cell c[COLUMNS];
            const char *cells[COLUMNS] = {info->name,
                                          info->class_name,
                                          format_name(r->element),
                                          format_name(r->scale),
                                          cell_print(&c[4], "%d", r->levels),
                                          cell_layout(&c[5], (brc_layout)r->layout, r->block),
                                          brc_rule_name((brc_rule)r->rule),
                                          brc_arith_name((brc_arith)r->arith),
                                          cell_print(&c[8], "%.3f", bits_per_weight(r))};
            table_row(&table, cells);
        }
    }
}

static void print_keys(void) {
    static const struct column columns[] = {{"key", 0}, {"what it sets", 0}};
    struct table table;
    const char *key, *help;
    for (table_begin(&table, columns, 2); table_pass(&table);)
        for (size_t i = 0; (key = brc_recipe_key_get(i, &help)) != NULL; i++)
            table_row(&table, (const char *[]){key, help});
}

int command_recipes(const struct invocation *in) {
    if (option_value(in, OPTION_JSON) != NULL) return print_json();
    if (option_value(in, OPTION_EXCLUDES) != NULL) {
        print_excludes();
        return 0;
    }
    print_recipes();
    putchar('\n');
    print_keys();
    return 0;
}
