# SPDX-License-Identifier: Apache-2.0
before=$(ls -A)
breccia quantize plain.safetensors -o mxfp8.safetensors -r mxfp8 --verbose
echo ----
breccia quantize plain.safetensors -o some.safetensors -r int4:group=32,scale=bf16 --include '*.mlp.*' --exclude '*.10.*'
echo ----
breccia inspect mxfp8.safetensors
echo ----
breccia quantize plain.safetensors -o folder -r fp8-block128 --dialect deepseek
breccia inspect folder
breccia verify folder
echo ----
breccia quantize infinite.safetensors -o infinite-mxfp8.safetensors -r mxfp8 --nonfinite=saturate
echo ----
breccia dequantize mxfp8.safetensors -o back.safetensors --dtype f32 --verbose
breccia dequantize mxfp8.safetensors -o back.safetensors --force
echo ----
comm -13 <(echo "$before") <(ls -A)
