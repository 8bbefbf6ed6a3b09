/* SPDX-License-Identifier: Apache-2.0 */
#define ISA avx512_vbmi
#include "cpu/lines.inc"
