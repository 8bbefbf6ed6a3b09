/* SPDX-License-Identifier: Apache-2.0
 *
 * The CUDA driver, found at run time. No CUDA header is used: the few types below are the driver's binary interface,
 * which is stable (CUDA Driver API reference: cuda.h of 12.0). */
#include "driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
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
    DRIVER(cuKernelGetFunction, (void **, void *))                                                                     \
    DRIVER(cuKernelSetAttribute, (int, int, void *, int))                                                              \
    DRIVER(cuTensorMapEncodeTiled, (void *, int, uint32_t, const void *, const uint64_t *, const uint64_t *,           \
                                    const uint32_t *, const uint32_t *, int, int, int, int))                           \
    DRIVER(cuLaunchKernelEx, (const launch_config *, void *, void **, void **))

static struct {
#define DRIVER(name, arguments) int(*name) arguments;
    DRIVER_TABLE
#undef DRIVER
} cu;

/* Symbol of every kernel, in the order of the numbers in driver.h, whether it takes dynamic shared memory, and where it
 * runs. */
static const struct {
    const char *symbol;
    int shared, needs;
} kernels[BRCI_KERNELS] = {
#define GEMM(a, b, mode, team, mw, bn, share, rate)                                                                    \
    {"gemm_" #a "_" #b "_" #mode "_" #team "_" #mw "_" #bn "_" #share, 1, BRCI_HOPPER},
#define SMALL(a, b, units, nb) {"small_" #a "_" #b "_" #units "_" #nb, 1, BRCI_HOPPER},
#include "kernels.def"
    {"gemm_plain", 0, BRCI_HOPPER},
#define CAST(name) {#name, 0, BRCI_ANY_DEVICE},
#include "casts.def"
#define NARROW_FEW(codes, scales, group, a, nb)                                                                        \
    {"narrow_few_" #codes "_" #scales "_" #group "_" #a "_" #nb, 1, BRCI_HOPPER},
#define NARROW_MANY(codes, scales, group, a, nb, mw, wgs)                                                              \
    {"narrow_many_" #codes "_" #scales "_" #group "_" #a "_" #nb "_" #mw, 1, BRCI_HOPPER},
#include "narrow.def"
    {"narrow_factors", 0, BRCI_HOPPER},
    {"narrow_pack", 0, BRCI_HOPPER},
};

/* Images and kernels are loaded when first wanted: on other devices than the images' own the driver compiles them then.
 */
static struct {
    pthread_mutex_t lock;
    _Atomic int state; /* 0 = not looked for, 1 = found, -1 = failed */
    brc_error why;     /* of the failure; written before state */
    int devices;
    int overlap; /* launches may overlap: kernels compiled for older devices do not wait for the previous one by
                    themselves */
    _Atomic int
        device[MAX_DEVICES]; /* 0 = not looked at, else multiprocessors and, in bit 16, whether it is a Hopper */
    void *_Atomic kernel[BRCI_KERNELS]; /* the driver's handle, for all contexts of the process */
    void *image[BRCI_IMAGE_COUNT];      /* the same, under the lock */
} port = {.lock = PTHREAD_MUTEX_INITIALIZER};
enum { HOPPER = 1 << 16 };

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
            return brci_cuda_fail(err, BRC_NO_DRIVER,                                                                  \
                                  "the GPU driver is too old: CUDA 12.0 or later is needed (" #name ")");              \
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
    const char *compiled = getenv("CUDA_FORCE_PTX_JIT"); /* the driver's own switch */
    port.overlap = !compiled || !strcmp(compiled, "0");
    for (int i = 0; i < port.devices; i++) {
        int major = 0, minor = 0;
        CU(cuDeviceGetAttribute, &major, ATTRIBUTE_MAJOR, i);
        CU(cuDeviceGetAttribute, &minor, ATTRIBUTE_MINOR, i);
        if (major != 9 || minor != 0) port.overlap = 0;
    }
    if (!brci_images[0].data)
        return brci_cuda_fail(err, BRC_UNSUPPORTED,
                              "this library was built without CUDA kernels (no nvcc, or BRECCIA_CUDA=OFF)");
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

static brc_status check_device(int device, int *flags, brc_error *err) {
    int major = 0, minor = 0;
    CU(cuDeviceGetAttribute, flags, ATTRIBUTE_MULTIPROCESSORS, device);
    CU(cuDeviceGetAttribute, &major, ATTRIBUTE_MAJOR, device);
    CU(cuDeviceGetAttribute, &minor, ATTRIBUTE_MINOR, device);
    if (major < 8)
        return brci_cuda_fail(err, BRC_UNSUPPORTED,
                              "device %d has no kernels here: its compute capability is %d.%d, casts need 8.0 and "
                              "products 9.0",
                              device, major, minor);
    if (major == 9 && minor == 0) *flags |= HOPPER;
    return BRC_OK;
}

brc_status brci_cuda_ready(int needs, int *multiprocessors, brc_error *err) {
    int device = 0;
    brc_status status = driver(err);
    if (status != BRC_OK) return status;
    int result = cu.cuCtxGetDevice(&device);
    if (result) return brci_cuda_fail(err, BRC_DEVICE, "no CUDA context is current on this thread: call brc_cuda_use");
    if (device < 0 || device >= MAX_DEVICES)
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "device %d is beyond the limit of %d", device, MAX_DEVICES);
    int flags = atomic_load_explicit(&port.device[device], memory_order_relaxed);
    if (!flags) {
        if ((status = check_device(device, &flags, err)) != BRC_OK) return status;
        atomic_store_explicit(&port.device[device], flags, memory_order_relaxed);
    }
    if (needs == BRCI_HOPPER && !(flags & HOPPER))
        return brci_cuda_fail(err, BRC_UNSUPPORTED,
                              "this device has no sm_90a kernels: products need compute capability 9.0 (device %d)",
                              device);
    if (multiprocessors) *multiprocessors = flags & (HOPPER - 1);
    return BRC_OK;
}

/* Under the lock: the kernel from the first image of its kind that holds it. */
static brc_status find_kernel(int k, brc_error *err) {
    for (int i = 0; i < BRCI_IMAGE_COUNT; i++) {
        void *kernel = NULL;
        if (brci_images[i].needs != kernels[k].needs) continue;
        if (!port.image[i]) CU(cuLibraryLoadData, &port.image[i], brci_images[i].data, NULL, NULL, 0, NULL, NULL, 0);
        if (cu.cuLibraryGetKernel(&kernel, port.image[i], kernels[k].symbol) || !kernel) continue;
        for (int d = 0; kernels[k].shared && d < port.devices; d++) {
            int flags = 0;
            if (check_device(d, &flags, NULL) == BRC_OK && flags & HOPPER)
                CU(cuKernelSetAttribute, FUNCTION_MAX_SHARED, BRCI_SHARED_BYTES, kernel, d);
        }
        atomic_store_explicit(&port.kernel[k], kernel, memory_order_release);
        return BRC_OK;
    }
    return brci_cuda_fail(err, BRC_DEVICE, "the kernel %s is not in the library", kernels[k].symbol);
}

static brc_status kernel_of(int k, void **kernel, brc_error *err) {
    brc_status status = BRC_OK;
    *kernel = atomic_load_explicit(&port.kernel[k], memory_order_acquire);
    if (*kernel) return BRC_OK;
    pthread_mutex_lock(&port.lock);
    if (!atomic_load_explicit(&port.kernel[k], memory_order_relaxed)) status = find_kernel(k, err);
    pthread_mutex_unlock(&port.lock);
    *kernel = atomic_load_explicit(&port.kernel[k], memory_order_acquire);
    return status;
}

brc_status brc_cuda_devices(int *count, brc_error *err) {
    if (!count) return brci_cuda_fail(err, BRC_ARGUMENT, "count is missing");
    brc_status status = driver(err);
    *count = 0;
    if (status != BRC_OK) return status;
    for (int i = 0, flags; i < port.devices; i++)
        if (check_device(i, &flags, err) == BRC_OK) ++*count;
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

brc_status brc_cuda_prepare(brc_error *err) {
    brc_status status = brci_cuda_ready(BRCI_ANY_DEVICE, NULL, err);
    const int hopper = status == BRC_OK && brci_cuda_ready(BRCI_HOPPER, NULL, NULL) == BRC_OK;
    for (int k = 0; k < BRCI_KERNELS && status == BRC_OK; k++) {
        void *kernel, *function;
        if (kernels[k].needs == BRCI_HOPPER && !hopper) continue;
        if ((status = kernel_of(k, &kernel, err)) == BRC_OK) CU(cuKernelGetFunction, &function, kernel);
    }
    return status;
}

/* --------------------------------------------------------------------------------------------- using it */

/* Encoded views, of this thread: a view depends on nothing but its numbers, so an entry never gets stale. */
static _Thread_local struct {
    brci_boxed view;
    brci_map map;
} cache[MAP_CACHE];

brc_status brci_cuda_map(const brci_boxed *v, brci_map *map, brc_error *err) {
    uint64_t hash = (uint64_t)(uintptr_t)v->data * 0x9E3779B97F4A7C15u ^
                    (v->inner << 32 | v->outer) * 0xC2B2AE3D27D4EB4Fu ^ v->box_outer * 0x165667B19E3779F9u;
    hash ^= hash >> 32;
    brci_boxed *known = &cache[hash % MAP_CACHE].view;
    if (known->data != v->data || known->inner != v->inner || known->outer != v->outer || known->pitch != v->pitch ||
        known->count != v->count || known->step != v->step || known->box_inner != v->box_inner ||
        known->box_outer != v->box_outer || known->bytes != v->bytes) {
        const uint64_t dims[3] = {v->inner, v->outer, v->count}, pitch[2] = {v->pitch, v->step};
        const uint32_t box[3] = {v->box_inner, v->box_outer, 1}, step[3] = {1, 1, 1};
        int plain = v->bytes == 4;
        known->data = NULL;
        CU(cuTensorMapEncodeTiled, &cache[hash % MAP_CACHE].map,
           plain           ? TYPE_FLOAT32
           : v->bytes == 2 ? TYPE_UINT16
                           : TYPE_UINT8,
           v->count ? 3 : 2, v->data, dims, pitch, box, step, 0, plain ? SWIZZLE_NONE : SWIZZLE_128,
           plain ? PROMOTE_128 : PROMOTE_256, 0);
        *known = *v;
    }
    *map = cache[hash % MAP_CACHE].map;
    return BRC_OK;
}

brc_status brci_cuda_launch(const brci_launch *l, void *stream, brc_error *err) {
    launch_attribute attributes[3];
    launch_config config = {
        {l->grid[0], l->grid[1], l->grid[2]}, {l->threads, 1, 1}, l->shared_bytes, stream, attributes, 0};
    void *parameters[1] = {l->arguments}, *kernel;
    brc_status status = kernel_of(l->kernel, &kernel, err);
    if (status != BRC_OK) return status;
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
    if (l->overlap && port.overlap) {
        attributes[config.count].id = LAUNCH_OVERLAP;
        attributes[config.count++].value.flag = 1;
    }
    CU(cuLaunchKernelEx, &config, kernel, parameters, NULL);
    return BRC_OK;
}
