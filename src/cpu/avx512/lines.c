/* SPDX-License-Identifier: Apache-2.0 */
#define ISA avx512
#include "cpu/lines.inc"
