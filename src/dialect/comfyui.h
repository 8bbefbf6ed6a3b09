/* SPDX-License-Identifier: Apache-2.0
 * ComfyUI's files, inside. */
#ifndef BRCI_COMFYUI_H
#define BRCI_COMFYUI_H

#include "dialect/dialect.h"

/* A word of "format": how a weight and its scales lie in the file. */
typedef struct brci_comfy_format {
    const char *word;
    uint8_t stored;  /* brc_format of the array with the codes */
    uint8_t element; /* of the codes */
    uint8_t scale;   /* of the scales, as they are meant; NONE = F32, F16 or BF16 */
    uint8_t rows;    /* 1 = a scale for each row is known too */
    brc_block block; /* scales of blocks lie in tiles of 128 rows and 4 columns */
    int64_t side;    /* both sides of the weight are multiples of it */
} brci_comfy_format;
extern const brci_comfy_format brci_comfy_formats[];
extern const size_t brci_comfy_n_formats;

/* Where it is said. */
typedef enum brci_comfy_place {
    BRCI_COMFY_ARRAY, /* X.comfy_quant */
    BRCI_COMFY_PAIR,  /* the file's metadata */
    BRCI_COMFY_NAMES  /* nowhere: X.scale_weight of older files */
} brci_comfy_place;

/* What a reading keeps: `detail`. */
typedef struct brci_comfy {
    const brci_comfy_format *format;
    brci_comfy_place place;
    const char *text; /* the description, as one JSON object; NULL where there is none */
} brci_comfy;

brc_status brci_comfy_store(const char *name, const brc_tensor *tensor, const brc_entry *origin, brci_store *store,
                            brc_error *err);
int brci_comfy_texts(brci_pool *pool, const brci_summary *summary, brci_text *texts);

#endif
