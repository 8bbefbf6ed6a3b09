/* SPDX-License-Identifier: Apache-2.0 */
#include "ext.h"

ext_state *ext_state_of(PyObject *module) { return PyModule_GetState(module); }

static int add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type) {
    *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *type == NULL ? -1 : PyModule_AddType(module, *type);
}

static int execute(PyObject *module) {
    ext_state *state = ext_state_of(module);
    PyMethodDef *const tables[] = {ext_operations, ext_cuda, ext_codes, ext_xla};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        if (PyModule_AddFunctions(module, tables[i]) != 0) return -1;
    if (add_type(module, &ext_recipe_spec, &state->recipe) != 0 ||
        add_type(module, &ext_buffer_spec, &state->buffer) != 0 ||
        add_type(module, &ext_packed_spec, &state->packed) != 0)
        return -1;
    return ext_add_tables(module);
}

static int traverse(PyObject *module, visitproc visit, void *arg) {
    ext_state *state = ext_state_of(module);
    Py_VISIT(state->recipe);
    Py_VISIT(state->buffer);
    Py_VISIT(state->packed);
    return 0;
}

static int clear(PyObject *module) {
    ext_state *state = ext_state_of(module);
    Py_CLEAR(state->recipe);
    Py_CLEAR(state->buffer);
    Py_CLEAR(state->packed);
    return 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "breccia._c",
    .m_doc = "libbreccia's public functions for Python objects; breccia's own modules are its only users.",
    .m_size = sizeof(ext_state),
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
};

PyMODINIT_FUNC PyInit__c(void);
PyMODINIT_FUNC PyInit__c(void) { return PyModuleDef_Init(&definition); }
