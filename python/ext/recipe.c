/* SPDX-License-Identifier: Apache-2.0
 * Recipe: a brc_recipe as a frozen Python object. */
#include "ext.h"

#include <stddef.h>
#include <string.h>

static PyObject *recipe_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    const char *text;
    brc_recipe recipe;
    brc_error err = {0};
    brc_status status;
    ext_recipe *self;
    static char *names[] = {"text", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "s:Recipe", names, &text)) return NULL;
    if ((status = brc_recipe_parse(text, &recipe, &err)) != BRC_OK) return ext_raise(status, &err);
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    if ((self = (ext_recipe *)allocate(type, 0)) == NULL) return NULL;
    self->recipe = recipe;
    return (PyObject *)self;
}

static void recipe_free(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

const brc_recipe *ext_recipe_of(const ext_state *state, PyObject *object) {
    if (PyObject_TypeCheck(object, state->recipe)) return &((ext_recipe *)object)->recipe;
    PyErr_SetString(PyExc_TypeError, "recipe: an object of class breccia._c.Recipe is needed");
    return NULL;
}

static PyObject *text_of(const brc_recipe *recipe) {
    char text[512];
    brc_recipe_text(recipe, text, sizeof text);
    return PyUnicode_FromString(text);
}

static PyObject *recipe_text(PyObject *self, void *unused) {
    (void)unused;
    return text_of(&((ext_recipe *)self)->recipe);
}

static PyObject *recipe_class(PyObject *self, void *unused) {
    const brc_recipe_info *info = brc_recipe_get((brc_recipe_id)((ext_recipe *)self)->recipe.id);
    (void)unused;
    return PyUnicode_FromString(info == NULL ? "CustomScaling" : info->class_name);
}

static PyObject *recipe_name(PyObject *self, void *unused) {
    const brc_recipe_info *info = brc_recipe_get((brc_recipe_id)((ext_recipe *)self)->recipe.id);
    (void)unused;
    return PyUnicode_FromString(info == NULL ? "custom" : info->name);
}

static PyObject *recipe_file_name(PyObject *self, void *unused) {
    const brc_recipe_info *info = brc_recipe_get((brc_recipe_id)((ext_recipe *)self)->recipe.id);
    (void)unused;
    return PyUnicode_FromString(info == NULL ? "custom" : info->file_name);
}

static PyObject *recipe_format(PyObject *self, void *field) {
    uint8_t format = *((uint8_t *)&((ext_recipe *)self)->recipe + (size_t)field);
    if (format == BRC_NONE) Py_RETURN_NONE;
    return PyUnicode_FromString(brc_format_get((brc_format)format)->name);
}

static PyObject *recipe_small(PyObject *self, void *field) {
    return PyLong_FromLong(*((uint8_t *)&((ext_recipe *)self)->recipe + (size_t)field));
}

static PyObject *recipe_bits(PyObject *self, void *unused) {
    (void)unused;
    return PyLong_FromLong(brc_format_get((brc_format)((ext_recipe *)self)->recipe.element)->bits);
}

static PyObject *recipe_block(PyObject *self, void *unused) {
    brc_block b = ((ext_recipe *)self)->recipe.block;
    (void)unused;
    return Py_BuildValue("(III)", b.batch, b.rows, b.cols);
}

static PyObject *recipe_margin(PyObject *self, void *unused) {
    (void)unused;
    return PyLong_FromLong(((ext_recipe *)self)->recipe.margin);
}

static PyObject *recipe_length(PyObject *self, void *unused) {
    (void)unused;
    return PyLong_FromUnsignedLong(((ext_recipe *)self)->recipe.history_length);
}

static PyObject *recipe_epsilon(PyObject *self, void *unused) {
    (void)unused;
    return PyFloat_FromDouble((double)((ext_recipe *)self)->recipe.epsilon);
}

static PyObject *recipe_rule(PyObject *self, void *unused) {
    (void)unused;
    return PyUnicode_FromString(brc_rule_name((brc_rule)((ext_recipe *)self)->recipe.rule));
}

static PyObject *recipe_arith(PyObject *self, void *unused) {
    (void)unused;
    return PyUnicode_FromString(brc_arith_name((brc_arith)((ext_recipe *)self)->recipe.arith));
}

static PyObject *recipe_history(PyObject *self, void *unused) {
    (void)unused;
    return PyUnicode_FromString(((ext_recipe *)self)->recipe.history == BRC_HISTORY_MAX ? "max" : "most_recent");
}

static PyObject *recipe_repr(PyObject *self) {
    PyObject *text = text_of(&((ext_recipe *)self)->recipe);
    PyObject *repr = text == NULL ? NULL : PyUnicode_FromFormat("Recipe(%R)", text);
    Py_XDECREF(text);
    return repr;
}

static Py_hash_t recipe_hash(PyObject *self) {
    PyObject *text = text_of(&((ext_recipe *)self)->recipe);
    Py_hash_t hash = text == NULL ? -1 : PyObject_Hash(text);
    Py_XDECREF(text);
    return hash;
}

static PyObject *recipe_compare(PyObject *a, PyObject *b, int operation) {
    if ((operation != Py_EQ && operation != Py_NE) || Py_TYPE(a) != Py_TYPE(b)) Py_RETURN_NOTIMPLEMENTED;
    PyObject *x = text_of(&((ext_recipe *)a)->recipe), *y = text_of(&((ext_recipe *)b)->recipe);
    PyObject *result = x == NULL || y == NULL ? NULL : PyObject_RichCompare(x, y, operation);
    Py_XDECREF(x);
    Py_XDECREF(y);
    return result;
}

static PyObject *recipe_reduce(PyObject *self, PyObject *unused) {
    (void)unused;
    return Py_BuildValue("O(N)", (PyObject *)Py_TYPE(self), text_of(&((ext_recipe *)self)->recipe));
}

#define FIELD(name) (void *)offsetof(brc_recipe, name)
static PyGetSetDef recipe_fields[] = {
    {"text", recipe_text, NULL, "the shortest text that makes this recipe", NULL},
    {"name", recipe_name, NULL, "the name on the command line", NULL},
    {"file_name", recipe_file_name, NULL, "the name in breccia's files", NULL},
    {"class_name", recipe_class, NULL, "the class in breccia.recipes", NULL},
    {"element", recipe_format, NULL, "format of the codes", FIELD(element)},
    {"scale", recipe_format, NULL, "format of the scales", FIELD(scale)},
    {"zero", recipe_format, NULL, "format of the zero points; None = symmetric", FIELD(zero)},
    {"bits", recipe_bits, NULL, "bits of a code", NULL},
    {"block", recipe_block, NULL, "(batch, rows, cols) that share a scale; 0 = the whole axis", NULL},
    {"layout", recipe_small, NULL, "number of the layout", FIELD(layout)},
    {"levels", recipe_small, NULL, "2 = a global scale above the block scales", FIELD(levels)},
    {"pow2", recipe_small, NULL, "1 = scales are powers of two", FIELD(pow2)},
    {"partial", recipe_small, NULL, "1 = edge blocks may be partial", FIELD(partial)},
    {"rule", recipe_rule, NULL, "how a block becomes a scale", NULL},
    {"arith", recipe_arith, NULL, "in which arithmetic", NULL},
    {"margin", recipe_margin, NULL, "the largest element is scaled to max * 2^-margin", NULL},
    {"history", recipe_history, NULL, "delayed scaling: max or most_recent", NULL},
    {"history_length", recipe_length, NULL, "delayed scaling: casts remembered", NULL},
    {"epsilon", recipe_epsilon, NULL, "smallest amax or scale", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef recipe_methods[] = {
    {"__reduce__", recipe_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot recipe_slots[] = {
    {Py_tp_doc, "Recipe(text): a checked recipe of libbreccia, for example \"mxfp8:rule=floor\"."},
    {Py_tp_new, recipe_new},
    {Py_tp_dealloc, recipe_free},
    {Py_tp_getset, recipe_fields},
    {Py_tp_methods, recipe_methods},
    {Py_tp_repr, recipe_repr},
    {Py_tp_hash, recipe_hash},
    {Py_tp_richcompare, recipe_compare},
    {0, NULL},
};

PyType_Spec ext_recipe_spec = {"breccia._c.Recipe", sizeof(ext_recipe), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, recipe_slots};
