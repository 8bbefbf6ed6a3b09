/* SPDX-License-Identifier: Apache-2.0
 * breccia compare */
#include "json.h"
#include "options.h"
#include "print.h"
#include "source.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct missing {
    char *name, *what;
};
struct row {
    brc_difference d; /* with a copy of the name */
    size_t order;
};
struct comparison {
    const brc_checkpoint *a, *b;
    struct row *rows;
    struct missing *missing;
    size_t n, room, n_missing, missing_room;
    int failed;
};

/* Room for one more element of a list; 0 when out of memory. */
static int grow(void **list, size_t n, size_t *room, size_t size) {
    if (n < *room) return 1;
    const size_t wanted = *room != 0 ? 2 * *room : 64;
    void *grown = realloc(*list, wanted * size);
    if (grown == NULL) return 0;
    *list = grown;
    *room = wanted;
    return 1;
}

static void collect_each(void *user, const brc_difference *difference) {
    struct comparison *c = user;
    void *list = c->rows;
    char *name = strdup(difference->name);
    if (name == NULL || !grow(&list, c->n, &c->room, sizeof *c->rows)) {
        free(name);
        c->failed = 1;
        return;
    }
    c->rows = list;
    c->rows[c->n] = (struct row){*difference, c->n};
    c->rows[c->n++].d.name = name;
}

static const char *dtype_of(const brc_entry *entry) {
    const brc_named_array *data = entry != NULL ? entry_part(entry, "data") : NULL;
    return data != NULL ? data->dtype : "-";
}

/* Why a tensor was not compared, and the types where they differ as well. */
static char *explain(const struct comparison *c, const char *name, const char *what) {
    const brc_entry *a = brc_checkpoint_find(c->a, name), *b = brc_checkpoint_find(c->b, name);
    const char *x = dtype_of(a), *y = dtype_of(b);
    char *text = NULL;
    if (a == NULL || b == NULL || strcmp(x, y) == 0) return strdup(what);
    return asprintf(&text, "%s (%s, %s)", what, x, y) >= 0 ? text : NULL;
}

static void collect_missing(void *user, const char *name, const char *what) {
    struct comparison *c = user;
    void *list = c->missing;
    const struct missing row = {strdup(name), explain(c, name, what)};
    if (row.name == NULL || row.what == NULL || !grow(&list, c->n_missing, &c->missing_room, sizeof *c->missing)) {
        free(row.name);
        free(row.what);
        c->failed = 1;
        return;
    }
    c->missing = list;
    c->missing[c->n_missing++] = row;
}

static void comparison_free(struct comparison *c) {
    for (size_t i = 0; i < c->n; i++) free((char *)c->rows[i].d.name);
    for (size_t i = 0; i < c->n_missing; i++) free(c->missing[i].name), free(c->missing[i].what);
    free(c->rows);
    free(c->missing);
}

/* Worst first: numbers that are not finite, then the least ratio; else in the order they came in, which is by name. */
static double badness(const brc_difference *d) { return d->nonfinite > 0 || isnan(d->sqnr) ? -INFINITY : d->sqnr; }

static int worse(const void *a, const void *b) {
    const struct row *x = a, *y = b;
    const double p = badness(&x->d), q = badness(&y->d);
    if (p != q) return p < q ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

/* Not by the noise: the square of a small difference is 0. */
static int is_equal(const brc_difference *d) { return d->max_absolute == 0.0 && d->nonfinite == 0; }

static json_t *json_difference(const brc_difference *d, int named) {
    json_t *object = named ? json_pack("{s:o}", "name", json_text(d->name)) : json_object();
    json_t *numbers = json_pack(
        "{s:I,s:b,s:b,s:o,s:o,s:o,s:o,s:I,s:I,s:I}", "elements", (json_int_t)d->elements, "quantized", d->quantized,
        "equal", is_equal(d), "sqnr_db", json_number(d->sqnr), "cosine", json_number(d->cosine), "max_absolute_error",
        json_number(d->max_absolute), "max_relative_error", json_number(d->max_relative), "saturated",
        (json_int_t)d->saturated, "flushed", (json_int_t)d->flushed, "nonfinite", (json_int_t)d->nonfinite);
    json_object_update(object, numbers);
    json_decref(numbers);
    return object;
}

static int print_json(const struct invocation *in, const struct comparison *c, const brc_difference *total,
                      double least, int ok) {
    struct json_out out = {0};
    json_open(&out, NULL, '{');
    json_put(&out, "a", json_text(in->operands[0]));
    json_put(&out, "b", json_text(in->operands[1]));
    json_open(&out, "tensors", '[');
    for (size_t i = 0; i < c->n; i++) json_item(&out, json_difference(&c->rows[i].d, 1));
    json_close(&out);
    json_open(&out, "missing", '[');
    for (size_t i = 0; i < c->n_missing; i++)
        json_item(&out,
                  json_pack("{s:o,s:o}", "name", json_text(c->missing[i].name), "what", json_text(c->missing[i].what)));
    json_close(&out);
    json_put(&out, "total", json_difference(total, 0));
    json_put(&out, "fail_under", json_number(least));
    json_put(&out, "ok", json_boolean(ok));
    return json_close(&out);
}

/* A figure of no numbers is none. */
static const char *ratio_text(struct cell *cell, const brc_difference *d) {
    if (d->elements == 0) return "-";
    return is_equal(d) ? "equal" : cell_print(cell, "%.2f", d->sqnr);
}

static const char *cosine_text(struct cell *cell, const brc_difference *d) {
    return isnan(d->cosine) ? "-" : cell_print(cell, "%.7f", d->cosine);
}

static void print_row(struct table *table, const char *name, const brc_difference *d) {
    struct cell c[8];
    table_row(table,
              (const char *[]){
                  name, ratio_text(&c[0], d), cosine_text(&c[1], d), cell_print(&c[2], "%.4g", d->max_absolute),
                  cell_print(&c[3], "%.4g", d->max_relative), cell_print(&c[4], "%lld", (long long)d->saturated),
                  cell_print(&c[5], "%lld", (long long)d->flushed), cell_print(&c[6], "%lld", (long long)d->nonfinite),
                  cell_print(&c[7], "%lld", (long long)d->elements)});
}

static void print_tables(const struct comparison *c, const brc_difference *total) {
    static const struct column columns[] = {{"tensor", 0},    {"SQNR dB", 1},      {"cosine", 1},
                                            {"max error", 1}, {"max relative", 1}, {"saturated", 1},
                                            {"flushed", 1},   {"non-finite", 1},   {"numbers", 1}};
    static const struct column missing[] = {{"not compared", 0}, {"why", 0}};
    struct table table;
    for (table_begin(&table, missing, 2); c->n_missing > 0 && table_pass(&table);)
        for (size_t i = 0; i < c->n_missing; i++)
            table_row(&table, (const char *[]){c->missing[i].name, c->missing[i].what});
    if (c->n_missing > 0) putchar('\n');
    for (table_begin(&table, columns, sizeof columns / sizeof *columns); table_pass(&table);) {
        for (size_t i = 0; i < c->n; i++) print_row(&table, c->rows[i].d.name, &c->rows[i].d);
        print_row(&table, total->quantized ? "total of the quantized" : "total", total);
    }
}

static int compare(const struct invocation *in, const brc_checkpoint *a, const brc_checkpoint *b, uint32_t threads,
                   double least) {
    struct comparison c = {.a = a, .b = b};
    brc_difference total;
    brc_error err;
    int code = 0;
    if (brc_compare_checkpoints(a, b, threads, collect_each, collect_missing, &c, &total, &err) != BRC_OK) {
        const char *rest = NULL, *file = source_mentioned(a, &err, &rest);
        if (file != NULL) complain("%s%s", file, rest);
        else complain("%s, %s: %s", in->operands[0], in->operands[1], err.text);
        code = brc_status_exit(err.status);
    } else if (c.failed) {
        complain("out of memory");
        code = EXIT_IO;
    } else {
        const int low = !isnan(least) && !(badness(&total) >= least), ok = !low && c.n_missing == 0;
        if (c.n > 0) qsort(c.rows, c.n, sizeof *c.rows, worse);
        if (option_value(in, OPTION_JSON) != NULL) code = print_json(in, &c, &total, least, ok);
        else print_tables(&c, &total);
        if (total.nonfinite > 0)
            complain("warning: %s: %lld of %lld numbers are not finite there or in %s, and left out%s", in->operands[1],
                     (long long)total.nonfinite, (long long)total.elements, in->operands[0],
                     low ? "; so --fail-under cannot hold" : "");
        else if (low) complain("%s: total SQNR %.2f dB is below --fail-under %g", in->operands[1], total.sqnr, least);
        if (code == 0 && !ok) code = EXIT_DIFFERS;
    }
    comparison_free(&c);
    return code;
}

/* --from is for B; A is read by it only where its own evidence does not decide. */
static int open_reference(const char *path, const char *from, brc_checkpoint **a) {
    const int code = source_look(path, NULL, a);
    if (code != 0) return code;
    if (brc_checkpoint_usable(*a, NULL) == BRC_OK || from == NULL) return source_judge(*a);
    brc_checkpoint_close(*a);
    *a = NULL;
    return source_open(path, from, a);
}

int command_compare(const struct invocation *in) {
    brc_checkpoint *a = NULL, *b = NULL;
    int64_t threads;
    double least;
    int code = option_integer(in, OPTION_THREADS, 1, 0, &threads);
    if (code == 0) code = option_real(in, OPTION_FAIL_UNDER, NAN, &least);
    if (code == 0) code = open_reference(in->operands[0], option_value(in, OPTION_FROM), &a);
    if (code == 0) code = source_open(in->operands[1], option_value(in, OPTION_FROM), &b);
    if (code == 0) code = compare(in, a, b, (uint32_t)threads, least);
    brc_checkpoint_close(b);
    brc_checkpoint_close(a);
    return code;
}
