/* SPDX-License-Identifier: Apache-2.0
 *
 * The compiled kernels, embedded. BRCI_IMAGES is the folder that holds them, given by the build. */
#include "images.h"

#ifdef BRCI_IMAGES
#define IMAGE(name)                                                                                                    \
    __asm__(".section .rodata\n.balign 64\n"                                                                           \
            "brci_image_" #name ": .incbin \"" BRCI_IMAGES "/" #name ".fatbin\"\n.balign 8\n.byte 0\n.previous\n");    \
    extern const unsigned char brci_image_##name[] __attribute__((visibility("hidden")));
#include "images.def"
const unsigned char *const brci_images[] = {
#define IMAGE(name) brci_image_##name,
#include "images.def"
};
const int brci_image_count = (int)(sizeof brci_images / sizeof *brci_images);
#else
const unsigned char *const brci_images[] = {0};
const int brci_image_count = 0;
#endif
