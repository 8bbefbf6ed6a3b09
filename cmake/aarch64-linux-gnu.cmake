# SPDX-License-Identifier: Apache-2.0
# AArch64 from another Linux: Debian's gcc-aarch64-linux-gnu and libc6-dev-arm64-cross; the tests run under qemu-user, linked
# statically so that it needs no libraries of that system. `make test-neon` uses it.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
