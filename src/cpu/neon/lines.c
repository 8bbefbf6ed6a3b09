/* SPDX-License-Identifier: Apache-2.0 */
#define ISA neon
#include "cpu/lines.inc"
