/* SPDX-License-Identifier: Apache-2.0
 * The bytes of a file, mapped or read. */
#ifndef BRCI_MAP_H
#define BRCI_MAP_H

#include "core/status.h"

typedef struct brci_map {
    const uint8_t *bytes; /* copies have a NUL behind */
    int64_t size;
    int mapped;
} brci_map;

/* A regular file (or a link to one) of at most `limit` bytes. BRC_NOT_FOUND where there is none. */
brc_status brci_map_open(const char *path, int copy, int64_t limit, brci_map *map, brc_error *err);
void brci_map_close(brci_map *map);

#endif
