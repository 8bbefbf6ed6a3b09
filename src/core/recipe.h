/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BRCI_RECIPE_H
#define BRCI_RECIPE_H

#include "core/format.h"
#include "core/status.h"

#define BRCI_MAX_HISTORY (1 << 20) /* casts that delayed scaling may remember */

/* The rule gives E8M0 exponents by integer arithmetic on amax (OCP MX). */
static inline int brci_is_mx_rule(unsigned rule) { return rule >= BRC_RULE_RCEIL && rule <= BRC_RULE_EVEN; }

/* ggml's blocks lie in one row, and have no more numbers (Q2_K and its kind have as many). */
#define BRCI_GGML_BLOCK 256u
#define BRCI_MLX_BLOCK BRCI_GGML_BLOCK /* the same of MLX's affine ones, which end at 128 */

/* Zero points are in units of the value, and in the format of the scales. */
static inline int brci_has_real_zeros(const brc_recipe *r) {
    return r->arith == BRC_ARITH_GGML || r->arith == BRC_ARITH_MLX;
}

/* E4M3 block scales as NVFP4 has them; one-level integers take theirs by the integers' rules. */
static inline int brci_has_fraction_scales(const brc_recipe *r) {
    return r->scale == BRC_E4M3 && (r->levels == 2 || !brci_is_integer(brci_format(r->element)));
}

/* Two levels: the global scale is stored as a divisor (compressed-tensors). */
static inline int brci_stores_divisor(const brc_recipe *r) {
    return r->arith == BRC_ARITH_DIV || r->arith == BRC_ARITH_CT;
}

/* What amax is divided by: the largest element, for signed integers half the code range (7.5, 127.5). */
static inline float brci_element_reach(const brc_format_info *element) {
    return (float)(element->family == BRC_INT ? (element->max - element->min) / 2 : element->max);
}

/* Whether it is valid and says how numbers are made. */
brc_status brci_recipe_castable(const brc_recipe *recipe, brc_error *err);
int brci_recipe_equal(const brc_recipe *a, const brc_recipe *b);

#endif
