/* SPDX-License-Identifier: Apache-2.0 */
#define ISA avx_vnni
#include "cpu/rows.inc"
