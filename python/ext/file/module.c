/* SPDX-License-Identifier: Apache-2.0
 * The extension breccia._file: named arrays of safetensors files, by libbreccia_file. It is an extension of its own, so
 * that importing breccia needs neither libbreccia_file nor Jansson; breccia.bridges loads it on first use. */
#include "../view.h"

#include <breccia/breccia_file.h>

#include <stdlib.h>
#include <string.h>

static PyObject *shape_of(const brc_named_array *a) {
    PyObject *shape = PyTuple_New((Py_ssize_t)a->rank);
    for (uint32_t i = 0; i < a->rank && shape != NULL; i++)
        PyTuple_SetItem(shape, (Py_ssize_t)i, PyLong_FromLongLong(a->shape[i]));
    return shape;
}

/* (format, shape, bytearray): one copy out of the map, so that nothing outlives the file. */
static PyObject *array_of(const brc_named_array *a) {
    PyObject *shape = shape_of(a), *bytes = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)a->bytes);
    if (shape == NULL || bytes == NULL) {
        Py_XDECREF(shape);
        Py_XDECREF(bytes);
        return NULL;
    }
    char *to = PyByteArray_AsString(bytes);
    Py_BEGIN_ALLOW_THREADS if (a->bytes > 0) memcpy(to, a->array.data, (size_t)a->bytes);
    Py_END_ALLOW_THREADS return Py_BuildValue("(sNN)", brc_format_get((brc_format)a->array.format)->name, shape, bytes);
}

static int set(PyObject *dict, const char *key, PyObject *value) {
    int result = value == NULL ? -1 : PyDict_SetItemString(dict, key, value);
    Py_XDECREF(value);
    return result;
}

/* read(path) -> ({name: (format, shape, bytearray)}, {key: value of __metadata__}) */
static PyObject *file_read(PyObject *module, PyObject *path) {
    PyObject *encoded = NULL, *arrays, *metadata;
    brc_file *file;
    brc_error err = {0};
    brc_status status;
    int failed = 0;
    (void)module;
    if (!PyUnicode_FSConverter(path, &encoded)) return NULL;
    const char *name = PyBytes_AsString(encoded);
    Py_BEGIN_ALLOW_THREADS status = brc_file_open(name, NULL, &file, &err);
    Py_END_ALLOW_THREADS Py_DECREF(encoded);
    if (status != BRC_OK) return ext_raise(status, &err);
    arrays = PyDict_New();
    metadata = PyDict_New();
    failed = arrays == NULL || metadata == NULL;
    for (size_t i = 0; i < brc_file_count(file) && !failed; i++) {
        const brc_named_array *a = brc_file_at(file, i);
        failed = set(arrays, a->name, array_of(a)) != 0;
    }
    for (size_t i = 0; i < brc_file_metadata_count(file) && !failed; i++) {
        const char *value, *key = brc_file_metadata_at(file, i, &value);
        failed = set(metadata, key, PyUnicode_FromString(value)) != 0;
    }
    brc_file_close(file);
    if (!failed) return Py_BuildValue("(NN)", arrays, metadata);
    Py_XDECREF(arrays);
    Py_XDECREF(metadata);
    return NULL;
}

/* One array of write(): its view and its number in the file. */
typedef struct item {
    ext_view view;
    size_t number;
} item;

static int declare(brc_writer *writer, PyObject *row, item *it) {
    const char *name;
    PyObject *array;
    brc_error err = {0};
    brc_status status;
    if (!PyArg_ParseTuple(row, "sO", &name, &array)) return -1;
    if (ext_view_get(&it->view, array, name, EXT_READ) != 0 || ext_view_dense(&it->view, name) != 0) return -1;
    status = brc_writer_add(writer, name, (brc_format)it->view.array.format, it->view.array.rank, it->view.array.shape,
                            0, &it->number, &err);
    if (status == BRC_OK) return 0;
    ext_raise(status, &err);
    return -1;
}

static brc_status fill(brc_writer *writer, const item *items, Py_ssize_t count, brc_error *err) {
    brc_status status = brc_writer_begin(writer, err);
    for (Py_ssize_t i = 0; i < count && status == BRC_OK; i++)
        status =
            brc_writer_write(writer, items[i].number, 0, items[i].view.array.data, ext_view_bytes(&items[i].view), err);
    return status;
}

static int describe(brc_writer *writer, PyObject *metadata) {
    Py_ssize_t at = 0;
    PyObject *key, *value;
    while (PyDict_Next(metadata, &at, &key, &value)) {
        const char *k = PyUnicode_AsUTF8AndSize(key, NULL),
                   *v = k == NULL ? NULL : PyUnicode_AsUTF8AndSize(value, NULL);
        brc_error err = {0};
        if (v == NULL) return -1;
        brc_status status = brc_writer_metadata(writer, k, v, &err);
        if (status != BRC_OK) {
            ext_raise(status, &err);
            return -1;
        }
    }
    return 0;
}

/* write(path, [(name, array)], {key: value}, overwrite) */
static PyObject *file_write(PyObject *module, PyObject *args) {
    PyObject *encoded = NULL, *rows, *metadata;
    int overwrite, failed;
    brc_writer *writer = NULL;
    brc_error err = {0};
    brc_status status;
    (void)module;
    if (!PyArg_ParseTuple(args, "O&O!O!p", PyUnicode_FSConverter, &encoded, &PyList_Type, &rows, &PyDict_Type,
                          &metadata, &overwrite)) {
        Py_XDECREF(encoded);
        return NULL;
    }
    brc_write_options options = {sizeof options, (uint32_t)overwrite};
    status = brc_writer_new(PyBytes_AsString(encoded), &options, &writer, &err);
    Py_DECREF(encoded);
    if (status != BRC_OK) return ext_raise(status, &err);
    Py_ssize_t count = PyList_Size(rows);
    item *items = calloc((size_t)count + 1, sizeof *items);
    failed = items == NULL;
    if (failed) PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < count && !failed; i++) failed = declare(writer, PyList_GetItem(rows, i), &items[i]) != 0;
    failed = failed || describe(writer, metadata) != 0;
    if (!failed) {
        Py_BEGIN_ALLOW_THREADS status = fill(writer, items, count, &err);
        if (status == BRC_OK) status = brc_writer_finish(writer, &err);
        else brc_writer_discard(writer);
        Py_END_ALLOW_THREADS failed = status != BRC_OK;
        if (failed) ext_raise(status, &err);
    } else {
        brc_writer_discard(writer);
    }
    for (Py_ssize_t i = 0; i < count && items != NULL; i++) ext_view_release(&items[i].view);
    free(items);
    if (failed) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"read", file_read, METH_O,
     "read(path, /)\n--\n\n({name: (format, shape, bytes)}, metadata) of a safetensors file, index or folder."},
    {"write", file_write, METH_VARARGS,
     "write(path, arrays, metadata, overwrite, /)\n--\n\nWrites [(name, array)] as one safetensors file."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "breccia._file",
    .m_doc = "libbreccia_file's containers for Python objects; breccia.bridges is its only user.",
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__file(void);
PyMODINIT_FUNC PyInit__file(void) { return PyModuleDef_Init(&definition); }
