/* SPDX-License-Identifier: Apache-2.0
 * What a command that writes did with each tensor: collected while it runs, printed when all is done. */
#ifndef CLI_OUTCOME_H
#define CLI_OUTCOME_H

#include "breccia/breccia_file.h"
#include "progress.h"

#include <stddef.h>

enum { OUTCOME_KINDS = 32 };
struct outcome_kind {
    char what[160]; /* "quantized", or "kept: " and why; of convert "value-exact: mxfp4 -> mxfp8" */
    int64_t tensors, elements, before, after;
    double sqnr; /* the least */
};

/* Warnings of one kind: the first is told in full, the others are counted. */
enum { WARNING_KINDS = 16 };
struct outcome_warning {
    char what[32], first[200], text[240];
    size_t n;
};

/* The user pointer of a conversion: progress first, since both callbacks get the same. */
struct outcomes {
    struct progress progress;
    int each;    /* 1 = keep one row for each tensor */
    int classes; /* 1 = tensors are told apart by what happened to their values */
    struct outcome_kind kinds[OUTCOME_KINDS];
    size_t n_kinds;
    struct outcome_row {
        char *name, *from, *to; /* recipes or number types; NULL unless `classes` */
        size_t kind;
        int64_t elements, before, after;
        int quantized;
        brc_exactness exactness;
        double sqnr;
    } * rows;
    size_t n_rows, room;
    char left[400]; /* what does not go along, as text; names that do not fit are only counted */
    size_t n_left, n_named;
    struct outcome_warning warnings[WARNING_KINDS];
    size_t n_warnings;
    int failed;              /* out of memory: the list is incomplete */
    const char *done, *kept; /* words for what was converted and what was not */
};

/* `done` and `kept` are the words for the two ends of a tensor; NULL = the classes of its values are. */
void outcomes_begin(struct outcomes *outcomes, const char *verb, const char *done, const char *kept, int each);
/* The callback of brc_quantize_options and brc_dequantize_options. */
void outcomes_add(void *user, const brc_outcome *outcome);
/* The callback for what lies beside the weights and does not go along. */
void outcomes_left(void *user, const char *name, const char *why);
/* The callback for what a conversion did that a reader should know. */
void outcomes_warning(void *user, const char *tensor, const char *what, const char *text);
/* Whether the source became shorter while it was read, just where no page was missing: 0, or the exit code after a
 * message. */
int outcomes_trusted(const brc_checkpoint *source, const char *destination);
void outcomes_print(struct outcomes *outcomes);
/* The warnings, and what did not go along. */
void outcomes_warn(const struct outcomes *outcomes, const char *path);
/* A conversion that came through: the three in this order. An exit code. */
int outcomes_finish(struct outcomes *outcomes, const brc_checkpoint *source, const char *path, const char *destination);
/* Reports that the conversion of what was opened by `path` failed, with the option that helps where there is one
 * (`forced`:
 * --force was given); gives the exit code. */
int outcomes_failed(const brc_checkpoint *source, const char *path, const char *destination, int forced,
                    const brc_error *err);
void outcomes_free(struct outcomes *outcomes);

#endif
