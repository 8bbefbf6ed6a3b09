/* SPDX-License-Identifier: Apache-2.0
 * Limit: TRIES temporary names are tried. */
#include "container/outputs.h"

#include "container/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TRIES 10000

static brc_status fail(const char *path, const char *what, brc_error *err) {
    return brci_fail(err, errno == EEXIST ? BRC_EXISTS : BRC_IO, 0, "%s: %s%s%s", brci_clip(path).text, what,
                     what[0] == '\0' ? "" : ": ", strerror(errno));
}

static brc_status no_memory(const char *path, brc_error *err) {
    return brci_fail(err, BRC_MEMORY, 0, "%s: no memory to write it", brci_clip(path).text);
}

brc_status brci_outputs_begin(brci_outputs *o, brci_arena *arena, const char *folder, int overwrite, brc_error *err) {
    *o = (brci_outputs){.arena = arena, .folder = folder, .overwrite = overwrite, .mode = -1};
    if (mkdir(folder, 0777) == 0) {
        o->made_folder = 1;
        return BRC_OK;
    }
    return errno == EEXIST ? BRC_OK : fail(folder, "the folder cannot be made", err);
}

static const char *path_in(const brci_outputs *o, const char *name) {
    size_t length = strlen(o->folder);
    return brci_arena_print(o->arena, "%s%s%s", o->folder, length > 0 && o->folder[length - 1] == '/' ? "" : "/", name);
}

/* A name beside the destination that nothing has. */
static const char *temporary_name(brci_outputs *o) {
    static unsigned next; /* only makes collisions rare: O_EXCL and the loop make them harmless */
    const char *name = brci_arena_print(o->arena, ".breccia-%ld-%u.tmp", (long)getpid(),
                                        __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED));
    return name == NULL ? NULL : path_in(o, name);
}

static int is_there(const char *path, int *folder) {
    struct stat facts;
    int there = lstat(path, &facts) == 0;
    *folder = there && S_ISDIR(facts.st_mode);
    return there;
}

brc_status brci_outputs_add(brci_outputs *o, const char *name, size_t *item, brc_error *err) {
    brci_output output = {.name = path_in(o, name), .fd = -1};
    struct stat old;
    int folder, mode = o->mode;
    if (output.name == NULL) return no_memory(name, err);
    if (is_there(output.name, &folder) && (folder || !o->overwrite)) /* better now than after hours of writing */
        return brci_fail(err, BRC_EXISTS, 0, "%s: %s", brci_clip(output.name).text,
                         folder ? "it is a folder" : "it exists already");
    if (stat(output.name, &old) == 0 && S_ISREG(old.st_mode)) mode = old.st_mode & 0777;
    for (size_t i = 0; i < o->count; i++)
        if (strcmp(o->items[i].name, output.name) == 0)
            return brci_fail(err, BRC_EXISTS, 0, "%s: to be written twice", brci_clip(output.name).text);
    TRY(brci_room(&o->items, &o->capacity, o->count, sizeof output, err));
    for (int i = 0; i < TRIES && output.fd < 0; i++) {
        output.temporary = temporary_name(o);
        if (output.temporary == NULL) return no_memory(name, err);
        output.fd = open(output.temporary, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, mode < 0 ? 0666 : (mode_t)mode);
        if (output.fd < 0 && errno != EEXIST) break;
    }
    if (output.fd < 0) return fail(o->folder, "no file can be made there", err);
    if (mode >= 0) (void)fchmod(output.fd, (mode_t)mode); /* what the umask took; not every file system has modes */
    *item = o->count;
    o->items[o->count++] = output;
    return BRC_OK;
}

brc_status brci_output_write(const brci_output *output, const void *bytes, size_t size, int64_t position,
                             brc_error *err) {
    size_t done = 0;
    while (done < size) {
        ssize_t n = pwrite(output->fd, (const char *)bytes + done, size - done, position + (int64_t)done);
        if (n < 0 && errno == EINTR) continue;
        if (n == 0) errno = ENOSPC;
        if (n <= 0) return fail(output->name, "", err);
        done += (size_t)n;
    }
    return BRC_OK;
}

/* Renames, but never over something. */
static int rename_new(const char *from, const char *to) {
#if defined(SYS_renameat2)
    if (syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 1u /* RENAME_NOREPLACE */) == 0) return 0;
    if (errno != ENOSYS && errno != EINVAL) return -1;
#endif
    if (link(from, to) != 0) return -1;
    return unlink(from);
}

/* Moves what is at `path` to a temporary name; *aside stays NULL where nothing is. */
static brc_status set_aside(brci_outputs *o, const char *path, const char **aside, brc_error *err) {
    int folder;
    *aside = NULL;
    for (int i = 0; i < TRIES && *aside == NULL && is_there(path, &folder); i++) {
        const char *name = temporary_name(o);
        if (folder) return brci_fail(err, BRC_EXISTS, 0, "%s: it is a folder", brci_clip(path).text);
        if (name == NULL) return no_memory(path, err);
        if (rename_new(path, name) == 0) *aside = name;
        else if (errno != EEXIST) return fail(path, "it cannot be replaced", err);
    }
    return BRC_OK;
}

static void put_back(const char *path, const char *aside) {
    if (aside != NULL) (void)rename(aside, path);
}

static brc_status place(brci_outputs *o, brci_output *output, brc_error *err) {
    if (o->overwrite && o->count == 1) { /* one file: a single atomic step */
        if (rename(output->temporary, output->name) != 0) return fail(output->name, "", err);
    } else {
        if (o->overwrite) TRY(set_aside(o, output->name, &output->aside, err));
        if (rename_new(output->temporary, output->name) != 0) {
            put_back(output->name, output->aside);
            output->aside = NULL;
            return fail(output->name, "", err);
        }
    }
    output->placed = 1;
    return BRC_OK;
}

/* One file that replaced another stays: it is complete, the old one is gone, and only whether its name outlasts a crash
 * is unknown. */
static void take_back(const brci_outputs *o, brci_output *output) {
    if (o->overwrite && o->count == 1) return;
    (void)unlink(output->name);
    put_back(output->name, output->aside);
    output->placed = 0;
}

/* Makes the names last through a crash. Where a folder cannot be synced (some network file systems) nothing more can be
 * done. */
static brc_status sync_folder(const brci_outputs *o, brc_error *err) {
    int fd = open(o->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC), failed;
    if (fd < 0) return errno == EACCES ? BRC_OK : fail(o->folder, "", err);
    failed = fsync(fd) != 0 && errno != EINVAL && errno != EROFS;
    if (failed) (void)fail(o->folder, "", err);
    close(fd);
    return failed ? BRC_IO : BRC_OK;
}

static brc_status sync_all(brci_outputs *o, brc_error *err) {
    for (size_t i = 0; i < o->count; i++) {
        brci_output *output = &o->items[i];
        int failed = fsync(output->fd) != 0;
        if (failed) (void)fail(output->name, "", err);
        if (close(output->fd) != 0 && !failed) {
            (void)fail(output->name, "", err);
            failed = 1;
        }
        output->fd = -1;
        if (failed) return BRC_IO;
    }
    return BRC_OK;
}

brc_status brci_outputs_commit(brci_outputs *o, const char *index, const char *const *obsolete, size_t n_obsolete,
                               brc_error *err) {
    const char *index_aside = NULL;
    brc_status status = sync_all(o, err);
    size_t placed = 0;
    if (status == BRC_OK && index != NULL) status = set_aside(o, index, &index_aside, err);
    while (status == BRC_OK && placed < o->count) {
        status = place(o, &o->items[placed], err);
        placed += status == BRC_OK;
    }
    if (status == BRC_OK) status = sync_folder(o, err);
    if (status != BRC_OK) { /* as it was before */
        while (placed-- > 0) take_back(o, &o->items[placed]);
        if (index != NULL) put_back(index, index_aside);
        return status;
    }
    for (size_t i = 0; i < o->count; i++)
        if (o->items[i].aside != NULL) (void)unlink(o->items[i].aside);
    if (index_aside != NULL) (void)unlink(index_aside);
    for (size_t i = 0; i < n_obsolete; i++) (void)unlink(obsolete[i]);
    return BRC_OK;
}

void brci_outputs_discard(brci_outputs *o) {
    int placed = 0;
    for (size_t i = 0; i < o->count; i++) {
        if (o->items[i].fd >= 0) close(o->items[i].fd);
        if (!o->items[i].placed) (void)unlink(o->items[i].temporary);
        placed |= o->items[i].placed;
    }
    if (o->made_folder && !placed) (void)rmdir(o->folder);
    free(o->items);
    *o = (brci_outputs){0};
}
