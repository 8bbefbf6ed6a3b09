/* SPDX-License-Identifier: Apache-2.0
 *
 * What the product kernels take from the machine; tests/cuda/emulated has it for an ordinary processor. */
#pragma once
#ifdef BRC_EMULATED
#include BRC_EMULATED
#else
#include "barrier.cuh"
#include "shared.cuh"
#include "tma.cuh"
#include "wgmma.cuh"
#endif
