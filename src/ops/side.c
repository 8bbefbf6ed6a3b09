/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/side.h"

brc_status brci_side_of(const brc_operand *operand, const char *name, brci_side *s, brc_error *err) {
    if ((operand->scaled == NULL) == (operand->plain == NULL))
        return brci_fail(err, BRC_ARGUMENT, 0, "%s: a scaled tensor or a plain array must be given, not both", name);
    if (operand->scaled != NULL) {
        TRY(brc_tensor_check(operand->scaled, err));
        s->source = brci_source_tensor(operand->scaled);
        s->rank = operand->scaled->rank;
        s->shape = operand->scaled->shape;
    } else {
        TRY(brci_array_check(operand->plain, name, err));
        s->source = brci_source_array(operand->plain);
        s->rank = operand->plain->rank;
        s->shape = operand->plain->shape;
    }
    if (s->rank < 2) return brci_fail(err, BRC_SHAPE, 0, "%s: a product needs at least 2 dimensions", name);
    s->rows = operand->transposed ? s->source.view.cols : s->source.view.rows;
    s->cols = operand->transposed ? s->source.view.rows : s->source.view.cols;
    return BRC_OK;
}
