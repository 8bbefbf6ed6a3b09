/* SPDX-License-Identifier: Apache-2.0
 * A large header: time and memory of writing and opening a file of many small arrays, named as experts of a model are.
 * Each line is measured in a process of its own. usage: bench_header [arrays] */
#include <breccia/breccia_file.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *const path = "bench_header.safetensors"; /* in the current folder; removed at the end */
static size_t arrays = 200000;

static void name_of(size_t i, char name[64]) {
    static const char *const parts[] = {"gate_proj", "up_proj", "down_proj"};
    snprintf(name, 64, "model.layers.%zu.mlp.experts.%zu.%s.weight", i / 768, i / 3 % 256, parts[i % 3]);
}

static brc_status write_file(brc_error *err) {
    static const uint8_t codes[64];
    const brc_write_options options = {sizeof options, 1};
    const int64_t shape[] = {8, 8};
    brc_writer *writer = NULL;
    size_t number;
    brc_status status = brc_writer_new(path, &options, &writer, err);
    for (size_t i = 0; i < arrays && status == BRC_OK; i++) {
        char name[64];
        name_of(i, name);
        status = brc_writer_add(writer, name, BRC_E4M3, 2, shape, 0, &number, err);
    }
    if (status == BRC_OK) status = brc_writer_begin(writer, err);
    for (size_t i = 0; i < arrays && status == BRC_OK; i++)
        status = brc_writer_write(writer, i, 0, codes, sizeof codes, err);
    if (status == BRC_OK) return brc_writer_finish(writer, err);
    brc_writer_discard(writer);
    return status;
}

static brc_status open_file(uint32_t copy, int find, brc_error *err) {
    const brc_open_options options = {sizeof options, copy};
    brc_file *file;
    brc_status status = brc_file_open(path, &options, &file, err);
    if (status != BRC_OK) return status;
    for (size_t i = 0; i < arrays && find; i++) {
        char name[64];
        name_of(i, name);
        if (brc_file_find(file, name) == NULL) status = BRC_NOT_FOUND;
    }
    brc_file_close(file);
    return status;
}

static brc_status map_file(brc_error *err) { return open_file(0, 0, err); }
static brc_status copy_file(brc_error *err) { return open_file(1, 0, err); }
static brc_status find_all(brc_error *err) { return open_file(0, 1, err); }

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double cpu_seconds(const struct rusage *use) {
    return (double)(use->ru_utime.tv_sec + use->ru_stime.tv_sec) +
           1e-6 * (double)(use->ru_utime.tv_usec + use->ru_stime.tv_usec);
}

static int measure(const char *what, brc_status (*step)(brc_error *)) {
    int status = 0;
    pid_t child;
    fflush(stdout);
    child = fork();
    if (child == 0) {
        brc_error err = {BRC_OK, 0, ""};
        struct rusage before, after;
        double start = seconds();
        getrusage(RUSAGE_SELF, &before);
        if (step(&err) != BRC_OK) {
            fprintf(stderr, "bench_header: %s: %s\n", what, err.text);
            exit(5);
        }
        getrusage(RUSAGE_SELF, &after); /* ru_maxrss: KiB */
        printf("%-12s %8.3f %8.3f %10.1f\n", what, seconds() - start, cpu_seconds(&after) - cpu_seconds(&before),
               (double)(after.ru_maxrss - before.ru_maxrss) / 1024);
        exit(0);
    }
    return child < 0 || waitpid(child, &status, 0) != child || status != 0;
}

int main(int count, char **words) {
    struct stat facts = {0};
    int failed;
    if (count > 1) arrays = (size_t)strtoull(words[1], NULL, 10);
    if (arrays == 0) {
        fprintf(stderr, "usage: bench_header [arrays]\n");
        return 2;
    }
    printf("a file of %zu arrays\n%-12s %8s %8s %10s\n", arrays, "step", "seconds", "CPU", "peak MiB");
    failed = measure("write", write_file) || stat(path, &facts) != 0;
    failed = failed || measure("open, mapped", map_file) || measure("open, copied", copy_file) ||
             measure("find all", find_all);
    printf("header: %.1f MiB\n", ((double)facts.st_size - 64 * (double)arrays) / (1 << 20));
    unlink(path);
    return failed ? 5 : 0;
}
