/* SPDX-License-Identifier: Apache-2.0
 * breccia dequantize */
#include "destination.h"
#include "options.h"
#include "outcome.h"
#include "print.h"
#include "source.h"

#include <string.h>

static int dequantize(const struct invocation *in, const brc_checkpoint *source, uint32_t threads) {
    const char *destination = option_value(in, OPTION_OUTPUT), *dtype = option_value(in, OPTION_DTYPE),
               *scales = option_value(in, OPTION_BAD_SCALES);
    struct outcomes outcomes;
    int64_t overflowed = 0;
    brc_error err;
    int code = 0;
    if (dtype == NULL) dtype = "bf16";
    outcomes_begin(&outcomes, "dequantize", "dequantized", "unchanged", option_value(in, OPTION_VERBOSE) != NULL);
    const brc_dequantize_options options = {.size = sizeof options,
                                            .threads = threads,
                                            .format = brc_format_find(dtype),
                                            .overwrite = option_value(in, OPTION_FORCE) != NULL,
                                            .overflowed = &overflowed,
                                            .keep_nonfinite = scales != NULL && strcmp(scales, "keep") == 0,
                                            .progress = progress_step,
                                            .outcome = outcomes_add,
                                            .left = outcomes_left,
                                            .warn = outcomes_warning,
                                            .user = &outcomes};
    const brc_status status = brc_dequantize_checkpoint(source, destination, &options, &err);
    progress_end(&outcomes.progress);
    if (status == BRC_OK) {
        code = outcomes_finish(&outcomes, source, in->operands[0], destination);
        if (outcomes.kinds[0].tensors == 0) complain("warning: %s: no tensor was quantized", in->operands[0]);
    } else {
        code = outcomes_failed(source, in->operands[0], destination, (int)options.overwrite, &err);
    }
    outcomes_free(&outcomes);
    if (overflowed > 0)
        complain("warning: %s: %lld values are beyond the range of %s and became infinite%s", destination,
                 (long long)overflowed, dtype, options.format == BRC_F32 ? "" : "; --dtype f32 reaches further");
    return code;
}

int command_dequantize(const struct invocation *in) {
    brc_checkpoint *source = NULL;
    int64_t threads;
    int code = option_integer(in, OPTION_THREADS, 1, 0, &threads);
    if (code == 0) code = destination_check(in);
    if (code == 0) code = source_open(in->operands[0], option_value(in, OPTION_FROM), &source);
    if (code == 0) code = dequantize(in, source, (uint32_t)threads);
    brc_checkpoint_close(source);
    return code;
}
