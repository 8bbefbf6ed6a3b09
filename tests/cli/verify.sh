# SPDX-License-Identifier: Apache-2.0
for path in plain.safetensors deepseek sharded/model.safetensors.index.json lost nan_scale; do
    printf '$ breccia verify %s\n' $path
    breccia verify $path
    printf '[%d]\n' $?
    breccia verify $path --json
done
