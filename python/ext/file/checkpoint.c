/* SPDX-License-Identifier: Apache-2.0
 * Checkpoint: brc_checkpoint for Python. What it hands out are Memory objects over the map; each keeps the file open.
 */
#include "file.h"

#include <stdlib.h>
#include <string.h>

typedef struct checkpoint {
    PyObject_HEAD brc_checkpoint *c;
} checkpoint;

typedef struct memory {
    PyObject_HEAD void *bytes;
    Py_ssize_t length;
    brc_owned owned;  /* a rearranged tensor; released with this */
    PyObject *keeper; /* the Checkpoint whose map it is, or the Memory that owns the bytes */
} memory;

brc_dialect file_dialect(const char *name) {
    brc_dialect dialect = brc_dialect_find(name);
    if (dialect == BRC_DIALECT_COUNT) PyErr_Format(PyExc_ValueError, "there is no dialect '%s'", name);
    return dialect;
}

static PyObject *new_object(PyTypeObject *type) { return ((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0); }

static void free_object(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* -------------------------------------------------------------------------------------------------- Memory */

static void memory_free(PyObject *object) {
    memory *self = (memory *)object;
    brc_release(&self->owned);
    Py_XDECREF(self->keeper);
    free_object(object);
}

static int memory_get(PyObject *object, Py_buffer *b, int flags) {
    const memory *self = (const memory *)object;
    return PyBuffer_FillInfo(b, object, self->bytes, self->length, 1, flags);
}

static PyType_Slot memory_slots[] = {
    {Py_tp_dealloc, memory_free},
    {Py_bf_getbuffer, memory_get},
    {Py_tp_doc, "Read-only bytes of a checkpoint, by the buffer protocol."},
    {0, NULL},
};
PyType_Spec file_memory_spec = {"breccia._file.Memory", sizeof(memory), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, memory_slots};

static PyObject *memory_of(const file_state *state, const void *bytes, int64_t length, PyObject *keeper) {
    static char nothing;
    memory *made = (memory *)new_object(state->memory);
    if (made == NULL) return NULL;
    made->bytes = bytes == NULL ? &nothing : (void *)(uintptr_t)bytes;
    made->length = (Py_ssize_t)length;
    made->keeper = Py_NewRef(keeper);
    return (PyObject *)made;
}

/* ---------------------------------------------------------------------------------------------- Checkpoint */

static const file_state *state_of(PyObject *object) { return PyType_GetModuleState(Py_TYPE(object)); }

static PyObject *checkpoint_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"path", "dialect", NULL};
    PyObject *encoded = NULL;
    const char *word = NULL;
    brc_error err = {0};
    brc_status status;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&|z:Checkpoint", names, PyUnicode_FSConverter, &encoded, &word))
        return NULL;
    brc_checkpoint_options options = {.size = sizeof options};
    checkpoint *self = NULL;
    if (word != NULL) options.dialect = 1 + (uint32_t)file_dialect(word);
    if (!PyErr_Occurred()) self = (checkpoint *)new_object(type);
    if (self != NULL) {
        const char *path = PyBytes_AsString(encoded);
        Py_BEGIN_ALLOW_THREADS status = brc_checkpoint_open(path, &options, &self->c, &err);
        Py_END_ALLOW_THREADS if (status != BRC_OK) {
            Py_DECREF(self);
            self = NULL;
            ext_raise(status, &err);
        }
    }
    Py_DECREF(encoded);
    return (PyObject *)self;
}

static void checkpoint_free(PyObject *object) {
    brc_checkpoint_close(((checkpoint *)object)->c);
    free_object(object);
}

static PyObject *shape_tuple(int64_t rank, const int64_t *shape) {
    PyObject *tuple = PyTuple_New((Py_ssize_t)rank);
    for (int64_t i = 0; i < rank && tuple != NULL; i++)
        PyTuple_SetItem(tuple, (Py_ssize_t)i, PyLong_FromLongLong(shape[i]));
    return tuple;
}

/* Appends and lets go; -1 on failure. */
static int append(PyObject *list, PyObject *item) {
    const int failed = item == NULL || PyList_Append(list, item) != 0;
    Py_XDECREF(item);
    return failed ? -1 : 0;
}

static PyObject *parts_of(const brc_entry *entry) {
    PyObject *list = PyList_New(0);
    for (size_t i = 0; i < entry->n_parts && list != NULL; i++) {
        const brc_named_array *a = entry->parts[i].array;
        if (append(list, Py_BuildValue("(sssN)", entry->parts[i].role, a->name, a->dtype,
                                       shape_tuple(a->rank, a->shape))) != 0)
            Py_CLEAR(list);
    }
    return list;
}

/* entries() -> [(name, dialect, scaled, shape, recipe, meaning, evidence, [(role, tensor, dtype, shape)])] */
static PyObject *checkpoint_entries(PyObject *object, PyObject *unused) {
    const brc_checkpoint *c = ((checkpoint *)object)->c;
    PyObject *list = PyList_New(0);
    (void)unused;
    for (size_t i = 0; i < brc_checkpoint_count(c) && list != NULL; i++) {
        const brc_entry *e = brc_checkpoint_at(c, i);
        const int scaled = e->tensor.format != BRC_NONE;
        const brc_named_array *data = e->parts[0].array;
        PyObject *shape = scaled ? shape_tuple(e->tensor.rank, e->tensor.shape) : shape_tuple(data->rank, data->shape);
        if (append(list,
                   Py_BuildValue("(ssONsssN)", e->name, brc_dialect_get(e->dialect)->name, scaled ? Py_True : Py_False,
                                 shape, e->recipe, e->meaning, e->evidence, parts_of(e))) != 0)
            Py_CLEAR(list);
    }
    return list;
}

/* findings() -> [(severity, file, tensor, text)] */
static PyObject *checkpoint_findings(PyObject *object, PyObject *unused) {
    static const char *const severities[] = {"note", "warning", "ambiguity", "error"};
    const brc_checkpoint *c = ((checkpoint *)object)->c;
    PyObject *list = PyList_New(0);
    (void)unused;
    for (size_t i = 0; i < brc_checkpoint_findings(c) && list != NULL; i++) {
        const brc_finding *f = brc_checkpoint_finding(c, i);
        if (append(list, Py_BuildValue("(ssss)", severities[f->severity], f->file, f->tensor, f->text)) != 0)
            Py_CLEAR(list);
    }
    return list;
}

/* metadata() -> {key: value} */
static PyObject *checkpoint_metadata(PyObject *object, PyObject *unused) {
    const brc_file *file = brc_checkpoint_file(((checkpoint *)object)->c);
    PyObject *dict = PyDict_New();
    (void)unused;
    for (size_t i = 0; i < brc_file_metadata_count(file) && dict != NULL; i++) {
        const char *value, *key = brc_file_metadata_at(file, i, &value);
        PyObject *text = PyUnicode_FromString(value);
        if (text == NULL || PyDict_SetItemString(dict, key, text) != 0) Py_CLEAR(dict);
        Py_XDECREF(text);
    }
    return dict;
}

static PyObject *checkpoint_check(PyObject *object, PyObject *unused) {
    brc_error err = {0};
    const brc_status status = brc_checkpoint_usable(((checkpoint *)object)->c, &err);
    (void)unused;
    if (status != BRC_OK) return ext_raise(status, &err);
    Py_RETURN_NONE;
}

static const brc_entry *find(PyObject *object, PyObject *name) {
    const char *text = PyUnicode_AsUTF8AndSize(name, NULL);
    const brc_entry *entry = text == NULL ? NULL : brc_checkpoint_find(((checkpoint *)object)->c, text);
    if (entry == NULL && text != NULL) PyErr_SetObject(PyExc_KeyError, name);
    return entry;
}

/* array(name) -> (format, shape, Memory) of a plain tensor */
static PyObject *checkpoint_array(PyObject *object, PyObject *name) {
    const brc_entry *entry = find(object, name);
    if (entry == NULL) return NULL;
    const brc_named_array *a = entry->parts[0].array;
    return Py_BuildValue("(sNN)", brc_format_get((brc_format)a->array.format)->name, shape_tuple(a->rank, a->shape),
                         memory_of(state_of(object), a->array.data, a->bytes, object));
}

/* (format, number of numbers per {batch, row, column}, Memory); None for an absent table */
static PyObject *table_of(const file_state *state, const brc_tensor *t, const brc_table *table, PyObject *keeper) {
    int64_t counts[3];
    brc_error err = {0};
    if (table->data == NULL) Py_RETURN_NONE;
    const brc_status status = brc_block_counts(t->rank, t->shape, table->block, counts, &err);
    if (status != BRC_OK) return ext_raise(status, &err);
    const brc_format_info *f = brc_format_get((brc_format)table->format);
    return Py_BuildValue("(s(LLL)N)", f->name, counts[0], counts[1], counts[2],
                         memory_of(state, table->data, counts[0] * counts[1] * counts[2] * f->bits / 8, keeper));
}

static PyObject *text_of(const brc_recipe *recipe) {
    char text[512];
    brc_recipe_text(recipe, text, sizeof text);
    return PyUnicode_FromString(text);
}

static PyObject *describe(const file_state *state, const brc_entry *entry, memory *holder) {
    const brc_tensor *t = &holder->owned.tensor;
    const brc_block b = t->scale.block;
    brc_recipe recipe;
    brc_error err = {0};
    const brc_status status = brc_entry_recipe(entry, t, &recipe, &err);
    int64_t rows = 1;
    PyObject *keeper = (PyObject *)holder, *index = Py_NewRef(Py_None);
    if (status != BRC_OK) {
        Py_DECREF(index);
        return ext_raise(status, &err);
    }
    for (int i = 0; i + 1 < t->rank; i++) rows *= t->shape[i];
    if (t->group_index != NULL) {
        Py_DECREF(index);
        index = memory_of(state, t->group_index, t->shape[t->rank - 1] * (int64_t)sizeof(int32_t), keeper);
    }
    return Py_BuildValue("(NNi(III)NNNNN)", text_of(&recipe), shape_tuple(t->rank, t->shape), (int)t->layout, b.batch,
                         b.rows, b.cols, memory_of(state, t->data, rows * t->row_pitch, keeper),
                         table_of(state, t, &t->scale, keeper), table_of(state, t, &t->global, keeper),
                         table_of(state, t, &t->zero, keeper), index);
}

/* load(name) -> (recipe, shape, layout, block, data, scale, global_scale, zero_point, group_index) */
static PyObject *checkpoint_load(PyObject *object, PyObject *name) {
    const file_state *state = state_of(object);
    const brc_entry *entry = find(object, name);
    const brc_checkpoint *c = ((checkpoint *)object)->c;
    brc_error err = {0};
    brc_status status;
    if (entry == NULL) return NULL;
    memory *holder = (memory *)new_object(state->memory);
    if (holder == NULL) return NULL;
    holder->keeper = Py_NewRef(object);
    Py_BEGIN_ALLOW_THREADS status = brc_checkpoint_load(c, entry, &holder->owned, &err);
    Py_END_ALLOW_THREADS PyObject *made = status == BRC_OK ? describe(state, entry, holder) : ext_raise(status, &err);
    Py_DECREF(holder);
    return made;
}

const brc_entry *file_origin(const file_state *state, PyObject *pair) {
    if (!PyTuple_Check(pair) || PyTuple_Size(pair) != 2) return NULL;
    PyObject *from = PyTuple_GetItem(pair, 0), *name = PyTuple_GetItem(pair, 1);
    if (!PyObject_TypeCheck(from, state->checkpoint) || !PyUnicode_Check(name)) return NULL;
    const brc_entry *entry = find(from, name);
    PyErr_Clear();
    return entry;
}

/* An open file does not travel: a tensor that is pickled leaves it behind, and with it the way back. A copy keeps it.
 */
static PyObject *checkpoint_reduce(PyObject *object, PyObject *unused) {
    (void)object;
    (void)unused;
    return Py_BuildValue("(O())", Py_TYPE(Py_None));
}

static PyObject *checkpoint_same(PyObject *object, PyObject *memo) {
    (void)memo;
    return Py_NewRef(object);
}

static PyMethodDef methods[] = {
    {"entries", checkpoint_entries, METH_NOARGS,
     "entries($self, /)\n--\n\n[(name, dialect, scaled, shape, recipe, meaning, evidence, parts)]."},
    {"findings", checkpoint_findings, METH_NOARGS, "findings($self, /)\n--\n\n[(severity, file, tensor, text)]."},
    {"metadata", checkpoint_metadata, METH_NOARGS, "metadata($self, /)\n--\n\nPairs of the file."},
    {"check", checkpoint_check, METH_NOARGS, "check($self, /)\n--\n\nRaises the first finding that must stop."},
    {"array", checkpoint_array, METH_O, "array($self, name, /)\n--\n\n(format, shape, memory) of a plain tensor."},
    {"__reduce__", checkpoint_reduce, METH_NOARGS, NULL},
    {"__deepcopy__", checkpoint_same, METH_O, NULL},
    {"load", checkpoint_load, METH_O,
     "load($self, name, /)\n--\n\n(recipe, shape, layout, block, data, scale, global_scale, zero_point, group_index)."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot checkpoint_slots[] = {
    {Py_tp_new, checkpoint_new},
    {Py_tp_dealloc, checkpoint_free},
    {Py_tp_methods, methods},
    {Py_tp_doc, "Checkpoint(path, dialect=None)\n--\n\nAn opened checkpoint, by brc_checkpoint_open."},
    {0, NULL},
};
PyType_Spec file_checkpoint_spec = {"breccia._file.Checkpoint", sizeof(checkpoint), 0, Py_TPFLAGS_DEFAULT,
                                    checkpoint_slots};
