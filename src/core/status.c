/* SPDX-License-Identifier: Apache-2.0 */
#include "core/status.h"

static const struct {
    const char *text;
    int exit;
} rows[BRC_STATUS_COUNT] = {
#define BRC_STATUS_ROW(id, value, exit, text) [value] = {text, exit},
#include "breccia/status.def"
#undef BRC_STATUS_ROW
};

const char *brc_status_text(brc_status status) {
    return (unsigned)status < BRC_STATUS_COUNT ? rows[status].text : "unknown status";
}

int brc_status_exit(brc_status status) { return (unsigned)status < BRC_STATUS_COUNT ? rows[status].exit : 5; }
