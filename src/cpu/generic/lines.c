/* SPDX-License-Identifier: Apache-2.0 */
#define ISA generic
#include "cpu/lines.inc"
