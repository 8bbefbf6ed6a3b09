/* SPDX-License-Identifier: Apache-2.0
 * Buffer: an array for libraries that take one by DLPack and have no empty array that C may fill (JAX), and another
 * name for the bytes of an array (uint8 codes as E4M3). Its memory is its own, 64-byte aligned, or another object's. */
#include "dlpack.h"
#include "view.h"

#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 64 /* XLA copies what is less aligned */

typedef struct ext_buffer {
    PyObject_HEAD brc_array array;
    int32_t item;
    int readonly;
    Py_ssize_t shape[BRC_MAX_RANK], strides[BRC_MAX_RANK]; /* bytes, for the buffer protocol */
    void *memory;                                          /* own memory */
    ext_view owner;                                        /* or another object's */
} ext_buffer;

static int shape_of(PyObject *sequence, int64_t *shape) {
    Py_ssize_t rank = PySequence_Size(sequence);
    if (rank < 0) return -1;
    if (rank > BRC_MAX_RANK) {
        PyErr_Format(PyExc_ValueError, "shape has %zd dimensions; up to %d are possible", rank, BRC_MAX_RANK);
        return -1;
    }
    for (Py_ssize_t i = 0; i < rank; i++) {
        PyObject *n = PySequence_GetItem(sequence, i);
        shape[i] = n == NULL ? -1 : PyLong_AsLongLong(n);
        Py_XDECREF(n);
        if (PyErr_Occurred()) return -1;
        if (shape[i] < 0) {
            PyErr_SetString(PyExc_ValueError, "shape has a negative dimension");
            return -1;
        }
    }
    return (int)rank;
}

static int fill(ext_buffer *self, PyObject *shape, brc_format format, PyObject *of) {
    int64_t sides[BRC_MAX_RANK], bytes;
    int rank = shape_of(shape, sides);
    if (rank < 0) return -1;
    bytes = brc_format_get(format)->bits / 8;
    self->item = (int32_t)bytes;
    for (int i = 0; i < rank; i++)
        if (__builtin_mul_overflow(bytes, sides[i], &bytes) || bytes > PY_SSIZE_T_MAX - ALIGNMENT) {
            PyErr_SetString(PyExc_OverflowError, "shape: too many bytes");
            return -1;
        }
    void *data;
    if (of == Py_None) {
        if ((self->memory = malloc((size_t)bytes + ALIGNMENT)) == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        data = (void *)(((uintptr_t)self->memory + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    } else {
        if (ext_view_get(&self->owner, of, "of", EXT_READ) != 0 || ext_view_dense(&self->owner, "of") != 0) return -1;
        if (ext_view_bytes(&self->owner) != bytes) {
            PyErr_Format(PyExc_ValueError, "of has %lld bytes; the shape needs %lld",
                         (long long)ext_view_bytes(&self->owner), (long long)bytes);
            return -1;
        }
        data = self->owner.array.data;
        self->readonly = self->owner.readonly;
    }
    self->array = brc_array_of(format, rank, sides, data);
    for (int i = 0; i < rank; i++) {
        self->shape[i] = (Py_ssize_t)sides[i];
        self->strides[i] = (Py_ssize_t)(self->array.stride[i] * self->item);
    }
    return 0;
}

static PyObject *buffer_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"shape", "format", "of", NULL};
    PyObject *shape, *of = Py_None;
    const char *word;
    uint8_t code, bits;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "Os|O:Buffer", names, &shape, &word, &of)) return NULL;
    brc_format format = brc_format_find(word);
    if (!ext_format_to_dlpack(format, &code, &bits))
        return PyErr_Format(PyExc_ValueError, "%s arrays cannot be exchanged", word);
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    ext_buffer *self = (ext_buffer *)allocate(type, 0);
    if (self == NULL) return NULL;
    if (fill(self, shape, format, of) != 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void buffer_free(PyObject *object) {
    ext_buffer *self = (ext_buffer *)object;
    PyTypeObject *type = Py_TYPE(object);
    free(self->memory);
    ext_view_release(&self->owner);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* ------------------------------------------------------------------------------------------ buffer protocol */

static int buffer_get(PyObject *object, Py_buffer *b, int flags) {
    ext_buffer *self = (ext_buffer *)object;
    if ((flags & PyBUF_WRITABLE) != 0 && self->readonly) {
        PyErr_SetString(PyExc_BufferError, "the memory is read-only");
        b->obj = NULL; /* the protocol wants it */
        return -1;
    }
    b->buf = self->array.data;
    b->obj = Py_NewRef(object);
    b->itemsize = self->item;
    b->readonly = self->readonly;
    b->ndim = self->array.rank;
    b->len = self->item;
    for (int i = 0; i < b->ndim; i++) b->len *= self->shape[i];
    b->format = (flags & PyBUF_FORMAT) != 0 ? (char *)(uintptr_t)ext_struct_code((brc_format)self->array.format) : NULL;
    b->shape = (flags & PyBUF_ND) != 0 ? self->shape : NULL;
    b->strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? self->strides : NULL;
    b->suboffsets = NULL;
    b->internal = NULL;
    return 0;
}

/* ---------------------------------------------------------------------------------------------------- DLPack */

/* The struct that travels, with room for shape and strides. Both kinds of deleter may be called from any thread. */
typedef struct export {
    union {
        dl_managed legacy;
        dl_versioned versioned;
    } managed;
    int64_t shape[BRC_MAX_RANK], strides[BRC_MAX_RANK];
    PyObject *owner;
}
export;

static void drop(export *e) {
    if (Py_IsInitialized()) {
        PyGILState_STATE held = PyGILState_Ensure();
        Py_DECREF(e->owner);
        PyGILState_Release(held);
    }
    free(e);
}
static void drop_legacy(dl_managed *m) { drop(m->context); }
static void drop_versioned(dl_versioned *m) { drop(m->context); }

/* A capsule that nobody took. */
static void forget(PyObject *capsule) {
    if (PyCapsule_IsValid(capsule, "dltensor"))
        drop(((dl_managed *)PyCapsule_GetPointer(capsule, "dltensor"))->context);
    else if (PyCapsule_IsValid(capsule, "dltensor_versioned"))
        drop(((dl_versioned *)PyCapsule_GetPointer(capsule, "dltensor_versioned"))->context);
}

static PyObject *buffer_dlpack(PyObject *object, PyObject *args, PyObject *keywords) {
    static char *names[] = {"stream", "max_version", "dl_device", "copy", NULL};
    PyObject *stream = Py_None, *version = Py_None, *device = Py_None, *copy = Py_None;
    ext_buffer *self = (ext_buffer *)object;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|$OOOO:__dlpack__", names, &stream, &version, &device, &copy))
        return NULL;
    if (copy == Py_True) {
        PyErr_SetString(PyExc_BufferError, "a copy is not made here");
        return NULL;
    }
    long major = 0;
    if (version != Py_None) {
        PyObject *first = PySequence_GetItem(version, 0);
        if (first == NULL) return NULL;
        major = PyLong_AsLong(first);
        Py_DECREF(first);
        if (major == -1 && PyErr_Occurred()) return NULL;
    }
    if (self->readonly && major < 1) {
        PyErr_SetString(PyExc_BufferError, "read-only memory needs DLPack 1.0; pass max_version=(1, 0)");
        return NULL;
    }
    export *e = calloc(1, sizeof *e);
    if (e == NULL) return PyErr_NoMemory();
    dl_tensor t = {.data = self->array.data,
                   .device = {DL_CPU, 0},
                   .ndim = self->array.rank,
                   .shape = e->shape,
                   .strides = e->strides};
    memcpy(e->shape, self->array.shape, sizeof e->shape);
    memcpy(e->strides, self->array.stride, sizeof e->strides);
    t.dtype.lanes = 1;
    ext_format_to_dlpack((brc_format)self->array.format, &t.dtype.code, &t.dtype.bits);
    PyObject *capsule;
    if (major >= 1) {
        e->managed.versioned =
            (dl_versioned){DLPACK_MAJOR, DLPACK_MINOR, e, drop_versioned, self->readonly ? DL_READ_ONLY : 0, t};
        capsule = PyCapsule_New(&e->managed.versioned, "dltensor_versioned", forget);
    } else {
        e->managed.legacy = (dl_managed){t, e, drop_legacy};
        capsule = PyCapsule_New(&e->managed.legacy, "dltensor", forget);
    }
    if (capsule == NULL) free(e);
    else e->owner = Py_NewRef(object);
    return capsule;
}

static PyObject *buffer_device(PyObject *self, PyObject *unused) {
    (void)self;
    (void)unused;
    return Py_BuildValue("(ii)", DL_CPU, 0);
}

static PyObject *buffer_shape(PyObject *object, void *unused) {
    ext_buffer *self = (ext_buffer *)object;
    PyObject *shape = PyTuple_New(self->array.rank);
    (void)unused;
    for (int i = 0; i < self->array.rank && shape != NULL; i++)
        PyTuple_SetItem(shape, i, PyLong_FromLongLong(self->array.shape[i]));
    return shape;
}

static PyObject *buffer_format(PyObject *object, void *unused) {
    (void)unused;
    return PyUnicode_FromString(brc_format_get((brc_format)((ext_buffer *)object)->array.format)->name);
}

static PyMethodDef buffer_methods[] = {
    {"__dlpack__", (PyCFunction)(void (*)(void))buffer_dlpack, METH_VARARGS | METH_KEYWORDS,
     "__dlpack__($self, *, stream=None, max_version=None, dl_device=None, copy=None)\n--\n\nA DLPack capsule of the "
     "memory."},
    {"__dlpack_device__", buffer_device, METH_NOARGS, "__dlpack_device__($self)\n--\n\n(1, 0): the CPU."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef buffer_fields[] = {
    {"shape", buffer_shape, NULL, "numbers along each axis", NULL},
    {"format", buffer_format, NULL, "name of the format", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot buffer_slots[] = {
    {Py_tp_doc,
     "Buffer(shape, format, of=None): an array for exchange by DLPack and the buffer protocol.\n\n"
     "With `of`, the bytes of that array under another format; else new memory, 64-byte aligned, not cleared."},
    {Py_tp_new, buffer_new},
    {Py_tp_dealloc, buffer_free},
    {Py_tp_methods, buffer_methods},
    {Py_tp_getset, buffer_fields},
    {Py_bf_getbuffer, buffer_get},
    {0, NULL},
};

PyType_Spec ext_buffer_spec = {"breccia._c.Buffer", sizeof(ext_buffer), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, buffer_slots};
