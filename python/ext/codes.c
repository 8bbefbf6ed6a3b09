/* SPDX-License-Identifier: Apache-2.0
 * Numbers without scales, and bytes. */
#include "view.h"

/* encode(format, x, row): x float32, row its packed codes. decode(format, row, x): back. */
static PyObject *code(PyObject *const *args, Py_ssize_t count, int encode) {
    ext_view x = {0}, row = {0};
    brc_error err = {0};
    brc_status status = BRC_OK;
    const char *word;
    int failed = 1;
    if (count != 3) return PyErr_Format(PyExc_TypeError, "three arguments are needed, not %zd", count);
    if ((word = PyUnicode_AsUTF8AndSize(args[0], NULL)) == NULL) return NULL;
    brc_format format = brc_format_find(word);
    if (format == BRC_NONE) return PyErr_Format(PyExc_ValueError, "there is no format '%s'", word);
    if (ext_view_get(&x, args[encode ? 1 : 2], "x", encode ? EXT_READ : EXT_WRITE) != 0) goto end;
    if (ext_view_get(&row, args[encode ? 2 : 1], "row", encode ? EXT_WRITE : EXT_READ) != 0) goto end;
    if (encode ? ext_view_dense(&x, "x") != 0 : ext_view_dense(&row, "row") != 0) goto end;
    if (x.array.format != BRC_F32 || !ext_view_is_dense(&x) || !ext_view_is_dense(&row)) {
        PyErr_SetString(PyExc_TypeError, "x must be float32, and what is written must be dense");
        goto end;
    }
    int64_t n = ext_view_bytes(&x) / 4;
    if (brc_row_bytes(format, n) != ext_view_bytes(&row)) {
        PyErr_Format(PyExc_ValueError, "%lld numbers of %s are %lld bytes; the row has %lld", (long long)n, word,
                     (long long)brc_row_bytes(format, n), (long long)ext_view_bytes(&row));
        goto end;
    }
    Py_BEGIN_ALLOW_THREADS status = encode ? brc_encode(format, x.array.data, n, row.array.data, &err)
                                           : brc_decode(format, row.array.data, n, x.array.data, &err);
    Py_END_ALLOW_THREADS failed = status != BRC_OK;
    if (failed) ext_raise(status, &err);
end:
    ext_view_release(&x);
    ext_view_release(&row);
    if (failed) return NULL;
    Py_RETURN_NONE;
}

static PyObject *encode(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    return code(args, count, 1);
}

static PyObject *decode(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    return code(args, count, 0);
}

static PyObject *bytes_of(PyObject *module, PyObject *object) {
    ext_view v = {0};
    PyObject *bytes = NULL;
    (void)module;
    if (ext_view_get(&v, object, "array", EXT_READ) == 0 && ext_view_dense(&v, "array") == 0)
        bytes = PyBytes_FromStringAndSize(v.array.data, (Py_ssize_t)ext_view_bytes(&v));
    ext_view_release(&v);
    return bytes;
}

static PyObject *format_of(PyObject *module, PyObject *object) {
    ext_view v = {0};
    PyObject *name = NULL;
    (void)module;
    if (ext_view_get(&v, object, "array", EXT_READ) == 0)
        name = PyUnicode_FromString(brc_format_get((brc_format)v.array.format)->name);
    ext_view_release(&v);
    return name;
}

PyMethodDef ext_codes[] = {
    {"encode", (PyCFunction)(void (*)(void))encode, METH_FASTCALL,
     "encode(format, x, row, /)\n--\n\nfloat32 numbers as one packed row of codes."},
    {"decode", (PyCFunction)(void (*)(void))decode, METH_FASTCALL,
     "decode(format, row, x, /)\n--\n\nThe numbers of a packed row of codes."},
    {"bytes_of", bytes_of, METH_O, "bytes_of(array, /)\n--\n\nThe bytes of an array in row-major order."},
    {"format_of", format_of, METH_O,
     "format_of(array, /)\n--\n\nName of an array's format; \"none\" if it is not understood."},
    {NULL, NULL, 0, NULL},
};
