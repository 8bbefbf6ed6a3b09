/* SPDX-License-Identifier: Apache-2.0
 * NVIDIA ModelOpt's checkpoints, inside. */
#ifndef BRCI_MODELOPT_H
#define BRCI_MODELOPT_H

#include "dialect/dialect.h"

/* How a weight lies in its arrays. */
typedef enum brci_mo_kind {
    BRCI_MO_FP8,       /* F8_E4M3 [N,K], one F32 */
    BRCI_MO_FP8_ROW,   /* F8_E4M3 [N,K], F32 [N] */
    BRCI_MO_FP8_BLOCK, /* F8_E4M3 [N,K], F32 [N/128,1,K/128,1] */
    BRCI_MO_MXFP8,     /* F8_E4M3 [N,K], U8 exponents [N,K/32] */
    BRCI_MO_NVFP4,     /* U8 [N,K/2], F8_E4M3 [N,K/16], weight_scale_2 F32 [], a multiplier */
    BRCI_MO_MXFP4,     /* U8 [N,K/2], U8 exponents [N,K/32] */
    BRCI_MO_INT4,      /* U8 [N/2,K]: rows 2i and 2i+1 in the low and high bits; a float scale [N,K/g] */
    BRCI_MO_INT8,      /* I8 [N,K], F32 [N] */
    BRCI_MO_KINDS
} brci_mo_kind;

typedef struct brci_mo_format {
    uint8_t stored;  /* brc_format of the array with the codes */
    uint8_t element; /* of the codes */
    uint8_t scale;   /* of the scales, as they are meant; NONE = F32, F16 or BF16 */
    brc_block block; /* BRC_FREE columns = the configuration's group_size */
} brci_mo_format;
extern const brci_mo_format brci_mo_formats[BRCI_MO_KINDS];

/* A word of quant_algo, in any case, and the arrays that it stands for. The first of a kind is written where nothing
 * says more. */
typedef struct brci_mo_algo {
    const char *word;
    brci_mo_kind kind;
    const char *needs; /* role of a part that it needs to be written; NULL = none */
    int grouped;       /* 1 = group_size goes with it */
} brci_mo_algo;
extern const brci_mo_algo brci_mo_algos[];
extern const size_t brci_mo_n_algos;

/* What a reading keeps: `detail`. */
typedef struct brci_mo_layout {
    brci_mo_kind kind;
    int flat; /* 1 = the scales of blocks are [N/128,K/128] */
} brci_mo_layout;

/* What it says of a tensor's module: of the whole, or of quantized_layers. NULL = nothing. */
const json_t *brci_mo_layer(const json_t *config, const char *tensor);

brc_status brci_mo_store(const char *name, const brc_tensor *tensor, const brc_entry *origin, brci_store *store,
                         brc_error *err);
/* How a tensor is written; BRCI_MO_KINDS = it is not. */
brci_mo_kind brci_mo_kind_of(const brc_tensor *tensor);
int brci_mo_texts(brci_pool *pool, const brci_summary *summary, brci_text *texts);

#endif
