/* SPDX-License-Identifier: Apache-2.0
 *
 * A CUDA driver that runs nothing (but casts, where emulated/casts.cpp is built in): it checks what it is asked, as
 * strictly as the real one's documentation, and remembers the last launch. Built as libcuda.so.1 and found through
 * LD_LIBRARY_PATH. STUB_MODE: "none" = no device, "old" = devices of compute capability 8.0, "older" = 7.5, "ancient" =
 * a driver before 12.0, "no context" = none is current until brc_cuda_use, "full" = every launch fails. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/arguments.h"

#define EXPORT __attribute__((visibility("default")))

typedef struct attribute {
    int32_t id;
    char pad[4];
    union {
        char room[64];
        int32_t flag;
        uint32_t cluster[3];
    } value;
} attribute;
typedef struct config {
    uint32_t grid[3], block[3], shared;
    void *stream;
    attribute *attributes;
    uint32_t count;
} config;

/* What a test may look at: the last launch of all threads, and how many there were. */
static pthread_mutex_t seeing = PTHREAD_MUTEX_INITIALIZER;
EXPORT struct stub_seen {
    char kernel[96];
    uint32_t grid[3], block[3], shared, cluster;
    int cooperative, overlap, launches, maps, libraries;
    void *stream;
    unsigned char arguments[1024];
} stub_seen;

/* Defined where the cast kernels are built in (emulated/casts.cpp): runs one, or says that it does not know it. */
__attribute__((weak)) int emulated_run(const char *kernel, unsigned grid, unsigned threads, int cooperative,
                                       const void *arguments);

static const char *mode(void) {
    const char *m = getenv("STUB_MODE");
    return m ? m : "";
}
static char names[512][96];
static int name_count, shared_limit[512];

static int stub_init(unsigned flags) {
    (void)flags;
    return strcmp(mode(), "none") ? 0 : 100;
}
static int stub_error(int code, const char **text) {
    *text = code == 701 ? "too many resources requested for launch" : "invalid argument";
    return 0;
}
static int stub_count(int *n) {
    *n = 2;
    return 0;
}
static int stub_attribute(int *value, int which, int device) {
    (void)device;
    const int capability = !strcmp(mode(), "old") ? 80 : !strcmp(mode(), "older") ? 75 : 90;
    *value = which == 16 ? 132 : which == 75 ? capability / 10 : which == 76 ? capability % 10 : 0;
    return 0;
}
static _Thread_local int current; /* what STUB_MODE="no context" waits for */
static int stub_context_device(int *device) {
    *device = 0;
    return strcmp(mode(), "no context") || current ? 0 : 201;
}
static int stub_set(void *context) {
    current = context != NULL;
    return context ? 0 : 1;
}
static int stub_retain(void **context, int device) {
    static int c[2];
    *context = &c[device];
    return 0;
}
static int stub_load(void **library, const void *image, void *a, void *b, unsigned c, void *d, void *e, unsigned f) {
    (void)a;
    (void)b;
    (void)c;
    (void)d;
    (void)e;
    (void)f;
    if (*(const uint32_t *)image != 0xBA55ED50) return 200; /* a fatbin starts so */
    *library = &stub_seen.libraries;
    stub_seen.libraries++;
    return 0;
}
static int stub_kernel(void **kernel, void *library, const char *name) {
    (void)library;
    if (name_count == 512 || strlen(name) > 95) return 500;
    strcpy(names[name_count], name);
    *kernel = names[name_count++];
    return 0;
}
static int stub_function(void **function, void *kernel) {
    *function = kernel;
    return kernel ? 0 : 1;
}
static int stub_kernel_attribute(int which, int value, void *kernel, int device) {
    (void)device;
    if (which != 8 || value > 232448) return 1;
    shared_limit[(int)(((char *)kernel - names[0]) / 96)] = value;
    return 0;
}
static int stub_map(void *map, int type, uint32_t rank, const void *data, const uint64_t *dims, const uint64_t *pitch,
                    const uint32_t *box, const uint32_t *step, int interleave, int swizzle, int promote, int fill) {
    const uint64_t size = type == 0 ? 1 : type == 1 ? 2 : 4;
    (void)promote;
    if ((uintptr_t)map & 63 || (uintptr_t)data & 15 || !data || rank < 2 || rank > 3 ||
        (type != 0 && type != 1 && type != 7) || interleave || fill)
        return 1;
    for (uint32_t i = 0; i < rank; i++)
        if (!dims[i] || dims[i] > 1ull << 32 || !box[i] || box[i] > 256 || step[i] != 1) return 1;
    for (uint32_t i = 0; i + 1 < rank; i++) {
        const uint64_t row = i ? pitch[i - 1] * dims[i] : dims[0] * size;
        if (pitch[i] & 15 || pitch[i] >= 1ull << 40 || (pitch[i] < row && dims[i + 1] > 1)) return 1;
    }
    if (box[0] * size & 15) return 1;
    if (swizzle == 3 ? box[0] * size > 128 : swizzle != 0) return 1;
    memset(map, 0x5A, 128);
    pthread_mutex_lock(&seeing);
    stub_seen.maps++;
    pthread_mutex_unlock(&seeing);
    return 0;
}
static int stub_launch(const config *c, void *kernel, void **parameters, void **extra) {
    const int which = (int)(((char *)kernel - names[0]) / 96);
    struct stub_seen now = {.shared = c->shared, .cluster = 1, .stream = c->stream};
    if (!strcmp(mode(), "full")) return 701;
    if (extra || !parameters || c->shared > 48 * 1024 + (uint32_t)shared_limit[which] ||
        (c->shared > 48 * 1024 && c->shared > (uint32_t)shared_limit[which]))
        return 1;
    for (uint32_t i = 0; i < c->count; i++) {
        if (c->attributes[i].id == 4) now.cluster = c->attributes[i].value.cluster[0];
        else if (c->attributes[i].id == 2) now.cooperative = c->attributes[i].value.flag;
        else if (c->attributes[i].id == 6) now.overlap = c->attributes[i].value.flag;
        else return 1;
    }
    for (int i = 0; i < 3; i++)
        if (!c->grid[i] || !c->block[i] || (i && c->grid[i] > 65535)) return 1;
    if (c->block[0] > 1024 || c->grid[0] % now.cluster || now.cluster > 8) return 1;
    snprintf(now.kernel, sizeof now.kernel, "%s", (const char *)kernel);
    memcpy(now.grid, c->grid, sizeof c->grid);
    memcpy(now.block, c->block, sizeof c->block);
    const int product = !strncmp(now.kernel, "gemm_E", 6);
    memcpy(now.arguments, parameters[0], product ? sizeof(brci_gemm_args) : 128); /* no parameter is shorter */
    pthread_mutex_lock(&seeing);
    now.launches = stub_seen.launches + 1;
    now.maps = stub_seen.maps;
    now.libraries = stub_seen.libraries;
    stub_seen = now;
    pthread_mutex_unlock(&seeing);
    return emulated_run ? emulated_run(kernel, c->grid[0], c->block[0], now.cooperative, parameters[0]) : 0;
}

EXPORT int cuGetProcAddress_v2(const char *name, void **entry, int version, uint64_t flags, int *status) {
    static const struct {
        const char *name;
        void *entry;
    } table[] = {{"cuInit", (void *)stub_init},
                 {"cuGetErrorString", (void *)stub_error},
                 {"cuDeviceGetCount", (void *)stub_count},
                 {"cuDeviceGetAttribute", (void *)stub_attribute},
                 {"cuCtxGetDevice", (void *)stub_context_device},
                 {"cuCtxSetCurrent", (void *)stub_set},
                 {"cuDevicePrimaryCtxRetain", (void *)stub_retain},
                 {"cuLibraryLoadData", (void *)stub_load},
                 {"cuLibraryGetKernel", (void *)stub_kernel},
                 {"cuKernelGetFunction", (void *)stub_function},
                 {"cuKernelSetAttribute", (void *)stub_kernel_attribute},
                 {"cuTensorMapEncodeTiled", (void *)stub_map},
                 {"cuLaunchKernelEx", (void *)stub_launch}};
    (void)flags;
    if (status) *status = 0;
    *entry = NULL;
    if (version < 12000 || !strcmp(mode(), "ancient")) return 500;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (!strcmp(table[i].name, name)) *entry = table[i].entry;
    return *entry ? 0 : 500;
}
