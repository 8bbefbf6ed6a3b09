/* SPDX-License-Identifier: Apache-2.0
 *
 * The compiled kernels, embedded. BRCI_IMAGES is the folder that holds them, given by the build. */
#include "images.h"

#ifdef BRCI_IMAGES
#define IMAGE(name, needs)                                                                                             \
    __asm__(".section .rodata\n.balign 64\n"                                                                           \
            "brci_image_" #name ": .incbin \"" BRCI_IMAGES "/" #name ".fatbin\"\n.balign 8\n.byte 0\n.previous\n");    \
    extern const unsigned char brci_image_##name[] __attribute__((visibility("hidden")));
#include "images.def"
const brci_image brci_images[BRCI_IMAGE_COUNT] = {
#define IMAGE(name, needs) {brci_image_##name, BRCI_##needs},
#include "images.def"
};
#else
const brci_image brci_images[BRCI_IMAGE_COUNT] = {{0, 0}};
#endif
