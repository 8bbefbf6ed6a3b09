/* SPDX-License-Identifier: Apache-2.0
 * Escaping, tables, and the line that reports an error. */
#include "print.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* A cell wider than this does not push the other rows: a name of a megabyte must not pad each line to a megabyte. */
enum { WIDEST_PADDING = 72 };
/* The libraries clip long paths to their ends: so much of it is always there. */
enum { CLIPPED = 60 };

/* Reads one UTF-8 sequence (RFC 3629: shortest form, no surrogates) and returns its length, 0 if it is invalid. */
static size_t utf8_read(const unsigned char *s, uint32_t *point) {
    if (s[0] < 0x80) return *point = s[0], 1;
    const size_t length = s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : 2;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (s[0] < 0xC2 || s[0] > 0xF4) return 0;
    uint32_t p = s[0] & (0x7Fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xC0) != 0x80) return 0;
        p = p << 6 | (s[i] & 0x3F);
    }
    if (p < least[length] || p > 0x10FFFF || (p >= 0xD800 && p <= 0xDFFF)) return 0;
    return *point = p, length;
}

/* Characters that a terminal acts on or does not show: controls, zero width, direction marks, line separators, tags. */
static int is_unsafe(uint32_t p) {
    static const uint32_t ranges[][2] = {{0x00, 0x1F},     {0x7F, 0x9F},      {0xAD, 0xAD},     {0x61C, 0x61C},
                                         {0x200B, 0x200F}, {0x2028, 0x202E},  {0x2060, 0x206F}, {0xFEFF, 0xFEFF},
                                         {0xFFF9, 0xFFFB}, {0xE0000, 0xE007F}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (p >= ranges[i][0] && p <= ranges[i][1]) return 1;
    return 0;
}

size_t print_text(FILE *out, const char *text) {
    size_t columns = 0;
    for (const unsigned char *s = (const unsigned char *)text; s != NULL && *s != '\0';) {
        uint32_t point = 0;
        const size_t length = utf8_read(s, &point);
        char escape[16] = "";
        if (length == 0) snprintf(escape, sizeof escape, "\\x%02x", *s);
        else if (point == '\n' || point == '\r' || point == '\t')
            snprintf(escape, sizeof escape, "\\%c", point == '\n' ? 'n' : point == '\r' ? 'r' : 't');
        else if (is_unsafe(point))
            snprintf(escape, sizeof escape, point < 0x80 ? "\\x%02x" : "\\u%04x", (unsigned)point);
        if (out != NULL) {
            if (escape[0] != '\0') fputs(escape, out);
            else fwrite(s, 1, length, out);
        }
        columns += escape[0] != '\0' ? strlen(escape) : 1;
        s += length == 0 ? 1 : length;
    }
    return columns;
}

void complain(const char *format, ...) {
    va_list arguments;
    char *text = NULL;
    va_start(arguments, format);
    const int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    fputs("breccia: ", stderr);
    print_text(stderr, length >= 0 ? text : "out of memory");
    fputc('\n', stderr);
    if (length >= 0) free(text);
}

int error_mentions(const brc_error *err, const char *file) {
    const size_t length = strlen(file);
    return strstr(err->text, length > CLIPPED ? file + length - CLIPPED : file) != NULL;
}

int complain_of(const char *file, const brc_error *err) {
    const int named = file == NULL || error_mentions(err, file);
    complain("%s%s%s", named ? "" : file, named ? "" : ": ", err->text);
    return brc_status_exit(err->status);
}

void table_begin(struct table *table, const struct column *columns, size_t n) {
    *table = (struct table){.columns = columns, .n = n};
}

enum { PASS_MEASURE = 1, PASS_PRINT = 2 };

int table_pass(struct table *table) {
    table->pass++;
    if (table->pass > PASS_PRINT) return 0;
    const char *titles[TABLE_COLUMNS];
    for (size_t i = 0; i < table->n; i++) titles[i] = table->columns[i].title;
    table_row(table, titles);
    return 1;
}

void table_row(struct table *table, const char *const *cells) {
    for (size_t i = 0; i < table->n; i++) {
        const size_t width = print_text(NULL, cells[i]);
        if (table->pass == PASS_MEASURE) {
            if (width > table->width[i] && width <= WIDEST_PADDING) table->width[i] = width;
            continue;
        }
        const int last = i + 1 == table->n, right = table->columns[i].right;
        const int padding = width < table->width[i] ? (int)(table->width[i] - width) : 0;
        if (right) printf("%*s", padding, "");
        print_text(stdout, cells[i]);
        if (last) putchar('\n');
        else printf("%*s", (right ? 0 : padding) + 2, "");
    }
}

void table_note(struct table *table, const char *label, const char *text) {
    if (table->pass != PASS_PRINT) return;
    printf("    %s: ", label);
    print_text(stdout, text);
    putchar('\n');
}

const char *cell_print(struct cell *cell, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(cell->text, sizeof cell->text, format, arguments);
    va_end(arguments);
    return cell->text;
}

const char *cell_shape(struct cell *cell, int rank, const int64_t *shape) {
    size_t used = 0;
    cell->text[0] = '\0';
    for (int i = 0; i < rank && used < sizeof cell->text; i++)
        used += (size_t)snprintf(cell->text + used, sizeof cell->text - used, "%s%lld", i == 0 ? "[" : ", ",
                                 (long long)shape[i]);
    if (used < sizeof cell->text) snprintf(cell->text + used, sizeof cell->text - used, rank == 0 ? "[]" : "]");
    return cell->text;
}

const char *cell_bytes(struct cell *cell, int64_t bytes) {
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double amount = (double)bytes;
    size_t unit = 0;
    while (amount >= 1024.0 && unit + 1 < sizeof units / sizeof *units) amount /= 1024.0, unit++;
    if (unit == 0) return cell_print(cell, "%lld bytes", (long long)bytes);
    return cell_print(cell, "%lld bytes (%.1f %s)", (long long)bytes, amount, units[unit]);
}

const char *cell_layout(struct cell *cell, brc_layout layout, brc_block block) {
    const brc_layout_info *info = brc_layout_get(layout);
    if (info == NULL) return cell_print(cell, "unknown");
    if (info->block.rows == BRC_FREE) return cell_print(cell, "%s %ux%u", info->name, block.rows, block.cols);
    if (info->block.cols == BRC_FREE) return cell_print(cell, "%s %u", info->name, block.cols);
    return cell_print(cell, "%s", info->name);
}
