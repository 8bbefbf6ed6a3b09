/* SPDX-License-Identifier: Apache-2.0
 * libFuzzer: any bytes as model.safetensors.index.json. fuzz/run builds and runs it. */
#include "container/file.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define REQUIRE(truth) ((truth) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    brci_arena arena = {0};
    brci_index index;
    brc_error err;
    char path[32];
    int fd = memfd_create("index", 0); /* the reader takes a path */
    REQUIRE(fd >= 0 && write(fd, bytes, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (brci_index_read(path, &arena, &index, &err) == BRC_OK) {
        for (size_t i = 0; i < index.n_places; i++) REQUIRE(index.places[i].shard < index.n_shards);
        for (size_t i = 0; i < index.n_shards; i++) /* no name leads out of the folder */
            REQUIRE(index.shards[i][0] != '/' && index.shards[i][0] != 0 && strncmp(index.shards[i], "../", 3) != 0 &&
                    strstr(index.shards[i], "/../") == NULL && strcmp(index.shards[i], "..") != 0);
        brci_index_free(&index);
    }
    brci_arena_free(&arena);
    close(fd);
    return 0;
}
