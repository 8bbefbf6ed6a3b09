/* SPDX-License-Identifier: Apache-2.0
 * compressed-tensors, inside: its formats, and what a configuration says of a module. */
#ifndef BRCI_COMPRESSED_H
#define BRCI_COMPRESSED_H

#include "dialect/dialect.h"

/* One `format` of quantization_config. Two words that store alike (naive-quantized) share the row of the first. */
typedef struct brci_ct_format {
    const char *word;
    const char *suffix; /* of the array with the codes, behind the tensor's name */
    uint8_t stored;     /* brc_format of that array */
    uint8_t element;    /* of the codes; NONE = integers of 2 to 8 bits */
    uint8_t scale;      /* of the scales, as they are meant; NONE = F32, F16 or BF16 */
    uint8_t bits;       /* num_bits; 0 = the configuration's */
    uint8_t columns;    /* of a block; 0 = the configuration's */
} brci_ct_format;

enum {
    BRCI_CT_FLOAT,
    BRCI_CT_INT,
    BRCI_CT_PACK,
    BRCI_CT_NVFP4,
    BRCI_CT_MXFP4,
    BRCI_CT_MXFP6,
    BRCI_CT_MXFP8,
    BRCI_CT_FORMATS
};
extern const brci_ct_format brci_ct_formats[BRCI_CT_FORMATS];

/* How a tensor lies in its arrays, beyond what their shapes say: `detail` of a reading. */
typedef struct brci_ct_layout {
    uint8_t format;    /* index of brci_ct_formats */
    uint8_t bits;      /* of a code */
    uint8_t old_words; /* 1 = 32-bit words of whole codes, top bits unused (before 0.18); 0 = a stream */
} brci_ct_layout;

/* What one of config_groups says of weights. */
typedef struct brci_ct_scheme {
    const char *group; /* its key, "group_0" */
    const char *word;  /* `format`; NULL = not said */
    int bits, is_float, symmetric;
    brc_block block;
    const json_t *json; /* the group */
} brci_ct_scheme;

typedef struct brci_ct_schemes brci_ct_schemes;

/* Reads config_groups, reporting to `reader` (may be NULL); NULL = there are none, or no memory. Free it. */
brci_ct_schemes *brci_ct_schemes_new(brci_reader *reader, const json_t *config);
void brci_ct_schemes_free(brci_ct_schemes *schemes);
/* What is said of a tensor, by the module it belongs to; NULL = nothing. */
const brci_ct_scheme *brci_ct_scheme_of(const brci_ct_schemes *schemes, const char *tensor);
/* Whether a module of that name is among `ignore`. */
int brci_ct_is_ignored(const brci_ct_schemes *schemes, const char *tensor);
/* Bytes of a tensor's name that are its module's: without ".weight". */
size_t brci_ct_module(const char *tensor);

/* The arrays of one tensor, while they are read. */
typedef struct brci_ct_arrays {
    brci_reader *reader;
    brci_reading *reading;
    const brci_ct_scheme *scheme;
    const brc_named_array *data, *scale, *zero, *global, *index, *shape;
} brci_ct_arrays;

/* Each refuses the reading and is 0; the second says what a group of the configuration says and an array denies. */
int brci_ct_refuse(brci_ct_arrays *a, brc_severity severity, brc_status status, const char *text);
int brci_ct_contradicts(brci_ct_arrays *a, const char *says, const brc_named_array *array);
int brci_ct_malformed(brci_ct_arrays *a, const char *text);
/* What the numbers of a scale mean: NONE = what their type says, E4M3, or E8M0; BRC_FORMAT_COUNT = it is no scale. */
brc_format brci_ct_meaning(const brc_named_array *scale);
/* Format, bits and logical shape, into the layout and the reading's tensor; 0 = refused. */
int brci_ct_find_layout(brci_ct_arrays *a, brci_ct_layout *layout);

/* 32-bit words of n codes: as a stream, or of whole codes. */
int64_t brci_ct_words(int64_t n, unsigned bits, int old_words);

/* `pack` of the arrays of integers; `variant` 1 = words of whole codes. Codes as words, codes one a byte, zero points
 * as words along the rows. */
brc_status brci_ct_pack_words(const brc_tensor *tensor, const brci_stored *stored, void *bytes, brc_error *err);
brc_status brci_ct_pack_bytes(const brc_tensor *tensor, const brci_stored *stored, void *bytes, brc_error *err);
brc_status brci_ct_pack_zeros(const brc_tensor *tensor, const brci_stored *stored, void *bytes, brc_error *err);

brc_status brci_ct_load(const brci_reading *reading, brc_owned *owned, brc_error *err);
brc_status brci_ct_store(const char *name, const brc_tensor *tensor, const brc_entry *origin, brci_store *store,
                         brc_error *err);
int brci_ct_config(brci_pool *pool, const brci_summary *summary, brci_text *texts);
/* The format in which a tensor is written; -1 = none. */
int brci_ct_format_of(const brc_tensor *tensor, const brc_entry *origin);

#endif
