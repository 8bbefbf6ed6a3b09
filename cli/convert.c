/* SPDX-License-Identifier: Apache-2.0
 * breccia convert */
#include "destination.h"
#include "json.h"
#include "options.h"
#include "outcome.h"
#include "print.h"
#include "source.h"
#include "target.h"

#include <stdlib.h>
#include <string.h>

static json_t *json_row(const struct outcome_row *row) {
    return json_pack("{s:o,s:b,s:s,s:o,s:o,s:o,s:I,s:I,s:I}", "name", json_text(row->name), "quantized", row->quantized,
                     "class", brc_exactness_name(row->exactness), "sqnr_db", json_number(row->sqnr), "from",
                     json_text(row->from), "to", json_text(row->to), "elements", (json_int_t)row->elements,
                     "bytes_before", (json_int_t)row->before, "bytes_after", (json_int_t)row->after);
}

static int print_json(const struct invocation *in, const struct outcomes *c, int dry) {
    struct json_out out = {0};
    struct outcome_kind total = {.what = ""};
    json_open(&out, NULL, '{');
    json_put(&out, "source", json_text(in->operands[0]));
    json_put(&out, "destination", json_text(option_value(in, OPTION_OUTPUT)));
    json_put(&out, "to", json_text(option_value(in, OPTION_TO)));
    json_put(&out, "dry_run", json_boolean(dry));
    json_open(&out, "tensors", '[');
    for (size_t i = 0; i < c->n_rows; i++) {
        const struct outcome_row *row = &c->rows[i];
        json_item(&out, json_row(row));
        total.elements += row->elements;
        total.before += row->before;
        total.after += row->after;
    }
    json_close(&out);
    json_open(&out, "warnings", '[');
    for (size_t i = 0; i < c->n_warnings; i++)
        json_item(&out, json_pack("{s:o,s:I,s:o,s:o}", "what", json_text(c->warnings[i].what), "tensors",
                                  (json_int_t)c->warnings[i].n, "first", json_text(c->warnings[i].first), "text",
                                  json_text(c->warnings[i].text)));
    json_close(&out);
    json_put(&out, "left", json_text(c->left));
    json_put(&out, "totals",
             json_pack("{s:I,s:I,s:I,s:I}", "tensors", (json_int_t)c->n_rows, "elements", (json_int_t)total.elements,
                       "bytes_before", (json_int_t)total.before, "bytes_after", (json_int_t)total.after));
    return json_close(&out);
}

/* A recipe that changed nothing, or a dialect in which nothing is stored, is most likely not what was meant. */
static void warn_idle(const struct outcomes *c, const struct target *target, const char *path) {
    for (size_t i = 0; i < c->n_rows; i++)
        if (c->rows[i].quantized || strcmp(c->rows[i].from, c->rows[i].to) != 0) return;
    complain("warning: %s: no tensor is quantized, so there is nothing to convert%s", path,
             target->dialect == BRC_DIALECT_PLAIN ? "" : "; `breccia quantize --dialect` quantizes");
}

static uint32_t required_class(const struct invocation *in) {
    const char *word = option_value(in, OPTION_REQUIRE);
    if (word == NULL) return 0;
    return 1 + (strcmp(word, "bit-exact") == 0 ? BRC_BIT_EXACT
                : strcmp(word, "one-ulp") == 0 ? BRC_ONE_ULP
                                               : BRC_VALUE_EXACT);
}

static int convert(const struct invocation *in, const brc_checkpoint *source, const struct target *target,
                   brc_convert_options *options) {
    const char *destination = option_value(in, OPTION_OUTPUT), *path = in->operands[0];
    const int json = option_value(in, OPTION_JSON) != NULL;
    struct outcomes c;
    brc_error err;
    int code;
    outcomes_begin(&c, "convert", NULL, NULL, 1);
    options->user = &c;
    const brc_status status = brc_convert_checkpoint(source, destination, options, &err);
    progress_end(&c.progress);
    if (status == BRC_OK) {
        code = outcomes_trusted(source, destination);
        c.each = options->dry_run || option_value(in, OPTION_VERBOSE) != NULL;
        if (code == 0 && !json) outcomes_print(&c);
        if (code == 0) outcomes_warn(&c, path);
        if (code == 0) warn_idle(&c, target, path);
        if (code == 0 && json) code = print_json(in, &c, (int)options->dry_run);
    } else {
        code = outcomes_failed(source, path, destination, (int)options->overwrite, &err);
    }
    outcomes_free(&c);
    return code;
}

int command_convert(const struct invocation *in) {
    struct target target;
    brc_checkpoint *source = NULL;
    int64_t threads = 0;
    const char *scales = option_value(in, OPTION_BAD_SCALES);
    int code = target_read(in, &target);
    if (code == 0) code = option_integer(in, OPTION_THREADS, 1, 0, &threads);
    if (code == 0) code = destination_check(in);
    brc_convert_options options = {.size = sizeof options,
                                   .threads = (uint32_t)threads,
                                   .dialect = target.dialect,
                                   .format = target.format,
                                   .recipes = target.recipes,
                                   .n_recipes = target.n_recipes,
                                   .overwrite = option_value(in, OPTION_FORCE) != NULL,
                                   .dry_run = option_value(in, OPTION_DRY_RUN) != NULL,
                                   .require = required_class(in),
                                   .keep_nonfinite = scales != NULL && strcmp(scales, "keep") == 0,
                                   .progress = progress_step,
                                   .outcome = outcomes_add,
                                   .left = outcomes_left,
                                   .warn = outcomes_warning};
    options.include = option_values(in, OPTION_INCLUDE, &options.n_include);
    options.exclude = option_values(in, OPTION_EXCLUDE, &options.n_exclude);
    if (code == 0 && (options.include == NULL || options.exclude == NULL)) complain("out of memory"), code = EXIT_IO;
    if (code == 0) code = source_open(in->operands[0], option_value(in, OPTION_FROM), &source);
    if (code == 0) source_warn_unmatched(source, options.include, options.n_include, "include");
    if (code == 0) source_warn_unmatched(source, options.exclude, options.n_exclude, "exclude");
    if (code == 0) code = convert(in, source, &target, &options);
    brc_checkpoint_close(source);
    free((void *)options.include);
    free((void *)options.exclude);
    return code;
}
