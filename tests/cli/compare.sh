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
# Shapes, empty tensors, numbers that are not finite, differences whose squares vanish.
breccia compare plain.safetensors reshaped.safetensors
echo "[$?]"
for pair in "plain.safetensors infinite.safetensors" "deepseek nan_scale" "nans.safetensors ones.safetensors" \
    "ones.safetensors nans.safetensors" "nans.safetensors nans.safetensors" "tiny.safetensors tinier.safetensors"; do
    printf '$ breccia compare %s\n' "$pair"
    breccia compare $pair 2>&1
    echo "[$?]"
done
breccia compare ones.safetensors nans.safetensors --json
breccia compare plain.safetensors infinite.safetensors --fail-under 10 2>&1 >out
echo "[$?]"
