/* SPDX-License-Identifier: Apache-2.0 */
#include "ext.h"

PyObject *ext_raise(brc_status status, const brc_error *err) {
    PyObject *kind;
    switch (status) {
    case BRC_FORMAT: kind = PyExc_TypeError; break;
    case BRC_OVERFLOW: kind = PyExc_OverflowError; break;
    case BRC_MEMORY: kind = PyExc_MemoryError; break;
    case BRC_IO: kind = PyExc_OSError; break;
    case BRC_EXISTS: kind = PyExc_FileExistsError; break;
    case BRC_UNSUPPORTED: kind = PyExc_NotImplementedError; break;
    case BRC_CANCELLED: kind = PyExc_KeyboardInterrupt; break;
    case BRC_NO_DRIVER:
    case BRC_NO_DEVICE:
    case BRC_DEVICE: kind = PyExc_RuntimeError; break;
    default: kind = PyExc_ValueError;
    }
    PyErr_SetString(kind, err != NULL && err->text[0] != '\0' ? err->text : brc_status_text(status));
    return NULL;
}
