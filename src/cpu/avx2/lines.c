/* SPDX-License-Identifier: Apache-2.0 */
#define ISA avx2
#include "cpu/lines.inc"
