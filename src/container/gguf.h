/* SPDX-License-Identifier: Apache-2.0
 * Facts of GGUF that reader and writer share. All numbers are little-endian.
 * Source: ggml-org/ggml, docs/gguf.md and src/gguf.cpp. */
#ifndef BRCI_GGUF_H
#define BRCI_GGUF_H

#include "container/file.h"

#define BRCI_GGUF_MAGIC "GGUF"
#define BRCI_GGUF_VERSION 3u
#define BRCI_GGUF_RANK_MAX 4u
#define BRCI_GGUF_NAME_MAX 64u                  /* bytes of an array's name, its NUL in ggml's memory included */
#define BRCI_GGUF_ITEMS_MAX ((uint64_t)1 << 30) /* bytes of a string, items of an array */
#define BRCI_GGUF_ALIGNMENT 32u                 /* of every array, where no pair says otherwise */
#define BRCI_GGUF_ALIGNMENT_KEY "general.alignment"
#define BRCI_GGUF_SPLIT_COUNT_KEY "split.count" /* files of a split model; split.no counts from 0 */
#define BRCI_GGUF_SPLIT_NUMBER_KEY "split.no"
#define BRCI_GGUF_SPLIT_PREFIX "split."

/* Bytes of a value of this type; 0 for strings, arrays, and types that there are not. */
unsigned brci_value_bytes(unsigned type);
/* The number that a value of any whole-number type is; 0 if it is none, or negative. */
int brci_value_unsigned(const brc_value *value, uint64_t *number);

#endif
