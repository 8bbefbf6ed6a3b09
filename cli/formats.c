/* SPDX-License-Identifier: Apache-2.0
 * breccia formats */
#include "json.h"
#include "options.h"
#include "print.h"

#include <inttypes.h>

static const char *const families[] = {[BRC_FLOAT] = "float", [BRC_EXPONENT] = "exponent", [BRC_INT] = "int",
                                       [BRC_UINT] = "uint",   [BRC_CODEBOOK] = "codebook", [BRC_OPAQUE] = "opaque"};
static const char *const roles[] = {[BRC_ELEMENT] = "element", [BRC_HIGH] = "high", [BRC_CARRIED] = "carried"};

static int print_json(void) {
    struct json_out out = {0};
    json_open(&out, NULL, '{');
    json_open(&out, "formats", '[');
    for (int i = BRC_NONE + 1; i < BRC_FORMAT_COUNT; i++) {
        const brc_format_info *f = brc_format_get((brc_format)i);
        const int number = f->family != BRC_OPAQUE;
        json_item(&out,
                  json_pack("{s:s,s:s,s:s,s:i,s:i,s:i,s:i,s:o,s:o,s:o,s:o,s:o,s:o}", "name", f->name, "family",
                            families[f->family], "role", roles[f->role], "bits", f->bits, "exponent_bits",
                            f->exponent_bits, "mantissa_bits", f->mantissa_bits, "bias", (int)f->bias, "max",
                            number ? json_real(f->max) : json_null(), "min", number ? json_real(f->min) : json_null(),
                            "smallest_normal", f->smallest_normal != 0 ? json_real(f->smallest_normal) : json_null(),
                            "smallest", number ? json_real(f->smallest) : json_null(), "max_code",
                            number ? json_integer((json_int_t)f->max_code) : json_null(), "nan_code",
                            f->nan_code >= 0 ? json_integer(f->nan_code) : json_null()));
    }
    json_close(&out);
    return json_close(&out);
}

int command_formats(const struct invocation *in) {
    static const struct column columns[] = {{"format", 0},   {"family", 0},   {"role", 0}, {"bits", 1},
                                            {"exponent", 1}, {"mantissa", 1}, {"bias", 1}, {"min", 1},
                                            {"max", 1},      {"smallest", 1}, {"NaN", 1}};
    enum { COLUMNS = sizeof columns / sizeof *columns };
    struct table table;
    if (option_value(in, OPTION_JSON) != NULL) return print_json();
    for (table_begin(&table, columns, COLUMNS); table_pass(&table);) {
        for (int i = BRC_NONE + 1; i < BRC_FORMAT_COUNT; i++) {
            const brc_format_info *f = brc_format_get((brc_format)i);
            const int number = f->family != BRC_OPAQUE, floating = f->family == BRC_FLOAT || f->family == BRC_EXPONENT;
            struct cell c[COLUMNS];
            const char *cells[COLUMNS] = {
                f->name,
                families[f->family],
                roles[f->role],
                cell_print(&c[3], "%d", f->bits),
                floating ? cell_print(&c[4], "%d", f->exponent_bits) : "-",
                floating || f->mantissa_bits > 0 ? cell_print(&c[5], "%d", f->mantissa_bits) : "-",
                floating ? cell_print(&c[6], "%d", f->bias) : "-",
                number ? cell_print(&c[7], "%.10g", f->min) : "-",
                number ? cell_print(&c[8], "%.10g", f->max) : "-",
                number ? cell_print(&c[9], "%.10g", f->smallest) : "-",
                f->nan_code >= 0 ? cell_print(&c[10], "0x%" PRIX64, (uint64_t)f->nan_code) : "-"};
            table_row(&table, cells);
        }
    }
    return 0;
}
