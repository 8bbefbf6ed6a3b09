/* SPDX-License-Identifier: Apache-2.0
 * The source outlives a conversion: no file of the destination that will be replaced or removed may be one that the
 * source was read from, whatever links lead there. Files are told apart by device and inode. */
#include "container/file.h"
#include "convert/transfer.h"

#include <stdlib.h>
#include <sys/stat.h>

/* The names under which a folder's weights are written, replaced or removed; the shards of an index that is there
 * come on top. */
static const char *const written[] = {BRCI_SINGLE_NAME, BRCI_INDEX_NAME, BRCI_CONFIG_NAME};
#define SHARD_WRITTEN "model-%05u-of-%05u.safetensors"

typedef struct facts {
    dev_t device;
    ino_t inode;
    const char *path;
} facts;

/* What the source was read from. */
typedef struct origin {
    facts *files;
    size_t n;
} origin;

static void add(origin *o, const char *path) {
    struct stat s;
    if (path != NULL && stat(path, &s) == 0) o->files[o->n++] = (facts){s.st_dev, s.st_ino, path};
}

static brc_status origin_of(brci_transfer *t, origin *o, brc_error *err) {
    size_t shards = brc_file_shards(t->file);
    size_t descriptions = 0;
    while (brci_description(descriptions) != NULL) descriptions++;
    o->files = malloc((shards + descriptions + 2) * sizeof *o->files);
    if (o->files == NULL) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    for (size_t i = 0; i < shards; i++) add(o, brc_file_shard_path(t->file, i));
    add(o, brc_file_index(t->file));
    if (brc_file_config(t->file) != NULL)
        add(o, brci_pool_print(&t->pool, "%s/%s", brc_file_folder(t->file), BRCI_CONFIG_NAME));
    for (size_t i = 0; i < descriptions && brc_file_folder(t->file) != NULL; i++)
        add(o, brci_pool_print(&t->pool, "%s/%s", brc_file_folder(t->file), brci_description(i)));
    return BRC_OK;
}

static brc_status check(const origin *o, const char *path, brc_error *err) {
    struct stat s;
    if (stat(path, &s) != 0) return BRC_OK;
    for (size_t i = 0; i < o->n; i++)
        if (o->files[i].device == s.st_dev && o->files[i].inode == s.st_ino)
            return brci_fail(err, BRC_ARGUMENT, 0,
                             "%s: is the source's own %s and would be replaced; give another destination",
                             brci_clip(path).text, brci_clip(o->files[i].path).text);
    return BRC_OK;
}

static brc_status check_in(brci_transfer *t, const origin *o, const char *name, brc_error *err) {
    return check(o, brci_pool_print(&t->pool, "%s/%s", t->destination, name), err);
}

/* The shards that an index of the destination names: they go with it. One that cannot be read names none. */
static brc_status check_indexed(brci_transfer *t, const origin *o, brc_error *err) {
    brci_index index;
    const char *path = brci_pool_print(&t->pool, "%s/%s", t->destination, BRCI_INDEX_NAME);
    brc_status status = BRC_OK;
    if (brci_index_read(path, &t->pool.arena, &index, NULL) != BRC_OK) return BRC_OK;
    for (size_t i = 0; i < index.n_shards && status == BRC_OK; i++) status = check_in(t, o, index.shards[i], err);
    brci_index_free(&index);
    return status;
}

static brc_status check_folder(brci_transfer *t, const origin *o, brc_error *err) {
    char name[64];
    for (size_t i = 0; i < sizeof written / sizeof *written; i++) TRY(check_in(t, o, written[i], err));
    for (size_t i = 0; brci_description(i) != NULL; i++) TRY(check_in(t, o, brci_description(i), err));
    for (uint32_t i = 1; i <= t->n_shards && t->n_shards > 1; i++) {
        snprintf(name, sizeof name, SHARD_WRITTEN, i, t->n_shards);
        TRY(check_in(t, o, name, err));
    }
    return check_indexed(t, o, err);
}

brc_status brci_transfer_guard(brci_transfer *t, brc_error *err) {
    origin o = {0};
    brc_status status = origin_of(t, &o, err);
    if (status == BRC_OK) status = t->folder ? check_folder(t, &o, err) : check(&o, t->destination, err);
    if (status == BRC_OK && t->pool.failed) status = brci_fail(err, BRC_MEMORY, 0, "out of memory");
    free(o.files);
    return status;
}
