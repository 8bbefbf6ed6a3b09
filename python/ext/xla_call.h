/* SPDX-License-Identifier: Apache-2.0
 *
 * One call of a handler of XLA's foreign function interface.
 *
 * A scaled tensor comes as its arrays in the order data, scale, zero point, global scale, group index, and as two
 * attributes: "recipe" and "numbers" = {threads, layout, batch, rows, cols, which of the last three arrays are there,
 * shape}. */
#ifndef EXT_XLA_CALL_H
#define EXT_XLA_CALL_H

#include "view.h"
#include "xla_ffi.h"

enum { EXT_CALL_THREADS = 0 }; /* place in "numbers" */

/* What a call takes, in order. */
typedef struct ext_call {
    const xla_frame *frame;
    int64_t argument, result; /* the next ones */
    brc_error err;
} ext_call;

#define TRY(e)                                                                                                         \
    do {                                                                                                               \
        brc_status s_ = (e);                                                                                           \
        if (s_ != BRC_OK) return s_;                                                                                   \
    } while (0)

/* Runs an operation where XLA is about to execute; answers its other questions. */
xla_error *ext_call_run(xla_frame *frame, brc_status (*operation)(ext_call *));

brc_status ext_call_complain(ext_call *c, const char *text);
/* An attribute of this type; NULL if there is none. */
const void *ext_call_attribute(const ext_call *c, const char *name, int type);
brc_status ext_call_recipe(ext_call *c, const char *name, brc_recipe *recipe);
/* int64 numbers, at least so many. */
brc_status ext_call_numbers(ext_call *c, const char *name, size_t least, const int64_t **numbers, size_t *count);
/* The next of the arguments or results; NULL past the end. */
const xla_buffer *ext_call_next(const xla_buffers *buffers, int64_t *at);
brc_status ext_call_array(ext_call *c, const xla_buffer *b, brc_array *array);
/* The memory of the next one, of exactly `bytes`; -1 = none is expected. */
brc_status ext_call_part(ext_call *c, const xla_buffers *from, int64_t *at, int64_t bytes, void **data);
/* The next scaled tensor among the arguments, and the one that a cast to this shape writes to the results. */
brc_status ext_call_source(ext_call *c, const char *recipe, const char *numbers, brc_tensor *t, int64_t *threads);
brc_status ext_call_destination(ext_call *c, const brc_recipe *recipe, int rank, const int64_t *shape, brc_tensor *t);

/* Handlers, by platform. */
typedef struct ext_handler {
    const char *name;
    xla_error *(*handler)(xla_frame *);
} ext_handler;
extern const ext_handler ext_cuda_handlers[]; /* xla_cuda.c; the last has no name */

#endif
