/* SPDX-License-Identifier: Apache-2.0
 *
 * The casts of casts.def that give a matrix and its transpose. */
#include "casts.cuh"

#define BLOCKS BRC_SKIP
#define WHOLE BRC_SKIP
#define GLOBAL BRC_SKIP
#define BOTH BRC_BOTH
#define DEQUANTIZE BRC_SKIP
#include "casts.def"
