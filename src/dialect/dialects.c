/* SPDX-License-Identifier: Apache-2.0
 * The table of dialects: public facts from dialects.def, and what implements those that are read. */
#include "dialect/dialect.h"

#include <string.h>

static const brc_dialect_info infos[BRC_DIALECT_COUNT] = {
#define BRC_DIALECT_ROW(id, name, text, reads, writes)                                                                 \
    [BRC_DIALECT_##id] = {sizeof(brc_dialect_info), name, text, reads, writes},
#include "breccia/dialects.def"
#undef BRC_DIALECT_ROW
};

/* Tensors that no dialect claims. */
const brci_dialect brci_dialect_PLAIN = {0};

#define DECLARE_0(id)
#define DECLARE_1(id) extern const brci_dialect brci_dialect_##id;
#define BRC_DIALECT_ROW(id, name, text, reads, writes) DECLARE_##reads(id)
#include "breccia/dialects.def"
#undef BRC_DIALECT_ROW

static const brci_dialect *const dialects[BRC_DIALECT_COUNT] = {
#define POINT_0(id)
#define POINT_1(id) [BRC_DIALECT_##id] = &brci_dialect_##id,
#define BRC_DIALECT_ROW(id, name, text, reads, writes) POINT_##reads(id)
#include "breccia/dialects.def"
#undef BRC_DIALECT_ROW
};

const brc_dialect_info *brc_dialect_get(brc_dialect dialect) {
    return (unsigned)dialect < BRC_DIALECT_COUNT ? &infos[dialect] : NULL;
}

brc_dialect brc_dialect_find(const char *name) {
    unsigned i = 0;
    while (i < BRC_DIALECT_COUNT && (name == NULL || strcmp(infos[i].name, name) != 0)) i++;
    return (brc_dialect)i;
}

const brci_dialect *brci_dialect_of(brc_dialect dialect) {
    return (unsigned)dialect < BRC_DIALECT_COUNT ? dialects[dialect] : NULL;
}

const char *brc_dialect_recipe(brc_dialect dialect, size_t i) {
    const brci_dialect *d = brci_dialect_of(dialect);
    if (d == NULL || d->store == NULL || d->recipes == NULL) return NULL;
    for (size_t at = 0; at < i; at++)
        if (d->recipes[at] == NULL) return NULL;
    return d->recipes[i];
}
