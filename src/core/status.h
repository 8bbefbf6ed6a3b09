/* SPDX-License-Identifier: Apache-2.0
 * How every function reports failure. Header only: both libraries use it, and hidden symbols do not cross them. */
#ifndef BRCI_STATUS_H
#define BRCI_STATUS_H

#include "breccia/breccia.h"

#include <stdarg.h>
#include <stdio.h>

/* Hands a failure up to the caller. */
#define TRY(expression)                                                                                                \
    do {                                                                                                               \
        brc_status try_status_ = (expression);                                                                         \
        if (try_status_ != BRC_OK) return try_status_;                                                                 \
    } while (0)

/* Quoted names and texts are cut by their bytes: what is no UTF-8 becomes '?'. Overlong forms and surrogates pass. */
static inline void brci_make_utf8(char *text) {
    for (unsigned char *at = (unsigned char *)text; *at != 0;) {
        int more = *at < 0x80 ? 0 : *at >= 0xF0 && *at < 0xF8 ? 3 : *at >= 0xE0 ? 2 : *at >= 0xC2 ? 1 : -1, n = 0;
        if (*at >= 0xF8) more = -1;
        while (n < more && (at[n + 1] & 0xC0) == 0x80) n++;
        if (n < more || more < 0) *at++ = '?';
        else at += more + 1;
    }
}

/* Fills `err` (may be NULL) and returns `status`: `return brci_fail(err, BRC_SHAPE, 0, "...")`. */
__attribute__((format(printf, 4, 5))) static inline brc_status brci_fail(brc_error *err, brc_status status,
                                                                         uint64_t where, const char *format, ...) {
    if (err != NULL) {
        va_list arguments;
        err->status = status;
        err->where = where;
        va_start(arguments, format);
        vsnprintf(err->text, sizeof err->text, format, arguments);
        va_end(arguments);
        brci_make_utf8(err->text);
    }
    return status;
}

#endif
