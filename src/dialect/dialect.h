/* SPDX-License-Identifier: Apache-2.0
 *
 * What a dialect is: one file that defines `const brci_dialect brci_dialect_ID`, and a row of dialects.def whose column
 * `reads` is 1. It turns named arrays into readings ("these arrays are one tensor, and this is what the scale means"),
 * and a scaled tensor into arrays to be written. It never sees files.
 *
 * Reading: every dialect proposes; nothing is taken. What two dialects claim becomes an ambiguity, what none claims is
 * compared with recognise.def, and the rest is plain. So a dialect states what it sees, whole or broken, and no more.
 */
#ifndef BRCI_DIALECT_H
#define BRCI_DIALECT_H

#include "core/status.h"
#include "dialect/pool.h"

#include "breccia/breccia_file.h"

#include <jansson.h>

/* ------------------------------------------------------------------------------------------------- reading */

#define BRCI_MAX_PARTS 16 /* arrays of one tensor: data, three tables, group index, companions */

/* Arrays that are one tensor, as a dialect proposes. */
typedef struct brci_reading {
    brc_entry entry; /* first, so that an entry leads back to it; tensor.format NONE = seen, but it cannot be read */
    brc_part parts[BRCI_MAX_PARTS];
    const void
        *detail; /* what the dialect found beyond the parts (a packing, a version), for its own `load`; in the pool */
    int dropped; /* merged into another reading */
    struct brci_reading *next;
} brci_reading;

typedef struct brci_finding {
    brc_finding finding;
    brc_status status; /* what a command that must stop returns */
    struct brci_finding *next;
} brci_finding;

/* A checkpoint while it is being read. */
typedef struct brci_reader {
    const brc_file *file;
    const char *path;
    brci_pool *pool;
    size_t n;             /* arrays */
    brci_reading **owner; /* [n] the reading that holds an array; NULL = none yet */
    brci_reading *first, *last;
    size_t readings;
    brci_finding *first_finding, *last_finding;
    size_t findings;
    const char *method;   /* quant_method of config.json, or of the file that stands for it; NULL = none */
    const char *told_by;  /* the name of that file */
    json_t *quantization; /* its quantization_config, or that file's object; NULL = none */
    brc_dialect forced;   /* BRC_DIALECT_COUNT = by evidence */
    char *scratch;        /* for composed names */
    size_t scratch_room;
} brci_reader;

/* Bytes before `suffix` at the end of `name`; -1 if it does not end so, or nothing stands before it. */
int64_t brci_stem(const char *name, const char *suffix);
/* The array called stem + suffix; NULL if there is none. */
const brc_named_array *brci_sibling(brci_reader *reader, const char *stem, size_t length, const char *suffix);
/* Where the reader keeps who holds an array. */
brci_reading **brci_owner(brci_reader *reader, const brc_named_array *array);
/* A new reading; NULL when out of memory (which the reader's pool remembers). */
brci_reading *brci_propose(brci_reader *reader, brc_dialect dialect, const char *name, size_t length);
/* Adds the array called stem + suffix as a part; NULL if there is none, or no room for it. */
const brc_named_array *brci_take(brci_reader *reader, brci_reading *reading, const char *role, const char *stem,
                                 size_t length, const char *suffix);
/* The part with a role; NULL if there is none. */
const brc_named_array *brci_part(const brc_entry *entry, const char *role);
/* Whether ComfyUI's descriptions say what the scale of a tensor is: its own, or those of the file, which list every
 * tensor that has one. */
#define BRCI_COMFYUI_KEY "_quantization_metadata"
int brci_is_comfyui(brci_reader *reader, const char *name);
/* Whether the arrays of a tensor name a system of their own, though their scale's name is common: ModelOpt's or
 * ComfyUI's second scale, ComfyUI's description. */
int brci_has_foreign_scale(brci_reader *reader, const char *name, size_t length);
/* The dialect that config.json names; BRC_DIALECT_COUNT if none, or none that is known here. */
brc_dialect brci_method_dialect(const brci_reader *reader);
/* Whether a dialect may claim names that others use too: it was asked for, config.json names it, or names no one. */
int brci_may_claim(const brci_reader *reader, brc_dialect dialect);
/* Reports something about a tensor ("" = the file). */
void brci_report(brci_reader *reader, brc_severity severity, brc_status status, const char *tensor, const char *text);
/* The same, and the reading cannot be used. */
void brci_refuse(brci_reader *reader, brci_reading *reading, brc_severity severity, brc_status status,
                 const char *text);
/* Reports what the file notes, as something that stops nothing. */
void brci_report_note(brci_reader *reader, const brc_file_note *note);
/* Fills in the entry's meaning (and its recipe where the dialect gave none) from the tensor. */
void brci_describe(brci_pool *pool, brc_entry *entry);
/* "F8_E4M3 [140,264]" */
const char *brci_array_text(brci_pool *pool, const brc_named_array *array);

/* ---------------------------------------------------------------------------------------------- plain codes */

/* Whether an array holds codes that are read as numbers only where something says that they have no scale. */
int brci_is_bare(const brc_named_array *array);
/* The pair of __metadata__ that says so of a tensor: what was read as plain once is plain to the next reader. */
const char *brci_plain_key(brci_pool *pool, const char *name);
extern const char brci_plain_value[];

/* ------------------------------------------------------------------------------------------------- geometry */

/* Shape of a table beside its tensor: [] for one number, else the leading dimensions and the blocks of each axis. */
brc_status brci_table_shape(const brc_tensor *tensor, brc_block block, int *rank, int64_t shape[BRC_MAX_RANK],
                            brc_error *err);
/* The layout of a block; `hardware` = the 1xK blocks of MX and NVFP4, which the recipes have as tiles of one row. */
brc_layout brci_layout_of(brc_block block, int hardware);
/* Whether an array has the shape of such a table; one number may be [] or [1]. */
int brci_table_fits(const brc_tensor *tensor, brc_block block, const brc_named_array *array);
/* The block that a scale's shape tells where nothing else does: one number, a row each, columns in groups of 8, 16, 32
 * .., or 128x128. 0 = none of these. */
int brci_guess_block(const brc_tensor *tensor, const brc_named_array *scale, brc_block *block);
/* Refuses a reading whose scale does not have the shape that `block` gives (NULL = any that can be guessed):
 * transposed, of another block, or of another tensor. `says` = what asks for that block. */
void brci_refuse_table(brci_reader *reader, brci_reading *reading, const brc_named_array *scale, const brc_block *block,
                       const char *says);
/* The recipe of a tensor whose file does not say how its numbers were made: its formats and blocks. */
brc_recipe brci_recipe_of(const brc_tensor *tensor);
/* "row", "tensor", "128x128 block" */
const char *brci_block_text(brci_pool *pool, brc_block block, int rank);
/* Whether two shapes are the same. */
int brci_same_shape(int64_t rank_a, const int64_t *a, int64_t rank_b, const int64_t *b);

/* ------------------------------------------------------------------------------------------------- writing */

/* A buffer of a scaled tensor. */
typedef enum brci_buffer { BRCI_DATA, BRCI_SCALE, BRCI_GLOBAL, BRCI_ZERO, BRCI_GROUP_INDEX } brci_buffer;

/* An array as a dialect stores it. Its bytes are, in this order: `bytes` if set, what `pack` makes of the tensor if
 * set, else one buffer of the tensor as it is. */
typedef struct brci_stored {
    const char *name;
    uint8_t format;    /* brc_format */
    const char *dtype; /* GGUF's word for its blocks ("Q4_0"), which are no numbers of one format; NULL = format's */
    int rank;
    int64_t shape[BRC_MAX_RANK];
    brci_buffer buffer;
    brc_status (*pack)(const brc_tensor *tensor, const struct brci_stored *stored, void *bytes, brc_error *err);
    const void *bytes; /* in the pool or in a map */
    int variant;       /* the dialect's own, for `pack` */
} brci_stored;

/* How one tensor is stored. */
typedef struct brci_store {
    brci_pool *pool; /* for names and texts */
    brci_stored arrays[BRCI_MAX_PARTS];
    size_t n;
    const char *key, *value; /* a pair of __metadata__; NULL = none */
} brci_store;

/* A new array of a store, called stem + suffix. */
brci_stored *brci_stored_new(brci_store *store, const char *name, size_t length, const char *suffix, brc_format format);
/* Bytes of a stored array: its formats are of whole bytes. */
int64_t brci_stored_bytes(const brci_stored *stored);
/* Stores the part of `origin` (NULL = nothing) with this role under stem + suffix, byte for byte. Whether there was
 * one. */
int brci_carry(brci_store *store, const brc_entry *origin, const char *role, const char *name, size_t length,
               const char *suffix);

/* The last array stored is one number: as [] (rank 0) or as [1] (rank 1). */
void brci_stored_number(brci_store *store, int rank);

/* A text that goes with a checkpoint. */
typedef struct brci_text {
    const char *file;   /* "config.json", "hf_quant_config.json"; NULL = a pair of the metadata, in place
                           of the source's */
    const char *member; /* the member of that JSON file, or the pair's key; NULL = the whole file */
    const char *text;   /* in the pool */
} brci_text;
#define BRCI_MAX_TEXTS 4

/* What a dialect may need to say about a whole checkpoint. */
typedef struct brci_written {
    const char *name;
    const brc_tensor *tensor; /* geometry: its pointers may be NULL */
    const brc_entry *origin;  /* as in `store`; may be NULL */
} brci_written;
typedef struct brci_summary {
    const brci_written *written;
    size_t n_written;
    const char *const *kept; /* 2-D weights that stayed in high precision */
    size_t n_kept;
    const char *const *plain; /* all tensors that stayed as they are */
    size_t n_plain;
    json_t *origin; /* quantization_config of a source of the same dialect, to keep what it says beyond the
                       weights; may be NULL */
} brci_summary;

/* A JSON value as text in the pool, and released; NULL when out of memory. */
const char *brci_json_text(brci_pool *pool, json_t *value);
/* Sets a list of the modules whose 2-D weights stayed in high precision, unless it is empty: loaders replace every
 * linear layer but these. */
void brci_set_kept_modules(json_t *object, const char *key, const brci_summary *summary);
#define BRCI_ANY_KIND BRC_KIND_COUNT

typedef struct brci_dialect {
    const char *scale_suffix; /* codes without an array of this suffix are a fault; NULL = no such rule */
    uint8_t signed_scales;    /* 1 = negative scales are normal */
    uint8_t zero_scales;      /* 1 = so are scales of zero over codes that are not: a block too small for its scale */
    uint8_t exclusive;        /* 1 = its arrays have no other reading: it reads them whatever dialect is asked for */
    const char *ending;       /* of the one file that it is written to; NULL = safetensors */
    const char *const *pairs; /* keys of metadata pairs that speak of the weights' types, NULL at the end; they go when
                                 these are dequantized. NULL = it has none */
    uint8_t global_kind;      /* brc_kind of the global scale it stores, BRCI_ANY_KIND = as it is; MULTIPLIER where it
                                 has none */
    /* Texts of the recipes that it stores (brc_recipe_parse), the default first, NULL at the end: what a tensor of
     * another recipe is turned into, the first that keeps every value, else the default. NULL = it is not written, or
     * stores any. */
    const char *const *recipes;
    brc_status (*read)(brci_reader *reader, brc_error *err);
    /* The tensor of a reading whose `entry.tensor.data` is NULL, rearranged into memory; NULL = never needed. */
    brc_status (*load)(const brci_reading *reading, brc_owned *tensor, brc_error *err);
    /* How a tensor of this geometry (buffers may be NULL) is stored; NULL = this dialect is not written.
     * BRC_UNSUPPORTED, saying what the dialect stores, for what it has no place for: conversion then tries `recipes`.
     * `origin` = the entry that the tensor was read from, of this dialect or another, for companions and for what the
     * value does not say; may be NULL. */
    brc_status (*store)(const char *name, const brc_tensor *tensor, const brc_entry *origin, brci_store *store,
                        brc_error *err);
    /* The texts of a written checkpoint, at most BRCI_MAX_TEXTS: how many; -1 = out of memory. NULL = the dialect has
     * none. */
    int (*config)(brci_pool *pool, const brci_summary *summary, brci_text *texts);
    /* Bytes at the start of a key of __metadata__ that are the name of the tensor it describes, so that the pair goes
     * when the tensor changes; 0 = it describes the checkpoint as this dialect; -1 = neither. NULL = this dialect
     * describes nothing there. */
    int64_t (*describes)(const char *key, const char *value);
    /* What the pair of __metadata__ under a plain tensor's own name says; NULL = there is none. */
    const char *plain_text;
} brci_dialect;

/* Name of the row of recipes.def that describes a tensor; "" = none. */
const char *brci_row_name(const brc_tensor *tensor);
/* A recipe for a tensor whose file does not say one: of `text` (brc_entry.recipe, may be NULL), else a row, else what
 * brc_recipe_of says of its tables. */
brc_status brci_name_recipe(const brc_tensor *tensor, const char *text, brc_recipe *recipe, brc_error *err);

/* The implementation of a dialect; NULL if it is not read yet. */
const brci_dialect *brci_dialect_of(brc_dialect dialect);
/* Memory for the buffers of a tensor: data NULL is fine before. */
brc_status brci_owned_new(const brc_tensor *tensor, const brc_sizes *sizes, brc_owned *owned, brc_error *err);

/* Memory for a tensor of this geometry, zeroed: its data, each table that has a format, and a group index if wanted. */
brc_status brci_owned_of(const brc_tensor *tensor, int with_index, brc_owned *owned, brc_error *err);

/* A checkpoint of a file that is open already, read as one dialect; it closes the file, also where it fails. */
brc_status brci_checkpoint_of(brc_file *file, brc_dialect forced, brc_checkpoint **checkpoint, brc_error *err);

/* The i-th file name beside config.json that describes how weights are quantized; NULL = there are no more. */
const char *brci_description(size_t i);
/* The object that holds the members of such a description: ModelOpt's own file has them in "quantization". */
json_t *brci_quantization_members(json_t *quantization);
/* What the only one of its config_groups says of weights; NULL = nothing, or there are several. */
json_t *brci_quantization_weights(json_t *quantization);

/* Steps of opening, in their order (checkpoint.c). */
void brci_read_quantization(brci_reader *reader);
brc_status brci_recognise(brci_reader *reader, brc_error *err);
void brci_report_bare(brci_reader *reader);

#endif
