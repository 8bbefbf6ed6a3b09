/* SPDX-License-Identifier: Apache-2.0
 * What other systems call breccia's formats: DLPack type codes, struct-module codes. One row each. */
#include "dlpack.h"
#include "view.h"

#include <string.h>

typedef struct row {
    brc_format format;
    uint8_t code, bits;       /* DLPack */
    const char *write, *read; /* struct-module code of what we export, and those we take; "" = none */
} row;

static const row rows[] = {
    {BRC_F64, DL_FLOAT, 64, "d", "d"},       {BRC_F32, DL_FLOAT, 32, "f", "f"},
    {BRC_F16, DL_FLOAT, 16, "e", "e"},       {BRC_BF16, DL_BFLOAT, 16, "H", ""},
    {BRC_E4M3, DL_E4M3, 8, "B", ""},         {BRC_E5M2, DL_E5M2, 8, "B", ""},
    {BRC_E4M3FNUZ, DL_E4M3FNUZ, 8, "B", ""}, {BRC_E5M2FNUZ, DL_E5M2FNUZ, 8, "B", ""},
    {BRC_E8M0, DL_E8M0, 8, "B", ""},         {BRC_BOOL, DL_BOOL, 8, "?", "?"},
    {BRC_INT8, DL_INT, 8, "b", "b"},         {BRC_INT16, DL_INT, 16, "h", "h"},
    {BRC_INT32, DL_INT, 32, "i", "il"},      {BRC_INT64, DL_INT, 64, "q", "qln"},
    {BRC_UINT8, DL_UINT, 8, "B", "Bc"},      {BRC_UINT16, DL_UINT, 16, "H", "H"},
    {BRC_UINT32, DL_UINT, 32, "I", "IL"},    {BRC_UINT64, DL_UINT, 64, "Q", "QLN"},
};
#define ROWS (sizeof rows / sizeof *rows)

static const row *row_of(brc_format format) {
    for (size_t i = 0; i < ROWS; i++)
        if (rows[i].format == format) return &rows[i];
    return NULL;
}

brc_format ext_format_of_dlpack(unsigned code, unsigned bits, unsigned lanes, int32_t *item) {
    /* FP4 in pairs: libraries disagree whether a byte is two elements or two lanes of one; here it is a byte. */
    if (code == DL_E2M1 && bits == 4 && lanes == 2) {
        *item = 1;
        return BRC_UINT8;
    }
    for (size_t i = 0; i < ROWS && lanes == 1; i++)
        if (rows[i].code == code && rows[i].bits == bits) {
            *item = (int32_t)bits / 8;
            return rows[i].format;
        }
    return BRC_NONE;
}

int ext_format_to_dlpack(brc_format format, uint8_t *code, uint8_t *bits) {
    const row *r = row_of(format);
    if (r == NULL) return 0;
    *code = r->code;
    *bits = r->bits;
    return 1;
}

brc_format ext_format_of_struct(const char *code, int64_t item) {
    if (code == NULL) return item == 1 ? BRC_UINT8 : BRC_NONE;
    if (*code == '@' || *code == '=' || *code == '<') code++; /* '>', the other byte order, is not understood */
    for (size_t i = 0; i < ROWS && strlen(code) == 1; i++)
        if (strchr(rows[i].read, *code) != NULL && rows[i].bits == item * 8) return rows[i].format;
    return BRC_NONE;
}

const char *ext_struct_code(brc_format format) {
    const row *r = row_of(format);
    return r == NULL ? NULL : r->write;
}

int ext_holds_codes(brc_format array, brc_format element) {
    return array == element || array == BRC_UINT8 || array == BRC_INT8;
}

brc_format ext_scale_format(brc_format array, brc_format of_recipe) {
    const brc_format_info *own = brc_format_get(array), *recipe = brc_format_get(of_recipe);
    if (array == BRC_UINT8 && recipe != NULL && recipe->bits == 8) return of_recipe;
    if (array == of_recipe) return array;
    return own != NULL && (own->family == BRC_FLOAT || own->family == BRC_EXPONENT) ? array : BRC_NONE;
}

brc_format ext_zero_format(brc_format array, brc_format of_recipe) {
    const brc_format_info *own = brc_format_get(array), *recipe = brc_format_get(of_recipe);
    if (array == BRC_UINT8 && recipe != NULL && recipe->bits == 8) return of_recipe;
    return own != NULL && (own->family == BRC_FLOAT || own->family == BRC_INT || own->family == BRC_UINT) ? array
                                                                                                          : BRC_NONE;
}
