/* SPDX-License-Identifier: Apache-2.0
 * Arrays of other libraries as brc_array, without copies where the memory allows it. */
#include "view.h"

#include "dlpack.h"

#include <stdlib.h>
#include <string.h>

static int refuse(PyObject *kind, const char *name, const char *what) {
    PyErr_Format(kind, "%s: %s", name, what);
    return -1;
}

/* ------------------------------------------------------------------------------------------ buffer protocol */

static int from_buffer(ext_view *v, PyObject *object, const char *name, int access) {
    Py_buffer *b = &v->buffer;
    if (PyObject_GetBuffer(object, b, PyBUF_STRIDES | PyBUF_FORMAT | (access == EXT_WRITE ? PyBUF_WRITABLE : 0)) != 0)
        return -1;
    if (b->ndim > BRC_MAX_RANK) {
        PyErr_Format(PyExc_ValueError, "%s has %d dimensions; up to %d are possible", name, b->ndim, BRC_MAX_RANK);
        return -1;
    }
    if (b->itemsize < 1 || b->itemsize > INT32_MAX)
        return refuse(PyExc_TypeError, name, "elements of no size are no numbers");
    v->array.format = (uint8_t)ext_format_of_struct(b->format, b->itemsize);
    v->array.rank = (uint8_t)b->ndim;
    v->array.data = b->buf;
    v->item = (int32_t)b->itemsize;
    v->readonly = b->readonly;
    int whole = 1;
    for (int i = 0; i < b->ndim; i++) {
        v->array.shape[i] = b->shape[i];
        whole &= b->strides[i] % b->itemsize == 0;
        v->array.stride[i] = b->strides[i] / b->itemsize;
    }
    if (whole) return 0;
    if (access == EXT_WRITE) return refuse(PyExc_ValueError, name, "the strides are no whole elements");
    /* Fields of a record, for example: elements that no element stride can reach. */
    if ((v->copy = malloc((size_t)b->len + 1)) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (PyBuffer_ToContiguous(v->copy, b, b->len, 'C') != 0) return -1;
    v->array = brc_array_of((brc_format)v->array.format, v->array.rank, v->array.shape, v->copy);
    return 0;
}

/* ---------------------------------------------------------------------------------------------------- DLPack */

static int from_tensor(ext_view *v, const dl_tensor *t, const char *name, int access) {
    v->on_device = t->device.type == DL_CUDA || t->device.type == DL_CUDA_MANAGED;
    v->device = t->device.id;
    if (access & EXT_CUDA ? !v->on_device : t->device.type != DL_CPU && t->device.type != DL_CUDA_HOST) {
        PyErr_Format(PyExc_TypeError,
                     access & EXT_CUDA ? "%s is not on the GPU (DLPack type %d), as the other arrays are"
                                       : "%s is on a device (DLPack type %d); a CPU array is needed",
                     name, (int)t->device.type);
        return -1;
    }
    if (t->ndim > BRC_MAX_RANK || t->ndim < 0) {
        PyErr_Format(PyExc_ValueError, "%s has %d dimensions; up to %d are possible", name, (int)t->ndim, BRC_MAX_RANK);
        return -1;
    }
    brc_format format = ext_format_of_dlpack(t->dtype.code, t->dtype.bits, t->dtype.lanes, &v->item);
    if (format == BRC_NONE) {
        /* What the codes below those of the 8-bit types are called; of the others a library's view as bytes is read. */
        static const char *const kinds[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
        if (t->dtype.code < sizeof kinds / sizeof *kinds && t->dtype.lanes == 1)
            PyErr_Format(PyExc_TypeError, "%s is %s%d, which is not understood", name, kinds[t->dtype.code],
                         t->dtype.bits);
        else
            PyErr_Format(PyExc_TypeError,
                         "%s: DLPack type code %d with %d bits and %d lanes is not understood; view the array as uint8",
                         name, t->dtype.code, t->dtype.bits, t->dtype.lanes);
        return -1;
    }
    v->array = brc_array_of(format, t->ndim, t->shape, (char *)t->data + (t->data != NULL ? t->byte_offset : 0));
    for (int i = 0; i < t->ndim && t->strides != NULL; i++) v->array.stride[i] = t->strides[i];
    return 0;
}

static int from_capsule(ext_view *v, PyObject *capsule, const char *name, int access) {
    dl_versioned *versioned;
    dl_managed *legacy;
    if (PyCapsule_IsValid(capsule, "dltensor_versioned")) {
        versioned = PyCapsule_GetPointer(capsule, "dltensor_versioned");
        if (PyCapsule_SetName(capsule, "used_dltensor_versioned") != 0) return -1;
        v->managed = versioned;
        v->versioned = 1;
        if (versioned->major != DLPACK_MAJOR) {
            PyErr_Format(PyExc_BufferError, "%s: DLPack version %u.%u; %d is understood", name, versioned->major,
                         versioned->minor, DLPACK_MAJOR);
            return -1;
        }
        v->readonly = (versioned->flags & DL_READ_ONLY) != 0;
        return from_tensor(v, &versioned->tensor, name, access);
    }
    if (PyCapsule_IsValid(capsule, "dltensor")) {
        legacy = PyCapsule_GetPointer(capsule, "dltensor");
        if (PyCapsule_SetName(capsule, "used_dltensor") != 0) return -1;
        v->managed = legacy;
        return from_tensor(v, &legacy->tensor, name, access);
    }
    return refuse(PyExc_ValueError, name, "this capsule is no unused DLPack tensor");
}

/* obj.__dlpack__(max_version=(1, 3)), or without arguments where the producer is older. */
static PyObject *ask(PyObject *object) {
    PyObject *method = PyObject_GetAttrString(object, "__dlpack__"), *none = NULL, *keywords = NULL, *capsule = NULL;
    if (method == NULL) return NULL;
    none = PyTuple_New(0);
    keywords = Py_BuildValue("{s(ii)}", "max_version", DLPACK_MAJOR, DLPACK_MINOR);
    if (none != NULL && keywords != NULL) {
        capsule = PyObject_Call(method, none, keywords);
        if (capsule == NULL && PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Clear();
            capsule = PyObject_Call(method, none, NULL);
        }
    }
    Py_XDECREF(keywords);
    Py_XDECREF(none);
    Py_DECREF(method);
    return capsule;
}

/* -------------------------------------------------------------------------------------------------- both */

static int get(ext_view *v, PyObject *object, const char *name, int access) {
    int result;
    if (PyCapsule_CheckExact(object)) return from_capsule(v, object, name, access);
    if (PyObject_CheckBuffer(object) && !(access & EXT_CUDA)) {
        if (from_buffer(v, object, name, access) == 0) return 0;
        /* JAX offers both and has more types by DLPack. */
        if (v->buffer.obj != NULL || access == EXT_WRITE || !PyErr_ExceptionMatches(PyExc_BufferError) ||
            !PyObject_HasAttrString(object, "__dlpack__"))
            return -1;
        PyErr_Clear();
    } else if (!PyObject_HasAttrString(object, "__dlpack__"))
        return refuse(PyExc_TypeError, name, "an array with the buffer protocol or __dlpack__ is needed");
    PyObject *capsule = ask(object);
    if (capsule == NULL) return -1;
    result = from_capsule(v, capsule, name, access);
    Py_DECREF(capsule);
    return result;
}

static int64_t elements(const brc_array *a) {
    int64_t n = 1;
    for (int i = 0; i < a->rank; i++) n *= a->shape[i];
    return n;
}

/* Sizes that others made up must not overflow ours. */
static int check_size(const ext_view *v, const char *name) {
    int64_t bytes = v->item;
    for (int i = 0; i < v->array.rank; i++) {
        if (v->array.shape[i] < 0) return refuse(PyExc_ValueError, name, "the shape has a negative dimension");
        if (__builtin_mul_overflow(bytes, v->array.shape[i], &bytes))
            return refuse(PyExc_OverflowError, name, "the shape has too many bytes");
    }
    return 0;
}

int ext_view_get(ext_view *v, PyObject *object, const char *name, int access) {
    static uint64_t nothing; /* what an array without elements points to: NULL is for what is not there */
    memset(v, 0, sizeof *v);
    v->array.size = sizeof v->array;
    if (PyTuple_CheckExact(object) && PyTuple_Size(object) == 2) {
        PyObject *word = PyTuple_GetItem(object, 1);
        const char *text = PyUnicode_Check(word) ? PyUnicode_AsUTF8AndSize(word, NULL) : NULL;
        const brc_format_info *info = text == NULL ? NULL : brc_format_get(brc_format_find(text));
        if (info == NULL || info->bits == 0)
            return refuse(PyExc_ValueError, name, "(array, format): there is no such format");
        if (get(v, PyTuple_GetItem(object, 0), name, access) != 0) return -1;
        if (v->item * 8 != info->bits && (v->item != 1 || info->bits > 8)) /* a byte may hold several codes */
            return refuse(PyExc_ValueError, name, "(array, format): sizes differ");
        v->array.format = (uint8_t)brc_format_find(text);
    } else if (get(v, object, name, access) != 0) {
        return -1;
    }
    if (access & EXT_WRITE && v->readonly) return refuse(PyExc_ValueError, name, "the array is read-only");
    if (check_size(v, name) != 0) return -1;
    if (v->array.data == NULL) {
        if (elements(&v->array) != 0) return refuse(PyExc_ValueError, name, "the array has no memory");
        v->array.data = &nothing;
    }
    return 0;
}

int64_t ext_view_bytes(const ext_view *v) { return elements(&v->array) * v->item; }

int ext_view_is_dense(const ext_view *v) {
    int64_t stride = 1;
    if (elements(&v->array) <= 1) return 1;
    for (int i = v->array.rank - 1; i >= 0; i--) {
        if (v->array.shape[i] != 1 && v->array.stride[i] != stride) return 0;
        stride *= v->array.shape[i];
    }
    return 1;
}

int ext_view_dense(ext_view *v, const char *name) {
    Py_ssize_t shape[BRC_MAX_RANK], strides[BRC_MAX_RANK];
    Py_buffer b = {0};
    if (ext_view_is_dense(v)) return 0;
    if (v->on_device) return refuse(PyExc_ValueError, name, "an array on the GPU must be contiguous here");
    b.buf = v->array.data;
    b.len = (Py_ssize_t)ext_view_bytes(v);
    b.itemsize = v->item;
    b.ndim = v->array.rank;
    b.shape = shape;
    b.strides = strides;
    for (int i = 0; i < b.ndim; i++) {
        shape[i] = (Py_ssize_t)v->array.shape[i];
        strides[i] = (Py_ssize_t)(v->array.stride[i] * v->item);
    }
    if ((v->copy = malloc((size_t)b.len + 1)) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (PyBuffer_ToContiguous(v->copy, &b, b.len, 'C') != 0)
        return refuse(PyExc_ValueError, name, "the strides are not understood");
    v->array = brc_array_of((brc_format)v->array.format, v->array.rank, v->array.shape, v->copy);
    return 0;
}

void ext_view_release(ext_view *v) {
    PyObject *kind, *value, *trace; /* a deleter may run Python code, which must not meet our exception */
    free(v->copy);
    v->copy = NULL;
    PyErr_Fetch(&kind, &value, &trace);
    if (v->buffer.obj != NULL) PyBuffer_Release(&v->buffer);
    if (v->managed != NULL && v->versioned) {
        dl_versioned *m = v->managed;
        if (m->deleter != NULL) m->deleter(m);
    } else if (v->managed != NULL) {
        dl_managed *m = v->managed;
        if (m->deleter != NULL) m->deleter(m);
    }
    v->managed = NULL;
    PyErr_Restore(kind, value, trace);
}
