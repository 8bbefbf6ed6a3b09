/* SPDX-License-Identifier: Apache-2.0
 *
 * The extension breccia._file: checkpoints, by libbreccia_file. It is an extension of its own, so that importing
 * breccia needs neither libbreccia_file nor Jansson; breccia.bridges loads it on first use. */
#ifndef EXT_FILE_H
#define EXT_FILE_H

#include "../view.h"

#include <breccia/breccia_file.h>

typedef struct file_state {
    PyTypeObject *checkpoint, *memory;
} file_state;

/* checkpoint.c: Checkpoint, an opened one, and Memory, bytes of its map or of a tensor that was rearranged. */
extern PyType_Spec file_checkpoint_spec, file_memory_spec;
/* The entry of a pair (Checkpoint, name): where a tensor came from; NULL without an exception for anything else. */
const brc_entry *file_origin(const file_state *state, PyObject *pair);

/* save.c */
extern PyMethodDef file_saving[];

/* By name; BRC_DIALECT_COUNT with a ValueError if there is none. */
brc_dialect file_dialect(const char *name);

#endif
