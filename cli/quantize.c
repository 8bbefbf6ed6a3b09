/* SPDX-License-Identifier: Apache-2.0
 * breccia quantize */
#include "destination.h"
#include "options.h"
#include "outcome.h"
#include "print.h"
#include "source.h"

#include <stdlib.h>
#include <string.h>

/* Everything the command line says, before a file is opened: a typing error must not cost a minute. */
static int read_options(const struct invocation *in, brc_recipe *recipe, brc_quantize_options *options) {
    brc_error err;
    int64_t threads;
    if (brc_recipe_parse(option_value(in, OPTION_RECIPE), recipe, &err) != BRC_OK) {
        const char *hint =
            strstr(err.text, "`breccia recipes`") == NULL ? "; `breccia recipes` lists recipes and keys" : "";
        complain("quantize: --recipe: %s%s", err.text, hint);
        return EXIT_USAGE;
    }
    const int code = option_integer(in, OPTION_THREADS, 1, 0, &threads);
    if (code != 0) return code;
    const char *dialect = option_value(in, OPTION_DIALECT), *nonfinite = option_value(in, OPTION_NONFINITE);
    options->recipe = recipe;
    options->threads = (uint32_t)threads;
    options->dialect = dialect != NULL ? brc_dialect_find(dialect) : BRC_DIALECT_PLAIN;
    options->saturate_nonfinite = nonfinite != NULL && strcmp(nonfinite, "saturate") == 0;
    options->overwrite = option_value(in, OPTION_FORCE) != NULL;
    options->progress = progress_step;
    options->outcome = outcomes_add;
    options->left = outcomes_left;
    options->include = option_values(in, OPTION_INCLUDE, &options->n_include);
    options->exclude = option_values(in, OPTION_EXCLUDE, &options->n_exclude);
    if (options->include != NULL && options->exclude != NULL) return 0;
    complain("out of memory");
    return EXIT_IO;
}

static int quantize(const struct invocation *in, const brc_checkpoint *source, brc_quantize_options *options) {
    const char *destination = option_value(in, OPTION_OUTPUT);
    struct outcomes outcomes;
    brc_error err;
    int code = 0;
    outcomes_begin(&outcomes, "quantize", "quantized", "kept", option_value(in, OPTION_VERBOSE) != NULL);
    options->user = &outcomes;
    const brc_status status = brc_quantize_checkpoint(source, destination, options, &err);
    progress_end(&outcomes.progress);
    if (status == BRC_OK) {
        code = outcomes_finish(&outcomes, source, in->operands[0], destination);
        source_warn_unmatched(source, options->exclude, options->n_exclude, "exclude");
        if (outcomes.kinds[0].tensors == 0)
            complain("warning: %s: no tensor was quantized; `breccia quantize -v` says why for each", destination);
    } else {
        code = outcomes_failed(source, in->operands[0], destination, (int)options->overwrite, &err);
    }
    outcomes_free(&outcomes);
    return code;
}

int command_quantize(const struct invocation *in) {
    brc_quantize_options options = {.size = sizeof options};
    brc_recipe recipe;
    brc_checkpoint *source = NULL;
    int code = read_options(in, &recipe, &options);
    if (code == 0) code = destination_check(in);
    if (code == 0) code = source_open(in->operands[0], option_value(in, OPTION_FROM), &source);
    if (code == 0) code = quantize(in, source, &options);
    brc_checkpoint_close(source);
    free((void *)options.include);
    free((void *)options.exclude);
    return code;
}
