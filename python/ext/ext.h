/* SPDX-License-Identifier: Apache-2.0
 *
 * The extension breccia._c: libbreccia's public functions for Python objects. It passes memory and turns statuses into
 * exceptions; it computes nothing. CPython's limited API of 3.11 (the first with the buffer protocol), so that one
 * build serves every later version. */
#ifndef EXT_H
#define EXT_H

#define PY_SSIZE_T_CLEAN
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#include <Python.h>

#include <breccia/breccia.h>

typedef struct ext_state {
    PyTypeObject *recipe, *buffer, *packed;
} ext_state;

ext_state *ext_state_of(PyObject *module);

/* errors.c: sets the exception of a status with its text; returns NULL. */
PyObject *ext_raise(brc_status status, const brc_error *err);

/* recipe.c */
typedef struct ext_recipe {
    PyObject_HEAD brc_recipe recipe;
} ext_recipe;
extern PyType_Spec ext_recipe_spec;
/* The recipe of an object of class Recipe; NULL with an exception for any other. */
const brc_recipe *ext_recipe_of(const ext_state *state, PyObject *object);

/* buffer.c */
extern PyType_Spec ext_buffer_spec;

/* packed.c */
extern PyType_Spec ext_packed_spec;
/* The weight of an object of class Packed; NULL for any other. */
const brc_packed *ext_packed_of(const ext_state *state, PyObject *object);

/* tables.c: adds FORMATS, RECIPES, LAYOUTS, RULES, ARITHMETICS, KINDS and the versions to the module. */
int ext_add_tables(PyObject *module);

/* The formats, kinds and pitch that a recipe gives a tensor of this shape; the buffers and the layout's block are the
 * caller's to set. And the bytes of its data. */
brc_status ext_tensor_geometry(const brc_recipe *recipe, int rank, const int64_t *shape, brc_tensor *tensor,
                               brc_error *err);
int64_t ext_tensor_bytes(const brc_tensor *tensor);

/* What the scales of an FP8 product's sides cover, a brc_cuda_scaling; -1 = the GPU has no product of such tensors. */
int ext_cuda_scaling(const brc_tensor *a, const brc_tensor *b);

/* operations.c, cuda.c, codes.c, xla.c */
extern PyMethodDef ext_operations[], ext_cuda[], ext_codes[], ext_xla[];

#endif
