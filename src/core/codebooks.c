/* SPDX-License-Identifier: Apache-2.0
 * Formats that are a table of values. */
#include "core/format.h"

/* NormalFloat4: quantiles of a normal distribution, scaled to [-1, 1] (arXiv 2305.14314, appendix E). */
static const float nf4[16] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

/* IQ4_NL of GGUF (ggml-common.h, kvalues_iq4nl). */
static const float iq4_nl[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

const float *brci_codebook(brc_format format) { return format == BRC_NF4 ? nf4 : format == BRC_IQ4_NL ? iq4_nl : NULL; }
