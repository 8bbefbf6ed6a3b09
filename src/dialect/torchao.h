/* SPDX-License-Identifier: Apache-2.0
 * What reading and writing torchao's classes share. */
#ifndef BRCI_TORCHAO_H
#define BRCI_TORCHAO_H

#include "dialect/dialect.h"

/* The classes whose tensors have one plain meaning. */
enum brci_torchao_class {
    BRCI_FLOAT8_TENSOR,
    BRCI_INT8_TENSOR,
    BRCI_INTX_TENSOR,
    BRCI_INT4_TENSOR,
    BRCI_MX_TENSOR,
    BRCI_NVFP4_TENSOR,
    BRCI_TORCHAO_CLASSES
};
extern const char *const brci_torchao_class_names[BRCI_TORCHAO_CLASSES];

/* The detail of a reading. */
typedef struct brci_torchao {
    const char *text; /* the description: a value of __metadata__ */
    int klass;
    uint8_t unpacked;   /* codes one a byte */
    uint8_t swizzled;   /* scales in 128x4 tiles */
    uint8_t transposed; /* tables [.., K/g, N] */
} brci_torchao;

/* Words of torch for formats: "float8_e4m3fn" of {"_type": "torch.dtype", "_data": ..}, "fp6_e2m3" as a plain string;
 * NONE / NULL where there is none. */
brc_format brci_torch_format(const json_t *value);
const char *brci_torch_word(unsigned format);

/* Reads a tensor of a class from its parts and the attributes (`_data`); refuses what does not fit. */
void brci_torchao_read(brci_reader *reader, brci_reading *reading, brci_torchao *found, const json_t *attributes);
brc_status brci_torchao_store(const char *name, const brc_tensor *tensor, const brc_entry *origin, brci_store *store,
                              brc_error *err);

#endif
