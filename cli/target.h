/* SPDX-License-Identifier: Apache-2.0
 * What --to says. */
#ifndef CLI_TARGET_H
#define CLI_TARGET_H

#include "breccia/breccia_file.h"
#include "options.h"

enum { TARGET_RECIPES = 16 };
struct target {
    brc_dialect dialect;
    brc_format format; /* of plain numbers */
    brc_recipe recipes[TARGET_RECIPES];
    size_t n_recipes;
};

/* Reads DIALECT[:RECIPE,...] or dense[:TYPE]: 0, or the exit code after a message. */
int target_read(const struct invocation *in, struct target *target);

#endif
