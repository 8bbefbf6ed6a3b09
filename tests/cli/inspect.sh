# SPDX-License-Identifier: Apache-2.0
breccia inspect plain.safetensors
echo ----
breccia inspect deepseek
echo ----
breccia inspect sharded
echo ----
breccia inspect sharded/model.safetensors.index.json --json
echo ----
breccia inspect ambiguous 2>&1
echo "[$?]"
breccia inspect ambiguous --from deepseek 2>&1
for command in verify "show ambiguous x" "quantize ambiguous -o new -r mxfp8" "dequantize ambiguous -o new"; do
    breccia ${command/verify/verify ambiguous} 2>&1
    echo "[$?]"
done
