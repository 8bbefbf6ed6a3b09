/* SPDX-License-Identifier: Apache-2.0
 * Where a command writes to, judged before a checkpoint is opened. */
#ifndef CLI_DESTINATION_H
#define CLI_DESTINATION_H

#include "options.h"

/* Whether --output can be meant: 0, or the exit code after a message. */
int destination_check(const struct invocation *in);
/* Whether what stands there is of the kind that the name asks for: a folder for a folder, a file for a file. */
int destination_replaceable(const char *path);

#endif
