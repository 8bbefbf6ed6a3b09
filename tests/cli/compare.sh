# SPDX-License-Identifier: Apache-2.0
breccia quantize plain.safetensors -o fp8.safetensors -r fp8 >quantize.txt
breccia compare plain.safetensors fp8.safetensors
echo "[$?]"
breccia compare plain.safetensors fp8.safetensors --fail-under 20 >out
echo "[$?]"
breccia compare plain.safetensors fp8.safetensors --fail-under 60 2>&1 >out
echo "[$?]"
breccia compare plain.safetensors plain.safetensors --json
echo "[$?]"
breccia compare plain.safetensors deepseek
echo "[$?]"
# A, too, may need --from.
breccia compare lost lost
echo "[$?]"
breccia compare lost lost --from plain
echo "[$?]"
