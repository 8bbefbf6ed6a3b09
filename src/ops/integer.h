/* SPDX-License-Identifier: Apache-2.0
 * Products of integer codes, shared between threads. */
#ifndef BRCI_OPS_INTEGER_H
#define BRCI_OPS_INTEGER_H

#include "cpu/kernels.h"
#include "reference/reference.h"

/* Whether the product was done: 0 where it is none of integers (cpu/integer.h), or there is no memory for its packing.
 */
int brci_integer_multiply(const brci_kernels *kernels, const brci_multiplication *product, const brc_options *options);

#endif
