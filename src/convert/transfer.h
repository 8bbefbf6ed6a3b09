/* SPDX-License-Identifier: Apache-2.0
 * What quantize, dequantize and convert share: a checkpoint goes through, some of its tensors change on the way. Arrays
 * are declared first, then written one tensor at a time, so that memory is bounded by the largest. */
#ifndef BRCI_TRANSFER_H
#define BRCI_TRANSFER_H

#include "convert/bytes.h"
#include "core/status.h"
#include "dialect/dialect.h"

typedef struct brci_transfer {
    const brc_checkpoint *source;
    const brc_file *file;
    brc_writer *writer;
    brci_pool pool;
    const char *destination;
    uint32_t overwrite;
    int folder;        /* the destination is a folder, not one file */
    uint32_t *shards;  /* [brc_file_shards] shard of the source -> of the destination */
    uint32_t n_shards; /* of the destination */
    size_t *numbers;   /* of the arrays declared, in order */
    size_t n_numbers, numbers_room;
    brc_progress progress;
    void (*left)(void *user, const char *name, const char *why); /* set by the caller after begin; may be NULL */
    void *user;
    int64_t done, total; /* bytes of the source's tensors */
} brci_transfer;

brc_status brci_transfer_begin(brci_transfer *t, const brc_checkpoint *source, const char *destination,
                               uint32_t overwrite, brc_progress progress, void *user, brc_error *err);
/* Frees everything; the writer is discarded if it is still there. */
void brci_transfer_end(brci_transfer *t);

/* The dialect that is meant where none was named: gguf for a .gguf file, else breccia. */
brc_dialect brci_default_dialect(const char *destination);
/* Whether a dialect's tensors go into such a destination: BRC_UNSUPPORTED where they have no place in that kind of
 * file. */
brc_status brci_check_ending(brc_dialect dialect, const char *destination, brc_error *err);
/* Refuses a destination that would replace or remove a file of the source. */
brc_status brci_transfer_guard(brci_transfer *t, brc_error *err);
/* Declares an array in the shard of an entry; `dtype` as in brci_stored. */
brc_status brci_transfer_declare(brci_transfer *t, const brc_entry *entry, const char *name, const char *dtype,
                                 unsigned format, int rank, const int64_t *shape, brc_error *err);
/* Declares or writes a tensor that does not change: each of its arrays, byte for byte. `next` = the number to come. */
brc_status brci_transfer_declare_plain(brci_transfer *t, const brc_entry *entry, brc_error *err);
brc_status brci_transfer_write_plain(brci_transfer *t, const brc_entry *entry, size_t *next, brc_error *err);
/* Declares or writes the arrays of a scaled tensor as a dialect stores it; `written` grows by their bytes. `origin` as
 * in brci_dialect.store. */
brc_status brci_transfer_declare_stored(brci_transfer *t, const brci_dialect *dialect, const brc_entry *entry,
                                        const brc_tensor *tensor, const brc_entry *origin, brc_error *err);
brc_status brci_transfer_write_packed(brci_transfer *t, const brci_packed *packed, size_t *next, int64_t *written,
                                      brc_error *err);
/* The source's metadata, less what describes one of the tensors that change (changed[i] is 1 for those; NULL = plain
 * ones do) and, if any does, less what describes the checkpoint as one of a dialect; and less the arrays of GGUF where
 * the destination holds strings alone. */
brc_status brci_transfer_metadata(brci_transfer *t, const uint8_t *changed, brc_error *err);
/* What a written checkpoint says of itself: the texts of its dialect. */
typedef struct brci_texts {
    brci_text texts[BRCI_MAX_TEXTS];
    int n;
    int drop;                    /* 1 = what the source's config.json says of quantization goes */
    const brci_summary *summary; /* may be NULL */
    const char *plain_text;      /* of the dialect */
} brci_texts;

/* The texts, config.json with its members among them, and the files beside it; those that describe quantized weights
 * not when `dequantized`. */
brc_status brci_transfer_companions(brci_transfer *t, const brci_texts *texts, int dequantized, brc_error *err);
/* Those of the destination speak of weights that stood there before: they go, or are in the way. */
brc_status brci_replace_descriptions(brc_writer *writer, brc_error *err);
/* One tensor is done. */
brc_status brci_transfer_step(brci_transfer *t, const brc_entry *entry, brc_error *err);

/* The recipe for a tensor of this shape: edge blocks are partial where the block does not divide it. */
brc_recipe brci_recipe_for(const brc_recipe *recipe, int64_t rank, const int64_t *shape);
/* A plain array under a recipe; NaN and infinite numbers are BRC_NONFINITE unless they may saturate. */
brc_status brci_quantize(const brc_named_array *array, const brc_recipe *recipe, const brc_options *options,
                         int saturate, brc_owned *owned, brc_error *err);
/* Bytes of an entry's arrays in the source. */
int64_t brci_entry_bytes(const brc_entry *entry);
int64_t brci_entry_elements(const brc_entry *entry);
/* Puts the names of the file (without its folders) and of the tensor before the error's text. */
brc_status brci_about(brc_error *err, brc_status status, const brc_checkpoint *checkpoint, const brc_entry *entry);

#endif
