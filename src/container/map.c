/* SPDX-License-Identifier: Apache-2.0 */
#include "container/map.h"

#include "container/names.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* safetensors is little-endian, and what is mapped is used as it lies. A big-endian port must copy and swap here, and
 * swap in brc_writer_write. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are little-endian: this host would need byte swaps");

static brc_status fail(const char *path, const char *what, brc_error *err) {
    return brci_fail(err, BRC_IO, 0, "%s: %s", brci_clip(path).text, what);
}

static brc_status read_all(int fd, const char *path, brci_map *map, brc_error *err) {
    size_t size = (size_t)map->size, done = 0;
    uint8_t *bytes;
    if (size > SIZE_MAX - 64 || (bytes = aligned_alloc(64, (size + 64) & ~(size_t)63)) == NULL)
        return brci_fail(err, BRC_MEMORY, 0, "%s: no memory for its %zu bytes; open it mapped", brci_clip(path).text,
                         size);
    while (done < size) {
        ssize_t n = read(fd, bytes + done, size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            brc_status status = fail(path, n == 0 ? "became shorter while it was read" : strerror(errno), err);
            free(bytes);
            return status;
        }
        done += (size_t)n;
    }
    bytes[size] = 0;
    map->bytes = bytes;
    return BRC_OK;
}

static brc_status map_all(int fd, const char *path, brci_map *map, brc_error *err) {
    void *bytes;
    if (map->size == 0) { /* cannot be mapped */
        map->bytes = (const uint8_t *)"";
        map->mapped = 1;
        return BRC_OK;
    }
    bytes = mmap(NULL, (size_t)map->size, PROT_READ, MAP_SHARED, fd, 0);
    if (bytes == MAP_FAILED) return fail(path, strerror(errno), err);
    map->bytes = bytes;
    map->mapped = 1;
    return BRC_OK;
}

brc_status brci_map_open(const char *path, int copy, int64_t limit, brci_map *map, brc_error *err) {
    struct stat facts;
    brc_status status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a named pipe must not block */
    *map = (brci_map){0};
    if (fd < 0)
        return brci_fail(err, errno == ENOENT ? BRC_NOT_FOUND : BRC_IO, 0, "%s: %s", brci_clip(path).text,
                         strerror(errno));
    if (fstat(fd, &facts) != 0) {
        status = fail(path, strerror(errno), err);
    } else if (!S_ISREG(facts.st_mode)) {
        status = fail(path, "not a regular file", err);
    } else if (facts.st_size > limit) {
        status = brci_fail(err, BRC_LIMIT, 0, "%s: %lld bytes; at most %lld are read", brci_clip(path).text,
                           (long long)facts.st_size, (long long)limit);
    } else {
        map->size = facts.st_size;
        status = copy ? read_all(fd, path, map, err) : map_all(fd, path, map, err);
    }
    close(fd);
    return status;
}

void brci_map_close(brci_map *map) {
    if (map->bytes == NULL) return;
    if (!map->mapped) free((void *)(uintptr_t)map->bytes);
    else if (map->size > 0) munmap((void *)(uintptr_t)map->bytes, (size_t)map->size);
    *map = (brci_map){0};
}
