/* SPDX-License-Identifier: Apache-2.0
 * Counts what became of the tensors. */
#include "outcome.h"

#include "destination.h"
#include "print.h"
#include "source.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void outcomes_begin(struct outcomes *outcomes, const char *verb, const char *done, const char *kept, int each) {
    *outcomes = (struct outcomes){.each = each, .done = done, .kept = kept, .classes = done == NULL};
    if (done != NULL) snprintf(outcomes->kinds[outcomes->n_kinds++].what, sizeof outcomes->kinds[0].what, "%s", done);
    progress_begin(&outcomes->progress, verb);
}

/* The kind of an outcome, new if it is the first; beyond the table's end all share the last. */
static size_t kind_of(struct outcomes *outcomes, const char *what) {
    size_t i = 0;
    while (i < outcomes->n_kinds && strcmp(outcomes->kinds[i].what, what) != 0) i++;
    if (i == OUTCOME_KINDS) return OUTCOME_KINDS - 1;
    if (i == outcomes->n_kinds) {
        snprintf(outcomes->kinds[i].what, sizeof outcomes->kinds[i].what, "%s",
                 i + 1 < OUTCOME_KINDS ? what : "other reasons");
        outcomes->n_kinds++;
    }
    return i;
}

/* "kept: norm", or of convert "value-exact: mxfp4 -> mxfp8" */
static void describe(const struct outcomes *outcomes, const brc_outcome *o, char *text, size_t size) {
    if (outcomes->classes) {
        const char *class = brc_exactness_name(o->exactness);
        if (o->why != NULL) snprintf(text, size, "%s: %s", class, o->why);
        else if (strcmp(o->from, o->to) == 0) snprintf(text, size, "%s: %s", class, o->to);
        else snprintf(text, size, "%s: %s -> %s", class, o->from, o->to);
        return;
    }
    const int reason = !o->quantized && o->why != NULL && o->why[0] != '\0';
    snprintf(text, size, "%s%s%s", o->quantized ? outcomes->done : outcomes->kept, reason ? ": " : "",
             reason ? o->why : "");
}

/* Room for one more row, or NULL. */
static struct outcome_row *new_row(struct outcomes *outcomes) {
    if (outcomes->n_rows == outcomes->room) {
        const size_t room = outcomes->room != 0 ? 2 * outcomes->room : 64;
        struct outcome_row *rows = realloc(outcomes->rows, room * sizeof *rows);
        if (rows == NULL) return NULL;
        outcomes->rows = rows;
        outcomes->room = room;
    }
    return &outcomes->rows[outcomes->n_rows++];
}

void outcomes_add(void *user, const brc_outcome *outcome) {
    struct outcomes *outcomes = user;
    char what[sizeof outcomes->kinds[0].what];
    describe(outcomes, outcome, what, sizeof what);
    const size_t number = kind_of(outcomes, what);
    struct outcome_kind *kind = &outcomes->kinds[number];
    if (kind->tensors == 0 || outcome->sqnr < kind->sqnr) kind->sqnr = outcome->sqnr;
    kind->tensors++;
    kind->elements += outcome->elements;
    kind->before += outcome->bytes_before;
    kind->after += outcome->bytes_after;
    if (!outcomes->each) return;
    struct outcome_row *row = new_row(outcomes);
    if (row == NULL) {
        outcomes->failed = 1;
        return;
    }
    *row = (struct outcome_row){.name = strdup(outcome->name),
                                .from = outcomes->classes ? strdup(outcome->from) : NULL,
                                .to = outcomes->classes ? strdup(outcome->to) : NULL,
                                .kind = number,
                                .elements = outcome->elements,
                                .before = outcome->bytes_before,
                                .after = outcome->bytes_after,
                                .quantized = outcome->quantized,
                                .exactness = outcome->exactness,
                                .sqnr = outcome->sqnr};
    if (row->name == NULL || (outcomes->classes && (row->from == NULL || row->to == NULL))) outcomes->failed = 1;
}

void outcomes_left(void *user, const char *name, const char *why) {
    struct outcomes *outcomes = user;
    const size_t used = strlen(outcomes->left), room = sizeof outcomes->left - used;
    const int wanted = snprintf(outcomes->left + used, room, "%s%s (%s)", used == 0 ? "" : ", ", name, why);
    outcomes->n_left++;
    if (wanted >= 0 && (size_t)wanted < room) outcomes->n_named++;
    else outcomes->left[used] = '\0';
}

void outcomes_warning(void *user, const char *tensor, const char *what, const char *text) {
    struct outcomes *outcomes = user;
    size_t i = 0;
    while (i < outcomes->n_warnings && strcmp(outcomes->warnings[i].what, what) != 0) i++;
    if (i == WARNING_KINDS) i--; /* more kinds than there are roles */
    if (i == outcomes->n_warnings) {
        struct outcome_warning *w = &outcomes->warnings[outcomes->n_warnings++];
        snprintf(w->what, sizeof w->what, "%s", what);
        snprintf(w->first, sizeof w->first, "%s", tensor);
        snprintf(w->text, sizeof w->text, "%s", text);
    }
    outcomes->warnings[i].n++;
}

static const char *bits(struct cell *cell, int64_t bytes, int64_t elements) {
    return elements > 0 ? cell_print(cell, "%.3f", 8.0 * (double)bytes / (double)elements) : "-";
}

static const char *decibels(struct cell *cell, double sqnr) {
    return isinf(sqnr) && sqnr > 0 ? "-" : cell_print(cell, "%.2f", sqnr);
}

/* The column of ratios comes last, so that a table without classes is one without it. */
enum { RATIO = 1 };

static void kind_row(struct table *table, const struct outcome_kind *kind, int total) {
    struct cell c[6];
    table_row(table,
              (const char *[]){kind->what, cell_print(&c[0], "%lld", (long long)kind->tensors),
                               cell_print(&c[1], "%lld", (long long)kind->elements),
                               cell_print(&c[2], "%lld", (long long)kind->before),
                               cell_print(&c[3], "%lld", (long long)kind->after),
                               bits(&c[4], kind->after, kind->elements), total ? "" : decibels(&c[5], kind->sqnr)});
}

static void print_each(const struct outcomes *outcomes) {
    static const struct column columns[] = {{"tensor", 0},      {"", 0},     {"numbers", 1}, {"bytes before", 1},
                                            {"bytes after", 1}, {"bits", 1}, {"SQNR dB", 1}};
    const size_t n = sizeof columns / sizeof *columns - (outcomes->classes ? 0 : RATIO);
    struct table table;
    for (table_begin(&table, columns, n); table_pass(&table);) {
        for (size_t i = 0; i < outcomes->n_rows; i++) {
            const struct outcome_row *row = &outcomes->rows[i];
            struct cell c[5];
            table_row(&table, (const char *[]){row->name, outcomes->kinds[row->kind].what,
                                               cell_print(&c[0], "%lld", (long long)row->elements),
                                               cell_print(&c[1], "%lld", (long long)row->before),
                                               cell_print(&c[2], "%lld", (long long)row->after),
                                               bits(&c[3], row->after, row->elements), decibels(&c[4], row->sqnr)});
        }
    }
    putchar('\n');
}

void outcomes_print(struct outcomes *outcomes) {
    static const struct column columns[] = {
        {"", 0},     {"tensors", 1},      {"numbers", 1}, {"bytes before", 1}, {"bytes after", 1},
        {"bits", 1}, {"least SQNR dB", 1}};
    const size_t n = sizeof columns / sizeof *columns - (outcomes->classes ? 0 : RATIO);
    struct outcome_kind total = {.what = "total"};
    struct table table;
    if (outcomes->each) print_each(outcomes);
    if (outcomes->failed) complain("warning: out of memory; the list of tensors is incomplete");
    for (size_t i = 0; i < outcomes->n_kinds; i++) {
        total.tensors += outcomes->kinds[i].tensors;
        total.elements += outcomes->kinds[i].elements;
        total.before += outcomes->kinds[i].before;
        total.after += outcomes->kinds[i].after;
    }
    for (table_begin(&table, columns, n); table_pass(&table);) {
        for (size_t i = 0; i < outcomes->n_kinds; i++) kind_row(&table, &outcomes->kinds[i], 0);
        kind_row(&table, &total, 1);
    }
}

int outcomes_trusted(const brc_checkpoint *source, const char *destination) {
    const char *shortened = source_shortened(source);
    if (shortened == NULL) return 0;
    complain("%s: became shorter while it was read; %s is not to be trusted", shortened, destination);
    return EXIT_IO;
}

void outcomes_warn(const struct outcomes *outcomes, const char *path) {
    const size_t more = outcomes->n_left - outcomes->n_named;
    struct cell rest;
    for (size_t i = 0; i < outcomes->n_warnings; i++) {
        const struct outcome_warning *w = &outcomes->warnings[i];
        complain("warning: %s: %s: %s%s", path, w->first, w->text,
                 w->n > 1 ? cell_print(&rest, " (and so of %zu more tensors)", w->n - 1) : "");
    }
    if (outcomes->n_left > 0)
        complain("warning: %s: not copied: %s%s", path, outcomes->left,
                 more > 0 ? cell_print(&rest, " and %zu more", more) : "");
}

int outcomes_finish(struct outcomes *outcomes, const brc_checkpoint *source, const char *path,
                    const char *destination) {
    const int code = outcomes_trusted(source, destination);
    if (code != 0) return code;
    outcomes_print(outcomes);
    outcomes_warn(outcomes, path);
    return 0;
}

/* The option that helps, by what the library says. */
static const struct advice {
    brc_status status;
    const char *says, *hint;
    int exit; /* 0 = the status's own */
} advices[] = {
    {BRC_EXISTS, "", "; --force replaces it", 0},
    {BRC_NONFINITE, "values are lost", "; --bad-scales=keep uses them as they are", 0},
    {BRC_NONFINITE, "", "; --nonfinite=saturate allows it", 0},
    {BRC_NOT_FOUND, "to be included", "; --include gives globs, `breccia inspect` lists the names", EXIT_USAGE},
    {BRC_ARGUMENT, "two arrays", "; --exclude the weight that takes it", EXIT_UNSUPPORTED},
};

static const struct advice *advice_for(const char *destination, int forced, const brc_error *err) {
    static const struct advice none = {BRC_OK, "", "", 0};
    /* --force is of no use where it was given, or where a file stands for a folder or a folder for a file. */
    if (err->status == BRC_EXISTS && (forced || !destination_replaceable(destination))) return &none;
    for (size_t i = 0; i < sizeof advices / sizeof *advices; i++)
        if (advices[i].status == err->status && strstr(err->text, advices[i].says) != NULL) return &advices[i];
    return &none;
}

int outcomes_failed(const brc_checkpoint *source, const char *path, const char *destination, int forced,
                    const brc_error *err) {
    const char *shortened = source_shortened(source);
    if (shortened != NULL) {
        complain("%s: became shorter while it was read; nothing was written to %s", shortened, destination);
        return EXIT_IO;
    }
    const struct advice *advice = advice_for(destination, forced, err);
    const char *rest = NULL, *file = source_mentioned(source, err, &rest);
    /* The writer names what it could not write; all other errors are about a tensor of the source. */
    const int named = err->status == BRC_IO || err->status == BRC_EXISTS || error_mentions(err, destination) ||
                      error_mentions(err, path);
    if (file != NULL) complain("%s%s%s", file, rest, advice->hint);
    else complain("%s%s%s%s", named ? "" : path, named ? "" : ": ", err->text, advice->hint);
    return advice->exit != 0 ? advice->exit : brc_status_exit(err->status);
}

void outcomes_free(struct outcomes *outcomes) {
    for (size_t i = 0; i < outcomes->n_rows; i++) {
        free(outcomes->rows[i].name);
        free(outcomes->rows[i].from);
        free(outcomes->rows[i].to);
    }
    free(outcomes->rows);
}
