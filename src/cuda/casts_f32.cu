/* SPDX-License-Identifier: Apache-2.0
 *
 * The casts of casts.def from F32. */
#include "casts.cuh"

#define BLOCKS(in, element, kind, block) BRC_FROM_##in(BRC_BLOCKS(in, element, kind, block))
#define WHOLE(in, element) BRC_FROM_##in(BRC_WHOLE(in, element))
#define GLOBAL(in) BRC_FROM_##in(BRC_GLOBAL(in))
#define BOTH BRC_SKIP
#define DEQUANTIZE BRC_SKIP
#define BRC_FROM_F32(...) __VA_ARGS__
#define BRC_FROM_F16(...)
#define BRC_FROM_CODED(...)
#define BRC_FROM_BF16(...)
#include "casts.def"
