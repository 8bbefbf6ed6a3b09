# SPDX-License-Identifier: Apache-2.0
breccia show deepseek layers.0.weight --row 129 --block 2
echo ----
breccia show deepseek layers.0.weight --all | wc -l
breccia show deepseek layers.0.weight | tail -1
echo ----
breccia show plain.safetensors model.position_ids
echo ----
breccia show plain.safetensors model.layers.2.mlp.up_proj.weight --row 63 --block 1
