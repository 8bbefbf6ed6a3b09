# SPDX-License-Identifier: Apache-2.0
breccia --help
for command in inspect show verify quantize dequantize convert compare formats recipes; do
    printf -- '---- %s\n' $command
    breccia $command --help
done
