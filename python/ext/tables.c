/* SPDX-License-Identifier: Apache-2.0
 * The C tables as Python values, so that no fact is written twice. */
#include "ext.h"

static int put(PyObject *dict, const char *key, PyObject *value) {
    int result = value == NULL ? -1 : PyDict_SetItemString(dict, key, value);
    Py_XDECREF(value);
    return result;
}

/* Adds the dictionary to the module under `name`, whatever became of it. */
static int add(PyObject *module, const char *name, PyObject *dict, int failed) {
    if (!failed && dict != NULL && PyModule_AddObjectRef(module, name, dict) != 0) failed = 1;
    Py_XDECREF(dict);
    return failed || dict == NULL ? -1 : 0;
}

static int add_formats(PyObject *module) {
    static const char *const families[] = {"float", "exponent", "int", "uint", "codebook", "opaque"};
    static const char *const roles[] = {"element", "high", "carried"};
    PyObject *all = PyDict_New();
    int failed = all == NULL;
    for (int i = 1; i < BRC_FORMAT_COUNT && !failed; i++) {
        const brc_format_info *f = brc_format_get((brc_format)i);
        failed = put(all, f->name,
                     Py_BuildValue("{sisssssisisisisdsdsd}", "number", i, "family", families[f->family], "role",
                                   roles[f->role], "bits", f->bits, "exponent_bits", f->exponent_bits, "mantissa_bits",
                                   f->mantissa_bits, "bias", f->bias, "max", f->max, "min", f->min, "smallest",
                                   f->smallest));
    }
    return add(module, "FORMATS", all, failed);
}

static int add_layouts(PyObject *module) {
    PyObject *all = PyDict_New();
    int failed = all == NULL;
    for (int i = 0; i < BRC_LAYOUT_COUNT && !failed; i++) {
        const brc_layout_info *l = brc_layout_get((brc_layout)i);
        failed = put(all, l->class_name,
                     Py_BuildValue("{sisssO}", "number", i, "name", l->name, "takes_block",
                                   l->block.cols == BRC_FREE ? Py_True : Py_False));
    }
    return add(module, "LAYOUTS", all, failed);
}

static int add_recipes(PyObject *module, PyObject *type) {
    PyObject *all = PyDict_New();
    int failed = all == NULL;
    for (int i = 0; i < BRC_RECIPE_COUNT && !failed; i++) {
        const brc_recipe_info *r = brc_recipe_get((brc_recipe_id)i);
        failed = put(all, r->name, PyObject_CallFunction(type, "s", r->name));
    }
    return add(module, "RECIPES", all, failed);
}

static int add_names(PyObject *module, const char *name, const char *(*get)(int), int count) {
    PyObject *all = PyTuple_New(count);
    int failed = all == NULL;
    for (int i = 0; i < count && !failed; i++) {
        PyObject *word = PyUnicode_FromString(get(i));
        failed = word == NULL || PyTuple_SetItem(all, i, word) != 0;
    }
    return add(module, name, all, failed);
}

static const char *rule(int i) { return brc_rule_name((brc_rule)i); }
static const char *arith(int i) { return brc_arith_name((brc_arith)i); }
static const char *kind(int i) { return brc_kind_name((brc_kind)i); }

int ext_add_tables(PyObject *module) {
    PyObject *type = PyObject_GetAttrString(module, "Recipe");
    int failed = type == NULL || add_formats(module) || add_layouts(module) || add_recipes(module, type) ||
                 add_names(module, "RULES", rule, BRC_RULE_COUNT) ||
                 add_names(module, "ARITHMETICS", arith, BRC_ARITH_COUNT) ||
                 add_names(module, "KINDS", kind, BRC_KIND_COUNT) ||
                 PyModule_AddStringConstant(module, "VERSION", brc_version()) ||
                 PyModule_AddIntConstant(module, "MAX_RANK", BRC_MAX_RANK);
    Py_XDECREF(type);
    return failed ? -1 : 0;
}
