/* SPDX-License-Identifier: Apache-2.0 */
#include "file.h"

static int add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type) {
    *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *type == NULL ? -1 : PyModule_AddType(module, *type);
}

/* DIALECTS: {name: (reads, writes, text)} */
static int add_dialects(PyObject *module) {
    PyObject *dict = PyDict_New();
    for (unsigned i = 0; i < BRC_DIALECT_COUNT && dict != NULL; i++) {
        const brc_dialect_info *info = brc_dialect_get((brc_dialect)i);
        PyObject *row = Py_BuildValue("(NNs)", PyBool_FromLong(info->reads), PyBool_FromLong(info->writes), info->text);
        if (row == NULL || PyDict_SetItemString(dict, info->name, row) != 0) Py_CLEAR(dict);
        Py_XDECREF(row);
    }
    const int result = dict == NULL ? -1 : PyModule_AddObjectRef(module, "DIALECTS", dict);
    Py_XDECREF(dict);
    return result;
}

static int execute(PyObject *module) {
    file_state *state = PyModule_GetState(module);
    if (PyModule_AddFunctions(module, file_saving) != 0 || add_dialects(module) != 0) return -1;
    return add_type(module, &file_checkpoint_spec, &state->checkpoint) != 0 ||
                   add_type(module, &file_memory_spec, &state->memory) != 0
               ? -1
               : 0;
}

static int traverse(PyObject *module, visitproc visit, void *arg) {
    file_state *state = PyModule_GetState(module);
    Py_VISIT(state->checkpoint);
    Py_VISIT(state->memory);
    return 0;
}

static int clear(PyObject *module) {
    file_state *state = PyModule_GetState(module);
    Py_CLEAR(state->checkpoint);
    Py_CLEAR(state->memory);
    return 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "breccia._file",
    .m_doc = "libbreccia_file's checkpoints for Python objects; breccia.bridges is its only user.",
    .m_size = sizeof(file_state),
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
};

PyMODINIT_FUNC PyInit__file(void);
PyMODINIT_FUNC PyInit__file(void) { return PyModuleDef_Init(&definition); }
