/* SPDX-License-Identifier: Apache-2.0
 * The writer under the memory checkers: every way a writer ends, threads that write at once, and failures of the disk.
 * What the files hold is compared with the library's own in test_writer.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "breccia/breccia_file.h"
#include "container/extents.h"

enum { BYTES = 4096, SHARDS = 3, THREADS = 4 };

static char folder[] = "/tmp/breccia-writer-XXXXXX";

static int make_folder(void **state) {
    (void)state;
    strcpy(folder + strlen(folder) - 6, "XXXXXX");
    return mkdtemp(folder) == NULL;
}

/* Names in a folder, but for "." and ".."; with `removing`, they are removed. */
static int names_in(const char *path, int removing) {
    DIR *opened = opendir(path);
    struct dirent *item;
    int n = 0;
    assert_non_null(opened);
    while ((item = readdir(opened)) != NULL) {
        char name[600];
        if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0) continue;
        snprintf(name, sizeof name, "%s/%s", path, item->d_name);
        n++;
        if (removing && unlink(name) != 0) {
            names_in(name, 1);
            assert_int_equal(rmdir(name), 0);
        }
    }
    closedir(opened);
    return n;
}

static int remove_folder(void **state) {
    (void)state;
    names_in(folder, 1);
    return rmdir(folder);
}

static const char *inside(const char *name) {
    static char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* A writer of three arrays of BYTES each, in `shards` shards, and a text. */
static brc_writer *started(const char *path, uint32_t shards, uint32_t overwrite) {
    const brc_write_options options = {sizeof options, overwrite};
    static const int64_t shape[] = {BYTES / 64, 64};
    brc_writer *w = NULL;
    brc_error err = {BRC_OK, 0, ""};
    size_t number;
    assert_int_equal(brc_writer_new(path, &options, &w, &err), BRC_OK);
    for (uint32_t i = 0; i < SHARDS; i++) {
        const char *const names[] = {"a.weight", "b\n", ""};
        assert_int_equal(brc_writer_add(w, names[i], BRC_UINT8, 2, shape, i % shards, &number, &err), BRC_OK);
        assert_int_equal(number, i);
    }
    assert_int_equal(brc_writer_metadata(w, "format", "pt", &err), BRC_OK);
    return w;
}

static brc_status write_all(brc_writer *w, uint8_t value, brc_error *err) {
    uint8_t bytes[BYTES];
    brc_status status = brc_writer_begin(w, err);
    memset(bytes, value, sizeof bytes);
    for (size_t i = 0; i < SHARDS && status == BRC_OK; i++) status = brc_writer_write(w, i, 0, bytes, BYTES, err);
    return status;
}

/* The value of all bytes of the checkpoint; the arrays are there. */
static int value_in(const char *path) {
    brc_file *file;
    brc_error err = {BRC_OK, 0, ""};
    int value = -1;
    assert_int_equal(brc_file_open(path, NULL, &file, &err), BRC_OK);
    assert_int_equal(brc_file_count(file), SHARDS);
    for (size_t i = 0; i < SHARDS; i++) {
        const brc_named_array *a = brc_file_at(file, i);
        const uint8_t *bytes = a->array.data;
        if (value < 0) value = bytes[0];
        for (int k = 0; k < BYTES; k++) assert_int_equal(bytes[k], value);
    }
    brc_file_close(file);
    return value;
}

static void test_every_end(void **state) {
    brc_error err = {BRC_OK, 0, ""};
    (void)state;
    brc_writer_discard(NULL);
    assert_int_equal(brc_writer_finish(NULL, &err), BRC_ARGUMENT);
    for (uint32_t shards = 1; shards <= SHARDS; shards++) {
        brc_writer *w;
        brc_writer_discard(started(inside("m"), shards, 0));
        assert_int_equal(brc_writer_finish(started(inside("m"), shards, 0), &err), BRC_ARGUMENT);
        w = started(inside("m"), shards, 0);
        assert_int_equal(brc_writer_begin(w, &err), BRC_OK);
        brc_writer_discard(w);
        w = started(inside("m"), shards, 0);
        assert_int_equal(brc_writer_begin(w, &err), BRC_OK);
        assert_int_equal(brc_writer_finish(w, &err), BRC_ARGUMENT); /* incomplete */
        w = started(inside("m"), shards, 0);
        assert_int_equal(brc_writer_copy(w, "gone", inside("gone"), &err), BRC_OK);
        assert_int_equal(brc_writer_begin(w, &err), BRC_NOT_FOUND);
        assert_int_equal(brc_writer_finish(w, &err), BRC_ARGUMENT);
        assert_int_equal(names_in(folder, 0), 0);
    }
}

static void test_replacing(void **state) {
    brc_error err = {BRC_OK, 0, ""};
    uint8_t value = 0;
    (void)state;
    for (uint32_t before = 1; before <= SHARDS; before++)
        for (uint32_t after = 1; after <= SHARDS; after++) {
            brc_writer *w = started(inside("m"), before, 1), *other;
            assert_int_equal(write_all(w, ++value, &err), BRC_OK);
            assert_int_equal(brc_writer_finish(w, &err), BRC_OK);
            assert_int_equal(names_in(inside("m"), 0), before == 1 ? 1 : before + 1);
            w = started(inside("m"), after, 1);
            other = started(inside("m"), before, 1);
            assert_int_equal(write_all(w, ++value, &err), BRC_OK);
            assert_int_equal(write_all(other, 99, &err), BRC_OK);
            assert_int_equal(value_in(inside("m")), value - 1);
            assert_int_equal(brc_writer_finish(w, &err), BRC_OK);
            brc_writer_discard(other);
            assert_int_equal(value_in(inside("m")), value);
            assert_int_equal(names_in(inside("m"), 0), after == 1 ? 1 : after + 1);
        }
}

/* A folder stands where the last file shall be: all renames before it are taken back. */
static void test_taken_back(void **state) {
    brc_error err = {BRC_OK, 0, ""};
    (void)state;
    for (uint32_t overwrite = 0; overwrite < 2; overwrite++) {
        brc_writer *w = started(inside("m"), SHARDS, 0);
        char blocker[700];
        assert_int_equal(write_all(w, 1, &err), BRC_OK);
        assert_int_equal(brc_writer_finish(w, &err), BRC_OK);
        w = started(inside(overwrite ? "m" : "n"), SHARDS, overwrite);
        assert_int_equal(brc_writer_text(w, "blocker", "text", &err), BRC_OK);
        assert_int_equal(write_all(w, 2, &err), BRC_OK);
        snprintf(blocker, sizeof blocker, "%s/blocker", inside(overwrite ? "m" : "n"));
        assert_int_equal(mkdir(blocker, 0777), 0);
        assert_int_equal(brc_writer_finish(w, &err), BRC_EXISTS);
        assert_int_equal(value_in(inside("m")), 1);
        assert_int_equal(names_in(inside("m"), 0), SHARDS + 1 + overwrite);
        if (!overwrite) assert_int_equal(names_in(inside("n"), 0), 1);
        names_in(folder, 1);
    }
}

/* Files may grow to some bytes only; every limit up to the whole size. */
static void test_full_disk(void **state) {
    struct rlimit kept, limit;
    brc_error err = {BRC_OK, 0, ""};
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &kept), 0);
    for (uint32_t shards = 1; shards <= SHARDS; shards++)
        for (rlim_t bytes = 0; bytes <= BYTES; bytes += 512) {
            brc_writer *w = started(inside("m"), shards, 0);
            brc_status status;
            limit = (struct rlimit){bytes, kept.rlim_max};
            assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
            status = write_all(w, 1, &err);
            if (bytes % 1024 == 0) brc_writer_discard(w);
            else assert_int_equal(brc_writer_finish(w, NULL), BRC_ARGUMENT);
            assert_int_equal(setrlimit(RLIMIT_FSIZE, &kept), 0);
            assert_int_equal(status, BRC_IO);
            assert_non_null(strstr(err.text, "File too large"));
            assert_int_equal(names_in(folder, 0), 0);
        }
}

/* Only the last byte does not fit: every byte was given, and yet the writer must not finish. */
static void test_last_byte_fails(void **state) {
    static const uint8_t bytes[BYTES];
    struct rlimit kept, limit;
    brc_error err = {BRC_OK, 0, ""};
    brc_writer *w = started(inside("m"), 1, 0);
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(brc_writer_begin(w, &err), BRC_OK);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &kept), 0);
    limit = (struct rlimit){(rlim_t)brc_writer_bytes(w) - 1, kept.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    for (size_t i = 0, failed = 0; i < SHARDS; i++) {
        failed += brc_writer_write(w, i, 0, bytes, BYTES, &err) != BRC_OK;
        assert_true(failed < 2 || err.status == BRC_ARGUMENT);
    }
    assert_int_equal(brc_writer_finish(w, &err), BRC_ARGUMENT);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &kept), 0);
    assert_int_equal(names_in(folder, 0), 0);
}

typedef struct work {
    brc_writer *writer;
    int first;
    brc_status status;
} work;

/* Every THREADSth stripe of 64 bytes of every array. */
static void *write_stripes(void *argument) {
    work *mine = argument;
    uint8_t bytes[64];
    memset(bytes, 7, sizeof bytes);
    for (int64_t at = mine->first * 64; at < BYTES && mine->status == BRC_OK; at += THREADS * 64)
        for (size_t i = 0; i < SHARDS && mine->status == BRC_OK; i++)
            mine->status = brc_writer_write(mine->writer, i, at, bytes, sizeof bytes, NULL);
    return NULL;
}

static void test_threads(void **state) {
    brc_error err = {BRC_OK, 0, ""};
    (void)state;
    for (uint32_t shards = 1; shards <= SHARDS; shards += 2) {
        pthread_t threads[THREADS];
        work works[THREADS];
        brc_writer *w = started(inside("m"), shards, 1);
        assert_int_equal(brc_writer_begin(w, &err), BRC_OK);
        for (int i = 0; i < THREADS; i++) {
            works[i] = (work){w, i, BRC_OK};
            assert_int_equal(pthread_create(&threads[i], NULL, write_stripes, &works[i]), 0);
        }
        for (int i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
            assert_int_equal(works[i].status, BRC_OK);
        }
        assert_int_equal(brc_writer_finish(w, &err), BRC_OK);
        assert_int_equal(value_in(inside("m")), 7);
    }
}

/* Against a plain map of bytes: random ranges, refused where a byte is there already. */
static void test_extents(void **state) {
    uint8_t there[256] = {0};
    uint32_t random = 1;
    int64_t count = 0;
    brci_extents e = {0};
    (void)state;
    for (int round = 0; round < 3000; round++) {
        int64_t begin, end;
        int taken = 0;
        random = random * 1664525u + 1013904223u;
        begin = random >> 24;
        end = begin + (random >> 16) % 5;
        if (end > 256) end = 256;
        for (int64_t i = begin; i < end; i++) taken |= there[i];
        assert_int_equal(brci_extents_add(&e, begin, end, NULL), taken ? BRC_EXISTS : BRC_OK);
        for (int64_t i = begin; i < end && !taken; i++, count++) there[i] = 1;
        assert_int_equal(brci_extents_bytes(&e), count);
    }
    assert_true(count > 200 && e.count < 60);
    for (int64_t i = 0; i < 256; i++)
        assert_int_equal(brci_extents_add(&e, i, i + 1, NULL), there[i] ? BRC_EXISTS : BRC_OK);
    assert_int_equal(brci_extents_bytes(&e), 256);
    assert_int_equal(e.count, 1); /* neighbours were joined */
    brci_extents_free(&e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_end, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_replacing, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_taken_back, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_full_disk, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_last_byte_fails, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_threads, make_folder, remove_folder),
        cmocka_unit_test(test_extents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
