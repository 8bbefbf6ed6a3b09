/* SPDX-License-Identifier: Apache-2.0 */
#ifndef EXT_VIEW_H
#define EXT_VIEW_H

#include "ext.h"

/* Someone else's array for the time of one call: a DLPack capsule, anything with __dlpack__, or with the buffer
 * protocol. A pair (array, format name) says what the numbers are where the array's own type cannot (bfloat16 seen as
 * uint16). */
typedef struct ext_view {
    brc_array array; /* strides in elements */
    int32_t item;    /* bytes of an element */
    int readonly, on_device;
    int32_t device;   /* its number, where on_device */
    Py_buffer buffer; /* of the buffer protocol: obj != NULL */
    void *managed;    /* of DLPack: dl_managed or dl_versioned */
    int versioned;
    void *copy; /* dense copy, made by ext_view_dense */
} ext_view;

enum { EXT_READ = 0, EXT_WRITE = 1, EXT_CUDA = 2 }; /* EXT_CUDA, beside one of the others: memory of an NVIDIA GPU */

/* Returns 0, or -1 with an exception that calls the array `name`. After either, ext_view_release is allowed. */
int ext_view_get(ext_view *view, PyObject *object, const char *name, int access);
/* Makes a view of EXT_READ dense and row-major, by copying if it is not; arrays on a device must be so. */
int ext_view_dense(ext_view *view, const char *name);
int ext_view_is_dense(const ext_view *view);
int64_t ext_view_bytes(const ext_view *view);
void ext_view_release(ext_view *view);

/* The format of one DLPack type; BRC_NONE if breccia has none. `item` receives the bytes of an element. */
brc_format ext_format_of_dlpack(unsigned code, unsigned bits, unsigned lanes, int32_t *item);
/* And back: {code, bits}; returns 0 if the format cannot be exchanged. */
int ext_format_to_dlpack(brc_format format, uint8_t *code, uint8_t *bits);
/* The format of a struct-module code of the buffer protocol; BRC_NONE if breccia has none. */
brc_format ext_format_of_struct(const char *code, int64_t item);
/* The struct-module code of a format; bytes where it has none. */
const char *ext_struct_code(brc_format format);

/* Whether an array of this format holds codes of `element`: its own type, or bytes. Another 8-bit type is a mistake. */
int ext_holds_codes(brc_format array, brc_format element);
/* The format in which an array of this format holds scales of a recipe: its own where that is a floating-point or an
 * exponent type, the recipe's where bytes are its 8-bit codes. BRC_NONE for any other: an exponent's byte is no number.
 */
brc_format ext_scale_format(brc_format array, brc_format of_recipe);
/* The same for zero points: numbers of any type; bytes are the recipe's 8-bit integers. */
brc_format ext_zero_format(brc_format array, brc_format of_recipe);

#endif
