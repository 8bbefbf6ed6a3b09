/* SPDX-License-Identifier: Apache-2.0
 * DeepSeek's checkpoints, inside. */
#ifndef BRCI_DEEPSEEK_H
#define BRCI_DEEPSEEK_H

#include "dialect/dialect.h"

#define BRCI_DEEPSEEK_BLOCK 128u /* both sides, where nothing says otherwise */

/* The block {rows, cols} of an FP8 weight and its scale, {0, 0} = one scale for the tensor. 0 = refused, and reported.
 */
int brci_deepseek_block(brci_reader *reader, brci_reading *reading, const brc_named_array *weight,
                        const brc_named_array *scale, uint32_t block[2]);

#endif
