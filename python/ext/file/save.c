/* SPDX-License-Identifier: Apache-2.0
 * ScaledTensors and arrays -> a checkpoint, or the arrays of a dialect in memory. A scaled tensor comes as the capsule
 * of breccia._c.tensor, an array as anything that ext_view_get reads. */
#include "file.h"

#include <stdlib.h>
#include <string.h>

/* Rows (name, capsule or array, origin or None), as brc_items. */
typedef struct items {
    brc_item *items;
    ext_view *views;
    Py_ssize_t n;
} items;

static void release(items *all) {
    for (Py_ssize_t i = 0; i < all->n && all->views != NULL; i++) ext_view_release(&all->views[i]);
    free(all->items);
    free(all->views);
}

static int read_row(const file_state *state, PyObject *row, brc_item *item, ext_view *view) {
    PyObject *value, *origin;
    const char *name;
    if (!PyTuple_Check(row)) {
        PyErr_SetString(PyExc_TypeError, "rows: (name, tensor or array, origin) are needed");
        return -1;
    }
    if (!PyArg_ParseTuple(row, "sOO", &name, &value, &origin)) return -1;
    item->name = name;
    item->origin = file_origin(state, origin);
    if (PyCapsule_IsValid(value, "brc_tensor")) {
        item->scaled = PyCapsule_GetPointer(value, "brc_tensor");
        return 0;
    }
    if (ext_view_get(view, value, name, EXT_READ) != 0 || ext_view_dense(view, name) != 0) return -1;
    if (view->array.format == BRC_NONE) {
        PyErr_Format(PyExc_TypeError, "%s: arrays of this type are not understood", name);
        return -1;
    }
    item->plain = &view->array;
    return 0;
}

static int read_items(const file_state *state, PyObject *rows, items *all) {
    all->n = PyList_Size(rows);
    all->items = calloc((size_t)all->n + 1, sizeof *all->items);
    all->views = calloc((size_t)all->n + 1, sizeof *all->views);
    if (all->items == NULL || all->views == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < all->n; i++)
        if (read_row(state, PyList_GetItem(rows, i), &all->items[i], &all->views[i]) != 0) return -1;
    return 0;
}

/* NULL with an exception for what is no text, or would end early as C's. */
static const char *text_of(PyObject *object) {
    Py_ssize_t length = 0;
    const char *text = PyUnicode_AsUTF8AndSize(object, &length);
    if (text == NULL || strlen(text) == (size_t)length) return text;
    PyErr_Format(PyExc_ValueError, "metadata: %R has a null character", object);
    return NULL;
}

/* Keys and values of a dict, as UTF-8 that lives as long as the dict; NULL with an exception. */
static const char **read_pairs(PyObject *dict, size_t *n) {
    Py_ssize_t at = 0;
    PyObject *key, *value;
    const char **pairs = calloc((size_t)PyDict_Size(dict) * 2 + 1, sizeof *pairs);
    if (pairs == NULL) PyErr_NoMemory();
    *n = 0;
    while (pairs != NULL && PyDict_Next(dict, &at, &key, &value)) {
        if (!PyUnicode_Check(key) || !PyUnicode_Check(value)) {
            PyErr_Format(PyExc_TypeError, "metadata must be pairs of text, got %R: %R", key, value);
            free(pairs);
            return NULL;
        }
        pairs[2 * *n] = text_of(key);
        pairs[2 * *n + 1] = pairs[2 * *n] == NULL ? NULL : text_of(value);
        if (pairs[2 * (*n)++ + 1] == NULL) {
            free(pairs);
            return NULL;
        }
    }
    return pairs;
}

/* save(path, dialect, rows, metadata, config, overwrite) */
static PyObject *file_save(PyObject *module, PyObject *args) {
    PyObject *encoded = NULL, *rows, *metadata;
    const char *word, *config;
    int overwrite;
    if (!PyArg_ParseTuple(args, "O&sO!O!zp", PyUnicode_FSConverter, &encoded, &word, &PyList_Type, &rows, &PyDict_Type,
                          &metadata, &config, &overwrite)) {
        Py_XDECREF(encoded);
        return NULL;
    }
    items all = {0};
    brc_error err = {0};
    brc_status status = BRC_OK;
    brc_save_options options = {.size = sizeof options, .overwrite = (uint32_t)overwrite, .config = config};
    const brc_dialect dialect = file_dialect(word);
    const char **pairs = dialect == BRC_DIALECT_COUNT ? NULL : read_pairs(metadata, &options.n_metadata);
    int failed = pairs == NULL || read_items(PyModule_GetState(module), rows, &all) != 0;
    options.metadata = pairs;
    if (!failed) {
        const char *path = PyBytes_AsString(encoded);
        Py_BEGIN_ALLOW_THREADS status = brc_checkpoint_save(path, dialect, all.items, (size_t)all.n, &options, &err);
        Py_END_ALLOW_THREADS failed = status != BRC_OK;
        if (failed) ext_raise(status, &err);
    }
    release(&all);
    free(pairs);
    Py_DECREF(encoded);
    if (failed) return NULL;
    Py_RETURN_NONE;
}

/* What arrays() gathers. */
typedef struct gathered {
    PyObject *arrays, *texts;
} gathered;

static int append(PyObject *list, PyObject *item) {
    const int failed = item == NULL || PyList_Append(list, item) != 0;
    Py_XDECREF(item);
    return failed ? -1 : 0;
}

/* GGUF's blocks as their bytes, [.., bytes of a row]. */
static brc_status take_array(void *user, size_t i, const brc_named_array *a) {
    PyObject *shape = PyTuple_New((Py_ssize_t)a->rank), *bytes;
    const int blocks = a->block_numbers > 0;
    (void)i;
    for (uint32_t d = 0; d < a->rank && shape != NULL; d++) {
        const int64_t side = blocks && d + 1 == a->rank ? a->shape[d] / a->block_numbers * a->block_bytes : a->shape[d];
        PyTuple_SetItem(shape, (Py_ssize_t)d, PyLong_FromLongLong(side));
    }
    bytes = shape == NULL ? NULL : PyByteArray_FromStringAndSize(a->array.data, (Py_ssize_t)a->bytes);
    if (bytes == NULL) {
        Py_XDECREF(shape);
        return BRC_CANCELLED;
    }
    PyObject *row = Py_BuildValue("(ssNNz)", a->name, brc_format_get((brc_format)a->array.format)->name, shape, bytes,
                                  blocks ? a->dtype : NULL);
    return append(((gathered *)user)->arrays, row) == 0 ? BRC_OK : BRC_CANCELLED;
}

static brc_status take_text(void *user, const char *file, const char *member, const char *text) {
    return append(((gathered *)user)->texts, Py_BuildValue("(zzs)", file, member, text)) == 0 ? BRC_OK : BRC_CANCELLED;
}

/* arrays(dialect, rows) -> ([(name, format, shape, bytearray, word of blocks)], [(file, member, text)]) */
static PyObject *file_arrays(PyObject *module, PyObject *args) {
    PyObject *rows;
    const char *word;
    if (!PyArg_ParseTuple(args, "sO!", &word, &PyList_Type, &rows)) return NULL;
    items all = {0};
    brc_error err = {0};
    gathered out = {PyList_New(0), PyList_New(0)};
    const brc_sink sink = {.size = sizeof sink, .array = take_array, .text = take_text, .user = &out};
    const brc_dialect dialect = file_dialect(word);
    int failed = dialect == BRC_DIALECT_COUNT || out.arrays == NULL || out.texts == NULL ||
                 read_items(PyModule_GetState(module), rows, &all) != 0;
    if (!failed) {
        const brc_status status = brc_checkpoint_arrays(dialect, all.items, (size_t)all.n, &sink, &err);
        failed = status != BRC_OK;
        if (failed && !PyErr_Occurred()) ext_raise(status, &err);
    }
    release(&all);
    if (!failed) return Py_BuildValue("(NN)", out.arrays, out.texts);
    Py_XDECREF(out.arrays);
    Py_XDECREF(out.texts);
    return NULL;
}

PyMethodDef file_saving[] = {
    {"save", file_save, METH_VARARGS,
     "save(path, dialect, rows, metadata, config, overwrite, /)\n--\n\nWrites [(name, tensor or array, origin)]."},
    {"arrays", file_arrays, METH_VARARGS,
     "arrays(dialect, rows, /)\n--\n\n([(name, format, shape, bytes, blocks)], [(file, member, text)]) of tensors in "
     "memory."},
    {NULL, NULL, 0, NULL},
};
