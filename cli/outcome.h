/* SPDX-License-Identifier: Apache-2.0
 * What a command that writes did with each tensor: collected while it runs, printed when all is done. */
#ifndef CLI_OUTCOME_H
#define CLI_OUTCOME_H

#include "breccia/breccia_file.h"
#include "progress.h"

#include <stddef.h>

enum { OUTCOME_KINDS = 32 };
struct outcome_kind {
    char what[64]; /* "quantized", or "kept: " and why */
    int64_t tensors, elements, before, after;
};

/* The user pointer of a conversion: progress first, since both callbacks get the same. */
struct outcomes {
    struct progress progress;
    int each; /* 1 = keep one row for each tensor */
    struct outcome_kind kinds[OUTCOME_KINDS];
    size_t n_kinds;
    struct outcome_row {
        char *name;
        size_t kind;
        int64_t elements, before, after;
    } * rows;
    size_t n_rows, room;
    char left[400]; /* what does not go along, as text; names that do not fit are only counted */
    size_t n_left, n_named;
    int failed;              /* out of memory: the list is incomplete */
    const char *done, *kept; /* words for what was converted and what was not */
};

void outcomes_begin(struct outcomes *outcomes, const char *verb, const char *done, const char *kept, int each);
/* The callback of brc_quantize_options and brc_dequantize_options. */
void outcomes_add(void *user, const brc_outcome *outcome);
/* The callback for what lies beside the weights and does not go along. */
void outcomes_left(void *user, const char *name, const char *why);
/* A conversion that came through: prints the tables, and warns of what did not go along. An exit code: the source may
 * have become shorter just where no page was missing. */
int outcomes_finish(struct outcomes *outcomes, const brc_checkpoint *source, const char *path, const char *destination);
/* Reports that the conversion of what was opened by `path` failed, with the option that helps where there is one
 * (`forced`:
 * --force was given); gives the exit code. */
int outcomes_failed(const brc_checkpoint *source, const char *path, const char *destination, int forced,
                    const brc_error *err);
void outcomes_free(struct outcomes *outcomes);

#endif
