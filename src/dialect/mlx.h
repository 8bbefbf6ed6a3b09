/* SPDX-License-Identifier: Apache-2.0
 * What reading and writing MLX's quantized layers share. */
#ifndef BRCI_MLX_H
#define BRCI_MLX_H

#include "dialect/dialect.h"

/* A mode of mlx.core.quantize with its parameters: the words of config.json's "quantization". */
typedef struct brci_mlx {
    const char *mode; /* "affine", "mxfp4", "mxfp8", "nvfp4" */
    int group, bits;
} brci_mlx;

/* The modes with exponents or E4M3 scales; affine is apart. */
typedef struct brci_mlx_mode {
    brci_mlx mlx;
    uint8_t element, scale; /* brc_format */
} brci_mlx_mode;
#define BRCI_MLX_MODES 3
extern const brci_mlx_mode brci_mlx_modes[BRCI_MLX_MODES];

/* Element format of affine codes; NONE = MLX has no such width, or it is not read (1). */
brc_format brci_mlx_element(int64_t bits);
int brci_mlx_is_group(int64_t group);

/* The key of config.json, and of __metadata__ where there is no config.json. */
extern const char brci_mlx_key[];

brc_status brci_mlx_store(const char *name, const brc_tensor *tensor, const brc_entry *origin, brci_store *store,
                          brc_error *err);
int brci_mlx_config(brci_pool *pool, const brci_summary *summary, brci_text *texts);

#endif
