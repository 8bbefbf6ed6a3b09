/* SPDX-License-Identifier: Apache-2.0
 * What every dialect does while it says how a tensor is stored. */
#include "container/dtypes.h"
#include "dialect/dialect.h"

#include <string.h>

brci_stored *brci_stored_new(brci_store *store, const char *name, size_t length, const char *suffix,
                             brc_format format) {
    brci_stored *made = &store->arrays[store->n++];
    *made = (brci_stored){.name = brci_pool_print(store->pool, "%.*s%s", (int)length, name, suffix),
                          .format = (uint8_t)format};
    return made;
}

int64_t brci_stored_bytes(const brci_stored *stored) {
    int64_t elements, bytes = brc_format_get((brc_format)stored->format)->bits / 8;
    if (stored->dtype != NULL)
        return brci_gguf_extent(brci_gguf_of_word(stored->dtype), (size_t)stored->rank, stored->shape, &elements,
                                &bytes)
                   ? bytes
                   : -1;
    for (int i = 0; i < stored->rank; i++) bytes *= stored->shape[i];
    return bytes;
}

int brci_carry(brci_store *store, const brc_entry *origin, const char *role, const char *name, size_t length,
               const char *suffix) {
    const brc_named_array *array = origin == NULL ? NULL : brci_part(origin, role);
    if (array == NULL || array->rank > BRC_MAX_RANK || store->n == BRCI_MAX_PARTS) return 0;
    brci_stored *made = brci_stored_new(store, name, length, suffix, (brc_format)array->array.format);
    if (array->block_numbers > 0) made->dtype = array->dtype;
    made->rank = (int)array->rank;
    memcpy(made->shape, array->shape, array->rank * sizeof *made->shape);
    made->bytes = array->array.data;
    return 1;
}

void brci_stored_number(brci_store *store, int rank) {
    brci_stored *last = &store->arrays[store->n - 1];
    if (last->rank > 1 || (last->rank == 1 && last->shape[0] != 1)) return;
    last->rank = rank;
    last->shape[0] = 1;
}
