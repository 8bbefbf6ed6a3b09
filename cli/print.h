/* SPDX-License-Identifier: Apache-2.0
 * Text for people: escaped so that no name in a file can drive a terminal, and tables with aligned columns. */
#ifndef CLI_PRINT_H
#define CLI_PRINT_H

#include "breccia/breccia.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Exit codes that no brc_status stands for. */
enum { EXIT_DIFFERS = 1, EXIT_USAGE = 2, EXIT_UNSUPPORTED = 4, EXIT_IO = 5, EXIT_INTERRUPTED = 130 };

/* One line on stderr, "breccia: ...", escaped. */
__attribute__((format(printf, 1, 2))) void complain(const char *format, ...);
/* The same for a failed call; gives its exit code. `file` is named unless the text does it already; NULL = none. */
int complain_of(const char *file, const brc_error *err);
/* Whether the text of an error names a file. */
int error_mentions(const brc_error *err, const char *file);

/* Prints text with control characters, invisible and direction-changing characters and invalid UTF-8 as \n, \x1b or
 * \u202e. Returns the columns it takes; `out` NULL = only counts; `text` may be NULL. */
size_t print_text(FILE *out, const char *text);

/* A table whose columns are measured first. The caller runs its loop once for each pass:
 *     for (table_begin(&t, columns, n); table_pass(&t);)
 *         for (...) table_row(&t, cells);
 * so that no text has to be kept. Cells may hold anything; they are escaped. */
enum { TABLE_COLUMNS = 16 };
struct column {
    const char *title;
    int right; /* 1 = aligned right */
};
struct table {
    const struct column *columns;
    size_t n, pass, width[TABLE_COLUMNS];
};
void table_begin(struct table *table, const struct column *columns, size_t n);
int table_pass(struct table *table);
void table_row(struct table *table, const char *const *cells);
/* A line below the row just given, indented. */
void table_note(struct table *table, const char *label, const char *text);

/* Room for one number or short text as a cell. */
struct cell {
    char text[96];
};
__attribute__((format(printf, 2, 3))) const char *cell_print(struct cell *cell, const char *format, ...);
/* "[384, 1536]" */
const char *cell_shape(struct cell *cell, int rank, const int64_t *shape);
/* "12345678 (11.8 MiB)" */
const char *cell_bytes(struct cell *cell, int64_t bytes);
/* "per_block_mn 1x32" */
const char *cell_layout(struct cell *cell, brc_layout layout, brc_block block);

#endif
