/* SPDX-License-Identifier: Apache-2.0
 * breccia show: one block, number by number. The values are computed here from the parts that are printed, by the
 * formulas at brc_tensor in breccia.h, so that the answer does not rest on the code in question. */
#include "options.h"
#include "print.h"
#include "source.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_COLUMNS = 64, PLAIN_BLOCK = 32 };

/* Where the block is, and what is to be printed of it. */
struct window {
    int64_t batch, row, flat_row, cols;
    int64_t block, first, count; /* the block's number in the row; its first column; how many columns it has */
    int64_t last, shown;         /* its last column; how many of them are printed */
    int64_t *columns;            /* [shown] */
};

/* Element i of a packed row, low bits first (breccia.h, brc_encode). */
static uint64_t code_at(const unsigned char *row, unsigned bits, int64_t i) {
    uint64_t code = 0;
    for (unsigned b = 0; b < bits; b++) {
        const uint64_t bit = (uint64_t)i * bits + b;
        code |= (uint64_t)(row[bit / 8] >> (bit % 8) & 1) << b;
    }
    return code;
}

/* The number a code of an element format stands for. */
static float element_of(brc_format format, uint64_t code) {
    unsigned char row[sizeof code];
    float x;
    for (unsigned b = 0; b < sizeof row; b++) row[b] = (unsigned char)(code >> 8 * b);
    return brc_decode(format, row, 1, &x, NULL) == BRC_OK ? x : NAN;
}

/* The number a code of a plain tensor stands for: whole numbers and f64 in full, others in the nine digits of f32. */
static const char *number_text(struct cell *cell, brc_format format, uint64_t code) {
    const brc_format_info *f = brc_format_get(format);
    const unsigned unused = 64u - f->bits;
    if (f->family == BRC_OPAQUE) return "-";
    if (f->family == BRC_UINT) return cell_print(cell, "%" PRIu64, code);
    if (f->family == BRC_INT && f->mantissa_bits == 0)
        return cell_print(cell, "%" PRId64, (int64_t)(code << unused) >> unused);
    if (format != BRC_F64) return cell_print(cell, "%.9g", (double)element_of(format, code));
    double x;
    memcpy(&x, &code, sizeof x);
    return cell_print(cell, "%.17g", x);
}

static const char *hex(struct cell *cell, uint64_t code, unsigned bits) {
    return cell_print(cell, "0x%0*" PRIX64, (int)(bits + 3) / 4, code);
}

static const char *binary(struct cell *cell, uint64_t code, unsigned bits) {
    for (unsigned b = 0; b < bits; b++) cell->text[b] = (char)('0' + (code >> (bits - 1 - b) & 1));
    cell->text[bits] = '\0';
    return cell->text;
}

/* The line of one stored number: as bits, as a number, and where it is. */
static void print_stored(const char *label, const brc_tensor *t, const brc_table *table, const brc_named_array *array,
                         const struct window *w) {
    if (table->format == BRC_NONE) return;
    const int64_t i = brc_table_index(t, table, w->batch, w->row, w->first);
    const unsigned bits = brc_format_get((brc_format)table->format)->bits;
    const uint64_t code = code_at(table->data, bits, i);
    struct cell h, b;
    printf("%-10s%s  %s  %s  %.9g  (%s, number %lld", label, hex(&h, code, bits), binary(&b, code, bits),
           brc_format_get((brc_format)table->format)->name, brc_table_number(table, i),
           brc_kind_name((brc_kind)table->kind), (long long)i);
    if (array != NULL) fputs(" of ", stdout), print_text(stdout, array->name);
    puts(")");
}

/* What multiplies the element at a column, and its zero point. */
struct numbers {
    float s, g, m, z;
};
static struct numbers numbers_at(const brc_tensor *t, const struct window *w, int64_t column) {
    struct numbers n = {0};
    const int scaled = t->scale.format != BRC_NONE, global = t->global.format != BRC_NONE,
              zero = t->zero.format != BRC_NONE;
    n.s = scaled ? (float)brc_table_number(&t->scale, brc_table_index(t, &t->scale, w->batch, w->row, column)) : 1.0f;
    if (t->scale.kind == BRC_KIND_DIVISOR) n.s = 1.0f / n.s;
    n.g = global ? (float)brc_table_number(&t->global, brc_table_index(t, &t->global, w->batch, w->row, column)) : 1.0f;
    n.z = zero ? (float)brc_table_number(&t->zero, brc_table_index(t, &t->zero, w->batch, w->row, column)) : 0.0f;
    if (!global) n.m = n.s;
    else if (t->global.kind == BRC_KIND_DIVISOR) n.m = n.s / n.g;
    else if (t->global.kind == BRC_KIND_AMAX) n.m = (n.s * n.g) * (1.0f / t->global.constant);
    else n.m = n.s * n.g;
    return n;
}

static float value_of(const brc_tensor *t, const struct numbers *n, float e) {
    if (t->zero.format == BRC_NONE) return e * n->m;
    if (t->zero.kind == BRC_KIND_REAL) {
        const float product = e * n->m;
        return product + n->z;
    }
    const float difference = e - n->z;
    return difference * n->m;
}

/* The two formulas with the numbers of one element. */
static void print_formulas(const brc_tensor *t, const struct numbers *n, float e, int64_t column) {
    const double s = (double)n->s, g = (double)n->g, m = (double)n->m, z = (double)n->z, x = (double)e,
                 c = (double)t->global.constant;
    if (t->scale.kind == BRC_KIND_DIVISOR) printf("s         1 / scale = %.9g\n", s);
    if (t->global.format == BRC_NONE) printf("m         s = %.9g\n", m);
    else if (t->global.kind == BRC_KIND_DIVISOR) printf("m         s / g = %.9g / %.9g = %.9g\n", s, g, m);
    else if (t->global.kind == BRC_KIND_AMAX)
        printf("m         (s * amax) * (1 / constant) = (%.9g * %.9g) * (1 / %.9g) = %.9g\n", s, g, c, m);
    else printf("m         s * g = %.9g * %.9g = %.9g\n", s, g, m);
    const double value = (double)value_of(t, n, e);
    if (t->zero.format == BRC_NONE) printf("value     e * m = %.9g * %.9g = %.9g", x, m, value);
    else if (t->zero.kind == BRC_KIND_REAL) printf("value     e * m + z = %.9g * %.9g + %.9g = %.9g", x, m, z, value);
    else printf("value     (e - z) * m = (%.9g - %.9g) * %.9g = %.9g", x, z, m, value);
    printf("  (column %lld; each step rounded to f32)\n", (long long)column);
}

static void print_where(const struct window *w, int64_t rows, int64_t blocks, const char *what) {
    printf("row %lld of %lld, %s %lld of %lld: ", (long long)w->flat_row, (long long)rows, what, (long long)w->block,
           (long long)blocks);
    if (w->last - w->first + 1 == w->count)
        printf("columns %lld to %lld (%lld numbers)\n", (long long)w->first, (long long)w->last, (long long)w->count);
    else
        printf("%lld columns from %lld to %lld (grouped by the group index)\n", (long long)w->count,
               (long long)w->first, (long long)w->last);
}

static void print_rest(const struct window *w) {
    if (w->shown < w->count) printf("... %lld more; --all prints them\n", (long long)(w->count - w->shown));
}

static void print_scaled(const brc_entry *entry, const brc_tensor *t, const struct window *w,
                         const unsigned char *row) {
    static const struct column columns[] = {{"column", 1}, {"code", 0}, {"bits", 0}, {"element", 1}, {"value", 1}};
    const brc_format format = (brc_format)t->format;
    const unsigned bits = brc_format_get(format)->bits;
    print_stored(t->scale.kind == BRC_KIND_DIVISOR ? "scale" : "scale s", t, &t->scale, entry_part(entry, "scale"), w);
    print_stored("global g", t, &t->global, entry_part(entry, "global_scale"), w);
    print_stored("zero z", t, &t->zero, entry_part(entry, "zero_point"), w);
    /* An element that is not zero makes the formula readable. */
    int64_t example = 0;
    while (example < w->shown && element_of(format, code_at(row, bits, w->columns[example])) == 0.0f) example++;
    const int64_t column = w->columns[example < w->shown ? example : 0];
    const struct numbers numbers = numbers_at(t, w, column);
    print_formulas(t, &numbers, element_of(format, code_at(row, bits, column)), column);
    putchar('\n');
    struct table table;
    for (table_begin(&table, columns, sizeof columns / sizeof *columns); table_pass(&table);) {
        for (int64_t i = 0; i < w->shown; i++) {
            const uint64_t code = code_at(row, bits, w->columns[i]);
            const struct numbers n = numbers_at(t, w, w->columns[i]);
            const float element = element_of(format, code);
            struct cell c[5];
            table_row(&table,
                      (const char *[]){cell_print(&c[0], "%lld", (long long)w->columns[i]), hex(&c[1], code, bits),
                                       binary(&c[2], code, bits), cell_print(&c[3], "%.9g", (double)element),
                                       cell_print(&c[4], "%.9g", (double)value_of(t, &n, element))});
        }
    }
    print_rest(w);
}

static void print_plain(brc_format format, const struct window *w, const unsigned char *row) {
    static const struct column columns[] = {{"column", 1}, {"code", 0}, {"bits", 0}, {"value", 1}};
    const unsigned bits = brc_format_get(format)->bits;
    putchar('\n');
    struct table table;
    for (table_begin(&table, columns, sizeof columns / sizeof *columns); table_pass(&table);) {
        for (int64_t i = 0; i < w->shown; i++) {
            const uint64_t code = code_at(row, bits, w->columns[i]);
            struct cell c[4];
            table_row(&table,
                      (const char *[]){cell_print(&c[0], "%lld", (long long)w->columns[i]), hex(&c[1], code, bits),
                                       binary(&c[2], code, bits), number_text(&c[3], format, code)});
        }
    }
    print_rest(w);
}

/* The tensor as numbers to look at: geometry from the value, or from the array of a plain tensor. */
struct subject {
    brc_format format;
    int rank;
    const int64_t *shape;
    const unsigned char *data;
    int64_t pitch;
};

/* Row and block as asked, or the exit code after a message. */
static int read_position(const struct invocation *in, int64_t rows, int64_t blocks, struct window *w) {
    int code = option_integer(in, OPTION_ROW, 0, 0, &w->flat_row);
    if (code == 0) code = option_integer(in, OPTION_BLOCK, 0, 0, &w->block);
    if (code != 0) return code;
    if (rows == 0 || blocks == 0) {
        complain("%s: %s: is empty; there is nothing to show", in->operands[0], in->operands[1]);
        return EXIT_USAGE;
    }
    if (w->flat_row < rows && w->block < blocks) return 0;
    const int row = w->flat_row >= rows;
    complain("%s: %s: there is no %s %lld; they go from 0 to %lld", in->operands[0], in->operands[1],
             row ? "row" : "block", (long long)(row ? w->flat_row : w->block), (long long)((row ? rows : blocks) - 1));
    return EXIT_USAGE;
}

/* Finds the columns of the block; 0, or the exit code after a message. Free w->columns. */
static int find_columns(const struct invocation *in, const int32_t *group_index, int64_t side, struct window *w) {
    const int64_t begin = group_index != NULL ? 0 : w->block * side;
    const int64_t end = group_index != NULL || w->cols - begin < side ? w->cols : begin + side;
    for (int64_t column = begin; column < end; column++) {
        if (group_index != NULL && group_index[column] != w->block) continue;
        if (w->count++ == 0) w->first = column;
        w->last = column;
    }
    if (w->count == 0) {
        complain("%s: %s: no column belongs to group %lld", in->operands[0], in->operands[1], (long long)w->block);
        return EXIT_USAGE;
    }
    w->shown = option_value(in, OPTION_ALL) != NULL || w->count < FIRST_COLUMNS ? w->count : FIRST_COLUMNS;
    w->columns = malloc((size_t)w->shown * sizeof *w->columns);
    if (w->columns == NULL) return complain("out of memory"), EXIT_IO;
    for (int64_t column = w->first, n = 0; n < w->shown; column++)
        if (group_index == NULL || group_index[column] == w->block) w->columns[n++] = column;
    return 0;
}

static void print_head(const brc_entry *entry, const struct subject *subject) {
    const brc_named_array *data = entry_part(entry, "data");
    struct cell shape, layout;
    print_text(stdout, entry->name);
    printf("\nshape     %s, %s stored as %s\n", cell_shape(&shape, subject->rank, subject->shape),
           brc_format_get(subject->format)->name, data != NULL ? data->dtype : "-");
    if (!entry_scaled(entry)) {
        putchar('\n');
        return;
    }
    fputs("recipe    ", stdout);
    print_text(stdout, entry->recipe);
    printf(", %s, dialect %s\nmeaning   ",
           cell_layout(&layout, (brc_layout)entry->tensor.layout, entry->tensor.scale.block),
           brc_dialect_get(entry->dialect)->name);
    print_text(stdout, entry->meaning);
    fputs("\nevidence  ", stdout);
    print_text(stdout, entry->evidence);
    fputs("\n\n", stdout);
}

/* `t` NULL = the entry is not quantized. */
static int show(const struct invocation *in, const brc_entry *entry, const struct subject *subject,
                const brc_tensor *t) {
    const int rank = subject->rank;
    struct window w = {.cols = rank > 0 ? subject->shape[rank - 1] : 1};
    const int64_t rows = rank > 0 ? shape_elements(rank - 1, subject->shape) : 1,
                  matrix = rank > 1 ? subject->shape[rank - 2] : 1;
    const int64_t side = t == NULL ? PLAIN_BLOCK : t->scale.block.cols != 0 ? (int64_t)t->scale.block.cols : w.cols;
    const int64_t blocks = w.cols == 0 ? 0 : w.cols / side + (w.cols % side != 0);
    const int32_t *group_index = t != NULL ? t->group_index : NULL;
    int code = read_position(in, rows, blocks, &w);
    if (code != 0) return code;
    w.batch = w.flat_row / matrix;
    w.row = w.flat_row % matrix;
    code = find_columns(in, group_index, side, &w);
    if (code == 0) {
        const unsigned char *row = subject->data + w.flat_row * subject->pitch;
        print_head(entry, subject);
        print_where(&w, rows, blocks, group_index != NULL ? "group" : "block");
        if (t != NULL) print_scaled(entry, t, &w, row);
        else print_plain(subject->format, &w, row);
    }
    free(w.columns);
    return code;
}

static int show_entry(const struct invocation *in, const brc_checkpoint *checkpoint, const brc_entry *entry) {
    brc_owned owned = {0};
    brc_error err;
    if (entry_scaled(entry)) {
        if (brc_checkpoint_load(checkpoint, entry, &owned, &err) != BRC_OK)
            return source_complain(checkpoint, in->operands[0], &err);
        const brc_tensor *t = &owned.tensor;
        const struct subject subject = {(brc_format)t->format, t->rank, t->shape, t->data, t->row_pitch};
        const int code = show(in, entry, &subject, t);
        brc_release(&owned);
        return code;
    }
    const brc_named_array *data = entry_part(entry, "data");
    if (data == NULL) {
        complain("%s: %s: has no data that can be read", in->operands[0], entry->name);
        return brc_status_exit(BRC_UNSUPPORTED);
    }
    const brc_array *array = &data->array;
    const int64_t pitch = brc_row_bytes((brc_format)array->format, array->rank > 0 ? array->shape[array->rank - 1] : 1);
    const struct subject subject = {(brc_format)array->format, array->rank, array->shape, array->data, pitch};
    return show(in, entry, &subject, NULL);
}

int command_show(const struct invocation *in) {
    brc_checkpoint *checkpoint = NULL;
    int code = source_open(in->operands[0], option_value(in, OPTION_FROM), &checkpoint);
    const brc_entry *entry = code == 0 ? brc_checkpoint_find(checkpoint, in->operands[1]) : NULL;
    if (code != 0) {
    } else if (entry != NULL) {
        code = show_entry(in, checkpoint, entry);
    } else {
        complain("%s: %s: there is no such tensor; `breccia inspect` lists them", in->operands[0], in->operands[1]);
        code = EXIT_USAGE;
    }
    brc_checkpoint_close(checkpoint);
    return code;
}
