/* SPDX-License-Identifier: Apache-2.0
 * Preloaded by test_sync.py: writes every fsync, rename, link and unlink of a process to $TRACE_CALLS, one a line, with
 * its paths. The fsync of a path that ends with $FAIL_FSYNC fails with EIO. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void trace(const char *call, const char *path, const char *to) {
    char line[1024];
    int length = snprintf(line, sizeof line, "%s\t%s\t%s\n", call, path, to),
        fd = open(getenv("TRACE_CALLS"), O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (fd < 0 || write(fd, line, (size_t)length) != length) abort();
    close(fd);
}

int fsync(int fd) {
    char link[64], path[512] = "";
    const char *failing = getenv("FAIL_FSYNC");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, path, sizeof path - 1) < 0) abort();
    trace("fsync", path, "");
    if (failing != NULL && strlen(path) >= strlen(failing) &&
        strcmp(path + strlen(path) - strlen(failing), failing) == 0) {
        errno = EIO;
        return -1;
    }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}

int rename(const char *from, const char *to) {
    int result = ((int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename"))(from, to);
    if (result == 0) trace("rename", from, to);
    return result;
}

int link(const char *from, const char *to) {
    int result = ((int (*)(const char *, const char *))dlsym(RTLD_NEXT, "link"))(from, to);
    if (result == 0) trace("rename", from, to);
    return result;
}

int unlink(const char *path) {
    int result = ((int (*)(const char *))dlsym(RTLD_NEXT, "unlink"))(path);
    if (result == 0) trace("unlink", path, "");
    return result;
}

long syscall(long number, ...) {
    long a[6], result;
    va_list arguments;
    va_start(arguments, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(arguments, long);
    va_end(arguments);
    result = ((long (*)(long, ...))dlsym(RTLD_NEXT, "syscall"))(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (number == SYS_renameat2 && result == 0) trace("rename", (const char *)a[1], (const char *)a[3]);
    return result;
}
