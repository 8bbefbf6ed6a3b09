/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BRCI_CUDA_IMAGES_H
#define BRCI_CUDA_IMAGES_H

/* Compiled kernels (fatbins), one a .cu file; none where the library was built without nvcc. */
extern const unsigned char *const brci_images[];
extern const int brci_image_count;

#endif
