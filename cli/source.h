/* SPDX-License-Identifier: Apache-2.0
 * The checkpoint that a command reads. */
#ifndef CLI_SOURCE_H
#define CLI_SOURCE_H

#include "breccia/breccia_file.h"
#include "json.h"

/* Opens `path` for a command; `from` is the value of --from or NULL. What is doubtful is printed as warnings; a
 * checkpoint that cannot be read for sure is refused. 0, or the exit code after a message; the checkpoint is to be
 * closed in both cases. */
int source_open(const char *path, const char *from, brc_checkpoint **checkpoint);
/* The two steps apart: opening, which only fails where nothing can be said, and the warnings. */
int source_look(const char *path, const char *from, brc_checkpoint **checkpoint);
void source_warn(const brc_checkpoint *checkpoint);
/* Whether commands other than inspect must refuse it: the exit code after a message, or 0. */
int source_refused(const brc_checkpoint *checkpoint);
/* Refused, else warned of. */
int source_judge(const brc_checkpoint *checkpoint);

/* Warns of each glob of the option --`name` that matches no tensor: most likely a typing error. */
void source_warn_unmatched(const brc_checkpoint *checkpoint, const char *const *globs, size_t n, const char *name);

const char *severity_name(brc_severity severity);
json_t *json_finding(const brc_finding *finding);
/* The part of an entry with this role, or NULL. */
const brc_named_array *entry_part(const brc_entry *entry, const char *role);
/* Bytes of all its parts. */
int64_t entry_bytes(const brc_entry *entry);
/* 1 if the entry is a scaled tensor. */
int entry_scaled(const brc_entry *entry);
/* Elements of a logical shape. */
int64_t shape_elements(int rank, const int64_t *shape);
/* Logical rank and shape of an entry, quantized or not. */
int entry_shape(const brc_entry *entry, const int64_t **shape);

/* Reports an error about a checkpoint that was opened by `path`, naming the file once; gives the exit code. */
int source_complain(const brc_checkpoint *source, const char *path, const brc_error *err);
/* The path of a shard that has become shorter than it was when it was opened; NULL if there is none. */
const char *source_shortened(const brc_checkpoint *source);
/* The libraries name a shard by its last component: its path if the error begins with one, and the text after the name;
 * else NULL. */
const char *source_mentioned(const brc_checkpoint *source, const brc_error *err, const char **rest);
#endif
