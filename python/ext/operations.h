/* SPDX-License-Identifier: Apache-2.0 */
#ifndef EXT_OPERATIONS_H
#define EXT_OPERATIONS_H

#include "view.h"

/* The buffers of one scaled tensor for the time of one call; starts as {0}, `place` set. */
typedef struct ext_tensor {
    brc_tensor tensor;
    ext_view data, scale, global, zero, group_index;
    int place; /* EXT_CUDA = all of them are on a GPU */
} ext_tensor;

/* Buffers of the tensor that a cast writes: args = data, scale, global_scale, zero_point. */
int ext_tensor_destination(ext_tensor *t, const brc_recipe *recipe, int rank, const int64_t *shape,
                           PyObject *const *args);
/* (recipe, shape, layout, block, data, scale, global_scale, zero_point, group_index) */
int ext_tensor_source(ext_tensor *t, const ext_state *state, PyObject *tuple);
void ext_tensor_release(ext_tensor *t);
/* One side of a product: a scaled tensor's tuple of 9, or a plain array. What is released afterwards: t and plain. */
int ext_operand_of(PyObject *object, const char *name, const ext_state *state, ext_tensor *t, ext_view *plain,
                   brc_operand *operand);
/* A number of threads, checked. */
int ext_threads_of(PyObject *object, brc_options *options);
/* Whether a call has so many arguments; -1 with an exception. */
int ext_wants(PyObject *const *args, Py_ssize_t count, Py_ssize_t least, const char *name);

#endif
