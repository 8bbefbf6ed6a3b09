/* SPDX-License-Identifier: Apache-2.0
 * Facts of the format that reader and writer share. */
#ifndef BRCI_SAFETENSORS_H
#define BRCI_SAFETENSORS_H

#define BRCI_HEADER_MAX 100000000  /* bytes; the library's own limit */
#define BRCI_ENTRY_MAX (256 << 10) /* bytes of JSON for one array */
#define BRCI_SHARDS_MAX 16384      /* files of one checkpoint; each takes one mapping */
#define BRCI_METADATA_NAME "__metadata__"

#endif
