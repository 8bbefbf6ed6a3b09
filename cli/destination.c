/* SPDX-License-Identifier: Apache-2.0
 * A name that ends in .safetensors is one file, any other a folder (brc_writer_new): so another format's ending is a
 * slip, and a folder of that name a surprise. */
#include "destination.h"

#include "print.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

static const char one_file[] = ".safetensors";
static const char *const other_formats[] = {".bin", ".pt",  ".pth", ".ckpt",    ".pkl",  ".gguf",  ".ggml",
                                            ".npz", ".npy", ".h5",  ".msgpack", ".onnx", ".tflite"};

static int ends_in(const char *path, const char *ending) {
    const size_t length = strlen(path), tail = strlen(ending);
    return length > tail && strcasecmp(path + length - tail, ending) == 0;
}

static int is_folder(const char *path) {
    struct stat facts;
    return stat(path, &facts) == 0 && S_ISDIR(facts.st_mode);
}

int destination_replaceable(const char *path) { return is_folder(path) != ends_in(path, one_file); }

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
        if (ends_in(path, other_formats[i]) && !is_folder(path)) what = "only safetensors is written";
    if (what == NULL) return check_parent(path);
    complain("%s: --output: '%s': %s; give a name ending in %s, or a folder", in->command->name, path, what, one_file);
    return EXIT_USAGE;
}
