/* SPDX-License-Identifier: Apache-2.0
 *
 * The CUDA driver, found at run time. No CUDA header is used: the few types below are the driver's binary interface,
 * which is stable (CUDA Driver API reference: cuda.h of 12.0). */
#include "driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "images.h"
#include "shape.h"

enum { MAX_DEVICES = 64, MAP_CACHE = 256 };
enum { ATTRIBUTE_MULTIPROCESSORS = 16, ATTRIBUTE_MAJOR = 75, ATTRIBUTE_MINOR = 76 }; /* CUdevice_attribute */
enum { FUNCTION_MAX_SHARED = 8 };                                                    /* CUfunction_attribute */
enum { LAUNCH_COOPERATIVE = 2, LAUNCH_CLUSTER = 4, LAUNCH_OVERLAP = 6 };             /* CUlaunchAttributeID */
enum {
    TYPE_UINT8 = 0,
    TYPE_UINT16 = 1,
    TYPE_FLOAT32 = 7,
    SWIZZLE_NONE = 0,
    SWIZZLE_128 = 3,
    PROMOTE_128 = 2,
    PROMOTE_256 = 3
};
enum { NOT_INITIALIZED = 3, NO_DEVICE = 100 }; /* CUresult */

typedef struct launch_attribute {
    int32_t id;
    char pad[4];
    union {
        char room[64];
        int32_t flag;
        uint32_t cluster[3];
    } value;
} launch_attribute;
typedef struct launch_config {
    uint32_t grid[3], block[3], shared_bytes;
    void *stream;
    launch_attribute *attributes;
    uint32_t count;
} launch_config;
_Static_assert(sizeof(launch_attribute) == 72 && sizeof(launch_config) == 56, "the driver's layout");

/* DRIVER(result, name, arguments): every entry point in use, of version 12.0. */
#define DRIVER_TABLE                                                                                                   \
    DRIVER(cuInit, (unsigned))                                                                                         \
    DRIVER(cuGetErrorString, (int, const char **))                                                                     \
    DRIVER(cuDeviceGetCount, (int *))                                                                                  \
    DRIVER(cuDeviceGetAttribute, (int *, int, int))                                                                    \
    DRIVER(cuCtxGetDevice, (int *))                                                                                    \
    DRIVER(cuCtxSetCurrent, (void *))                                                                                  \
    DRIVER(cuDevicePrimaryCtxRetain, (void **, int))                                                                   \
    DRIVER(cuLibraryLoadData, (void **, const void *, void *, void *, unsigned, void *, void *, unsigned))             \
    DRIVER(cuLibraryGetKernel, (void **, void *, const char *))                                                        \
    DRIVER(cuKernelSetAttribute, (int, int, void *, int))                                                              \
    DRIVER(cuTensorMapEncodeTiled, (void *, int, uint32_t, const void *, const uint64_t *, const uint64_t *,           \
                                    const uint32_t *, const uint32_t *, int, int, int, int))                           \
    DRIVER(cuLaunchKernelEx, (const launch_config *, void *, void **, void **))

static struct {
#define DRIVER(name, arguments) int(*name) arguments;
    DRIVER_TABLE
#undef DRIVER
} cu;

/* Symbols and dynamic shared memory of every kernel, in the order of the numbers in driver.h. */
static const struct {
    const char *symbol;
    int shared_bytes;
} kernels[BRCI_KERNELS] = {
#define GEMM(a, b, mode, team, mw, bn, share, rate)                                                                    \
    {"gemm_" #a "_" #b "_" #mode "_" #team "_" #mw "_" #bn "_" #share, 1},
#define SMALL(a, b, units, nb) {"small_" #a "_" #b "_" #units "_" #nb, 1},
#include "kernels.def"
    {"gemm_plain", 0},
#define CAST(name) {#name, 0},
#include "casts.def"
#define NARROW_FEW(codes, scales, group, a, nb) {"narrow_few_" #codes "_" #scales "_" #group "_" #a "_" #nb, 1},
#define NARROW_MANY(codes, scales, group, a, nb, mw)                                                                   \
    {"narrow_many_" #codes "_" #scales "_" #group "_" #a "_" #nb "_" #mw, 1},
#include "narrow.def"
    {"narrow_factors", 0},
    {"narrow_pack", 0},
};

static struct {
    pthread_mutex_t lock;
    _Atomic int state; /* 0 = not looked for, 1 = found, -1 = failed */
    brc_error why;     /* of the failure; written before state */
    int devices;
    _Atomic int device[MAX_DEVICES]; /* 0 = not looked at, multiprocessors when ready */
    void *kernel[BRCI_KERNELS];
    int loaded;
} port = {.lock = PTHREAD_MUTEX_INITIALIZER};

brc_status brci_cuda_fail(brc_error *err, brc_status status, const char *format, ...) {
    if (err) {
        va_list list;
        err->status = status;
        err->where = 0;
        va_start(list, format);
        vsnprintf(err->text, sizeof err->text, format, list);
        va_end(list);
    }
    return status;
}

static brc_status driver_error(brc_error *err, const char *call, int result) {
    const char *text = NULL;
    if (!cu.cuGetErrorString || cu.cuGetErrorString(result, &text) || !text) text = "unknown error";
    return brci_cuda_fail(err, BRC_DEVICE, "%s: %s (CUDA error %d)", call, text, result);
}

#define CU(call, ...)                                                                                                  \
    do {                                                                                                               \
        int r_ = cu.call(__VA_ARGS__);                                                                                 \
        if (r_) return driver_error(err, #call, r_);                                                                   \
    } while (0)

/* -------------------------------------------------------------------------------------------- finding it */

static brc_status find_driver(brc_error *err) {
    typedef int (*get_t)(const char *, void **, int, uint64_t, int *);
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    get_t get = NULL;
    if (!library) return brci_cuda_fail(err, BRC_NO_DRIVER, "no GPU driver: libcuda.so.1 was not found");
    *(void **)&get = dlsym(library, "cuGetProcAddress_v2");
    if (!get) return brci_cuda_fail(err, BRC_NO_DRIVER, "the GPU driver is too old: CUDA 12.0 or later is needed");
#define DRIVER(name, arguments)                                                                                        \
    {                                                                                                                  \
        void *entry = NULL;                                                                                            \
        if (get(#name, &entry, 12000, 0, NULL) || !entry)                                                              \
            return brci_cuda_fail(err, BRC_NO_DRIVER, "the GPU driver is too old: it has no " #name);                  \
        *(void **)&cu.name = entry;                                                                                    \
    }
    DRIVER_TABLE
#undef DRIVER
    int result = cu.cuInit(0);
    if (result == NO_DEVICE) return brci_cuda_fail(err, BRC_NO_DEVICE, "the GPU driver sees no device");
    if (result) return driver_error(err, "cuInit", result);
    CU(cuDeviceGetCount, &port.devices);
    if (port.devices < 1) return brci_cuda_fail(err, BRC_NO_DEVICE, "the GPU driver sees no device");
    if (port.devices > MAX_DEVICES) port.devices = MAX_DEVICES;
    if (!brci_image_count)
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "this library was built without CUDA kernels (no nvcc)");
    return BRC_OK;
}

static brc_status driver(brc_error *err) {
    int state = atomic_load_explicit(&port.state, memory_order_acquire);
    if (!state) {
        pthread_mutex_lock(&port.lock);
        state = atomic_load_explicit(&port.state, memory_order_relaxed);
        if (!state) {
            state = find_driver(&port.why) == BRC_OK ? 1 : -1;
            atomic_store_explicit(&port.state, state, memory_order_release);
        }
        pthread_mutex_unlock(&port.lock);
    }
    if (state < 0) {
        if (err) *err = port.why;
        return port.why.status;
    }
    return BRC_OK;
}

static brc_status check_device(int device, brc_error *err) {
    int major = 0, minor = 0;
    CU(cuDeviceGetAttribute, &major, ATTRIBUTE_MAJOR, device);
    CU(cuDeviceGetAttribute, &minor, ATTRIBUTE_MINOR, device);
    if (major != 9 || minor != 0)
        return brci_cuda_fail(err, BRC_UNSUPPORTED,
                              "device %d has no sm_90a kernels: its compute capability is %d.%d, 9.0 is needed", device,
                              major, minor);
    return BRC_OK;
}

/* Under the lock. Libraries hold for all contexts of the process. */
static brc_status load_kernels(brc_error *err) {
    if (port.loaded) return BRC_OK;
    for (int i = 0; i < brci_image_count; i++) {
        void *library = NULL;
        CU(cuLibraryLoadData, &library, brci_images[i], NULL, NULL, 0, NULL, NULL, 0);
        for (int k = 0; k < BRCI_KERNELS; k++)
            if (!port.kernel[k] && cu.cuLibraryGetKernel(&port.kernel[k], library, kernels[k].symbol))
                port.kernel[k] = NULL;
    }
    for (int k = 0; k < BRCI_KERNELS; k++)
        if (!port.kernel[k])
            return brci_cuda_fail(err, BRC_DEVICE, "the kernel %s is not in the library", kernels[k].symbol);
    port.loaded = 1;
    return BRC_OK;
}

static brc_status ready_device(int device, brc_error *err) {
    int count = 0;
    brc_status status = check_device(device, err);
    if (status == BRC_OK) status = load_kernels(err);
    if (status != BRC_OK) return status;
    for (int k = 0; k < BRCI_KERNELS; k++)
        if (kernels[k].shared_bytes)
            CU(cuKernelSetAttribute, FUNCTION_MAX_SHARED, BRCI_SHARED_BYTES, port.kernel[k], device);
    CU(cuDeviceGetAttribute, &count, ATTRIBUTE_MULTIPROCESSORS, device);
    atomic_store_explicit(&port.device[device], count, memory_order_release);
    return BRC_OK;
}

brc_status brci_cuda_ready(int *multiprocessors, brc_error *err) {
    int device = 0;
    brc_status status = driver(err);
    if (status != BRC_OK) return status;
    int result = cu.cuCtxGetDevice(&device);
    if (result) return brci_cuda_fail(err, BRC_DEVICE, "no CUDA context is current on this thread: call brc_cuda_use");
    if (device < 0 || device >= MAX_DEVICES)
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "device %d is beyond the limit of %d", device, MAX_DEVICES);
    int count = atomic_load_explicit(&port.device[device], memory_order_acquire);
    if (!count) {
        pthread_mutex_lock(&port.lock);
        status = ready_device(device, err);
        pthread_mutex_unlock(&port.lock);
        if (status != BRC_OK) return status;
        count = atomic_load_explicit(&port.device[device], memory_order_acquire);
    }
    if (multiprocessors) *multiprocessors = count;
    return BRC_OK;
}

brc_status brc_cuda_devices(int *count, brc_error *err) {
    brc_status status = driver(err);
    *count = 0;
    if (status != BRC_OK) return status;
    for (int i = 0; i < port.devices; i++)
        if (check_device(i, err) == BRC_OK) ++*count;
    return *count ? BRC_OK : BRC_UNSUPPORTED;
}

brc_status brc_cuda_use(int device, brc_error *err) {
    void *context = NULL;
    brc_status status = driver(err);
    if (status != BRC_OK) return status;
    if (device < 0 || device >= port.devices)
        return brci_cuda_fail(err, BRC_NO_DEVICE, "device %d: there are %d", device, port.devices);
    CU(cuDevicePrimaryCtxRetain, &context, device);
    CU(cuCtxSetCurrent, context);
    return BRC_OK;
}

brc_status brc_cuda_prepare(brc_error *err) { return brci_cuda_ready(NULL, err); }

/* --------------------------------------------------------------------------------------------- using it */

/* Encoded views, of this thread: a view depends on nothing but its numbers, so an entry never gets stale. */
static _Thread_local struct {
    brci_view view;
    brci_map map;
} cache[MAP_CACHE];

brc_status brci_cuda_map(const brci_view *v, brci_map *map, brc_error *err) {
    uint64_t hash = (uint64_t)(uintptr_t)v->data * 0x9E3779B97F4A7C15u ^
                    (v->inner << 32 | v->outer) * 0xC2B2AE3D27D4EB4Fu ^ v->box_outer * 0x165667B19E3779F9u;
    hash ^= hash >> 32;
    brci_view *known = &cache[hash % MAP_CACHE].view;
    if (known->data != v->data || known->inner != v->inner || known->outer != v->outer || known->pitch != v->pitch ||
        known->box_inner != v->box_inner || known->box_outer != v->box_outer || known->bytes != v->bytes) {
        const uint64_t dims[2] = {v->inner, v->outer}, pitch[1] = {v->pitch};
        const uint32_t box[2] = {v->box_inner, v->box_outer}, step[2] = {1, 1};
        int plain = v->bytes == 4;
        known->data = NULL;
        CU(cuTensorMapEncodeTiled, &cache[hash % MAP_CACHE].map,
           plain           ? TYPE_FLOAT32
           : v->bytes == 2 ? TYPE_UINT16
                           : TYPE_UINT8,
           2, v->data, dims, pitch, box, step, 0, plain ? SWIZZLE_NONE : SWIZZLE_128, plain ? PROMOTE_128 : PROMOTE_256,
           0);
        *known = *v;
    }
    *map = cache[hash % MAP_CACHE].map;
    return BRC_OK;
}

brc_status brci_cuda_launch(const brci_launch *l, void *stream, brc_error *err) {
    launch_attribute attributes[3];
    launch_config config = {
        {l->grid[0], l->grid[1], l->grid[2]}, {l->threads, 1, 1}, l->shared_bytes, stream, attributes, 0};
    void *parameters[1] = {l->arguments};
    if (l->cluster > 1) {
        attributes[config.count].id = LAUNCH_CLUSTER;
        attributes[config.count].value.cluster[0] = l->cluster;
        attributes[config.count].value.cluster[1] = attributes[config.count].value.cluster[2] = 1;
        config.count++;
    }
    if (l->cooperative) {
        attributes[config.count].id = LAUNCH_COOPERATIVE;
        attributes[config.count++].value.flag = 1;
    }
    if (l->overlap) {
        attributes[config.count].id = LAUNCH_OVERLAP;
        attributes[config.count++].value.flag = 1;
    }
    CU(cuLaunchKernelEx, &config, port.kernel[l->kernel], parameters, NULL);
    return BRC_OK;
}
