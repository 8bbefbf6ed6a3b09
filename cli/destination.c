/* SPDX-License-Identifier: Apache-2.0
 * A name that ends in .safetensors or .gguf is one file, any other a folder (brc_writer_new): so another format's
 * ending is a slip, and a folder of that name a surprise. */
#include "destination.h"

#include "print.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

static const char *const one_file[] = {".safetensors", ".gguf"};
static const char *const other_formats[] = {".bin", ".pt",  ".pth", ".ckpt",    ".pkl",  ".ggml",
                                            ".npz", ".npy", ".h5",  ".msgpack", ".onnx", ".tflite"};

static int ends_in(const char *path, const char *ending) {
    const size_t length = strlen(path), tail = strlen(ending);
    return length > tail && strcasecmp(path + length - tail, ending) == 0;
}

static int is_folder(const char *path) {
    struct stat facts;
    return stat(path, &facts) == 0 && S_ISDIR(facts.st_mode);
}

static int is_one_file(const char *path) {
    for (size_t i = 0; i < sizeof one_file / sizeof *one_file; i++)
        if (ends_in(path, one_file[i])) return 1;
    return 0;
}

int destination_replaceable(const char *path) { return is_folder(path) != is_one_file(path); }

/* The folder that it stands in: DST itself may be made, but nothing above it. */
static int check_parent(const char *path) {
    struct stat facts;
    char *parent = strdup(path);
    if (parent == NULL) return complain("out of memory"), EXIT_IO;
    for (size_t n = strlen(parent); n > 1 && parent[n - 1] == '/'; n--) parent[n - 1] = '\0';
    char *slash = strrchr(parent, '/');
    int code = 0;
    if (slash != NULL && slash != parent) {
        *slash = '\0';
        if (stat(parent, &facts) != 0 && errno == ENOENT) {
            complain("%s: there is no folder %s; make it first", path, parent);
            code = EXIT_IO;
        }
    }
    free(parent);
    return code;
}

int destination_check(const struct invocation *in) {
    const char *path = option_value(in, OPTION_OUTPUT), *what = NULL;
    if (path[0] == '\0') what = "the name is empty";
    for (size_t i = 0; i < sizeof other_formats / sizeof *other_formats; i++)
        if (ends_in(path, other_formats[i]) && !is_folder(path)) what = "safetensors and GGUF are written";
    if (what == NULL) return check_parent(path);
    complain("%s: --output: '%s': %s; give a name ending in %s or %s, or a folder", in->command->name, path, what,
             one_file[0], one_file[1]);
    return EXIT_USAGE;
}
