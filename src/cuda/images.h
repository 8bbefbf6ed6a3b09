/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BRCI_CUDA_IMAGES_H
#define BRCI_CUDA_IMAGES_H

/* Where an image runs: machine code for compute capability 9.0 alone, or, as PTX too, on 8.0 and later. */
enum { BRCI_HOPPER, BRCI_ANY_DEVICE };

enum {
#define IMAGE(name, needs) BRCI_IMAGE_##name,
#include "images.def"
    BRCI_IMAGE_COUNT
};

/* Compiled kernels (fatbins), one a .cu file; data NULL where the library was built without them. */
typedef struct brci_image {
    const unsigned char *data;
    int needs;
} brci_image;
extern const brci_image brci_images[BRCI_IMAGE_COUNT];

#endif
