/* SPDX-License-Identifier: Apache-2.0
 * Packed: a brc_packed as a frozen Python object. Products hold a reference while they use it. */
#include "operations.h"

#include <string.h>

typedef struct ext_packed {
    PyObject_HEAD brc_packed *packed;
    int rank;
    int64_t shape[BRC_MAX_RANK]; /* as the right side of a product: [.., K, N] */
} ext_packed;

const brc_packed *ext_packed_of(const ext_state *state, PyObject *object) {
    return PyObject_TypeCheck(object, state->packed) ? ((ext_packed *)object)->packed : NULL;
}

/* The shape of the operand, turned. */
static void set_shape(ext_packed *self, const brc_operand *weight) {
    const int rank = weight->scaled != NULL ? weight->scaled->rank : weight->plain->rank;
    const int64_t *shape = weight->scaled != NULL ? weight->scaled->shape : weight->plain->shape;
    self->rank = rank;
    memcpy(self->shape, shape, (size_t)rank * sizeof *shape);
    if (!weight->transposed) return;
    self->shape[rank - 2] = shape[rank - 1];
    self->shape[rank - 1] = shape[rank - 2];
}

/* Packed(weight, transpose, activations, threads) */
static PyObject *packed_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"weight", "transpose", "activations", "threads", NULL};
    PyObject *object, *threads;
    const char *word;
    int transpose;
    ext_tensor t = {0};
    ext_view plain = {0};
    brc_operand weight = {0};
    brc_options options;
    brc_packed *packed = NULL;
    brc_error err = {0};
    brc_status status;
    ext_packed *self = NULL;
    const ext_state *state = PyType_GetModuleState(type);
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OpsO:Packed", names, &object, &transpose, &word, &threads))
        return NULL;
    const brc_format activations = brc_format_find(word);
    if (activations == BRC_NONE) return PyErr_Format(PyExc_ValueError, "there is no format '%s'", word);
    if (ext_threads_of(threads, &options) != 0) return NULL;
    weight.transposed = (uint32_t)transpose;
    if (ext_operand_of(object, "weight", state, &t, &plain, &weight) == 0) {
        Py_BEGIN_ALLOW_THREADS status = brc_pack_new(&weight, activations, &options, &packed, &err);
        Py_END_ALLOW_THREADS if (status != BRC_OK) ext_raise(status, &err);
        else self = (ext_packed *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
        if (self != NULL) {
            self->packed = packed;
            set_shape(self, &weight);
        } else {
            brc_packed_free(packed);
        }
    }
    ext_tensor_release(&t);
    ext_view_release(&plain);
    return (PyObject *)self;
}

static void packed_free(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    brc_packed_free(((ext_packed *)self)->packed);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyObject *packed_shape(PyObject *self, void *unused) {
    const ext_packed *p = (const ext_packed *)self;
    PyObject *shape = PyTuple_New(p->rank);
    (void)unused;
    for (int i = 0; shape != NULL && i < p->rank; i++) {
        PyObject *side = PyLong_FromLongLong(p->shape[i]);
        if (side == NULL || PyTuple_SetItem(shape, i, side) != 0) {
            Py_DECREF(shape);
            return NULL;
        }
    }
    return shape;
}

static PyObject *packed_kind(PyObject *self, void *unused) {
    (void)unused;
    return PyUnicode_FromString(brc_packed_kind(((ext_packed *)self)->packed));
}

static PyObject *packed_bytes(PyObject *self, void *unused) {
    (void)unused;
    return PyLong_FromLongLong(brc_packed_bytes(((ext_packed *)self)->packed));
}

static PyGetSetDef packed_fields[] = {
    {"shape", packed_shape, NULL, "as the right side of a product: (.., K, N)", NULL},
    {"kind", packed_kind, NULL, "the order in which it is kept", NULL},
    {"nbytes", packed_bytes, NULL, "bytes of memory that it takes", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot packed_slots[] = {
    {Py_tp_doc, "Packed(weight, transpose, activations, threads): brc_pack_new of a tensor's tuple or a plain array."},
    {Py_tp_new, packed_new},
    {Py_tp_dealloc, packed_free},
    {Py_tp_getset, packed_fields},
    {0, NULL},
};

PyType_Spec ext_packed_spec = {"breccia._c.Packed", sizeof(ext_packed), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, packed_slots};
