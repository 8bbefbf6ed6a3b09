/* SPDX-License-Identifier: Apache-2.0
 * Files of one folder that appear together: written under temporary names, synced, then renamed; the last one added
 * appears last. What was there before is set aside until all are in place, and put back if one cannot be. */
#ifndef BRCI_OUTPUTS_H
#define BRCI_OUTPUTS_H

#include "container/names.h"

typedef struct brci_output {
    const char *name, *temporary, *aside; /* paths; aside: of what was there before, NULL = nothing was */
    int fd;
    int placed;
} brci_output;

typedef struct brci_outputs {
    brci_arena *arena; /* of all paths */
    const char *folder;
    int overwrite, made_folder;
    int mode; /* permissions of a file that replaces none; -1 = the usual ones */
    brci_output *items;
    size_t count, capacity;
} brci_outputs;

/* Creates the folder if it is not there (its parent must be). */
brc_status brci_outputs_begin(brci_outputs *outputs, brci_arena *arena, const char *folder, int overwrite,
                              brc_error *err);
/* Opens a temporary file that will be called `name` in the folder; its number in *item. */
brc_status brci_outputs_add(brci_outputs *outputs, const char *name, size_t *item, brc_error *err);
/* Writes all bytes at a position. Thread-safe. */
brc_status brci_output_write(const brci_output *output, const void *bytes, size_t size, int64_t position,
                             brc_error *err);
/* Syncs and places all, in the order they were added; then removes `obsolete`, paths of the old checkpoint that no
 * longer belong to it. `index` (NULL = none) is the old file that must not be found while the others change. */
brc_status brci_outputs_commit(brci_outputs *outputs, const char *index, const char *const *obsolete, size_t n_obsolete,
                               brc_error *err);
/* Removes what is not placed, and the folder if it was made here and is empty. */
void brci_outputs_discard(brci_outputs *outputs);

#endif
