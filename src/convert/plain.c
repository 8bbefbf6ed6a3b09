/* SPDX-License-Identifier: Apache-2.0
 * A plain tensor under a recipe. */
#include "convert/transfer.h"

#include <string.h>

/* Finite doubles that are infinite in F32. */
static int64_t count_beyond(const brc_named_array *array) {
    int64_t count = 0;
    for (int64_t i = 0; array->array.format == BRC_F64 && i < array->bytes / 8; i++) {
        double x;
        memcpy(&x, (const uint8_t *)array->array.data + i * 8, sizeof x);
        const float narrow = (float)x;
        count += x - x == 0 && !(narrow - narrow == 0);
    }
    return count;
}

static brc_status check_report(const brc_named_array *array, const brc_report *report, brc_error *err) {
    if (report->nan == 0 && report->infinite == 0) return BRC_OK;
    const int64_t beyond = count_beyond(array), infinite = (int64_t)report->infinite - beyond;
    if (report->nan == 0 && infinite == 0)
        return brci_fail(err, BRC_NONFINITE, 0, "%lld values are beyond F32", (long long)beyond);
    if (beyond == 0)
        return brci_fail(err, BRC_NONFINITE, 0, "%lld NaN and %lld infinite values", (long long)report->nan,
                         (long long)infinite);
    return brci_fail(err, BRC_NONFINITE, 0, "%lld NaN and %lld infinite values, and %lld beyond F32",
                     (long long)report->nan, (long long)infinite, (long long)beyond);
}

brc_status brci_quantize(const brc_named_array *array, const brc_recipe *recipe, const brc_options *options,
                         int saturate, brc_owned *owned, brc_error *err) {
    brc_report report = {.size = sizeof report};
    TRY(brc_cast_new(&array->array, recipe, options, NULL, owned, &report, err));
    const brc_status status = saturate ? BRC_OK : check_report(array, &report, err);
    if (status != BRC_OK) brc_release(owned);
    return status;
}
