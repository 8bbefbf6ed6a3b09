# SPDX-License-Identifier: Apache-2.0
breccia quantize plain.safetensors -o four.safetensors -r mxfp4 >/dev/null
breccia quantize plain.safetensors -o eight -r fp8-block128 --dialect deepseek >/dev/null
before=$(ls -A)
breccia convert eight -o eight.safetensors --to breccia --verbose
echo ----
breccia convert eight.safetensors -o again --to deepseek --require exact
breccia compare eight again
echo ----
breccia convert four.safetensors -o dense.safetensors --to dense:f32 --json
echo ----
breccia convert four.safetensors -o mixed.safetensors --to breccia:nvfp4:levels=1,mxfp8 --include '*.mlp.*' --dry-run
echo ----
breccia convert four.safetensors -o none.safetensors --to breccia:int4 --require exact 2>&1; echo "exit $?"
breccia convert four.safetensors -o none.safetensors --to nothing 2>&1 | sed 's/none of .*/none of .../'; echo "exit ${PIPESTATUS[0]}"
breccia convert four.safetensors -o none.safetensors --to dense:int4 2>&1; echo "exit $?"
breccia convert four.safetensors -o none.safetensors --to breccia:int4:group=64,scale=bf16,no 2>&1; echo "exit $?"
breccia convert four.safetensors -o none.safetensors --to bitsandbytes 2>&1 | sed 's/there is .*/there is .../'; echo "exit ${PIPESTATUS[0]}"
breccia convert plain.safetensors -o none.safetensors --to deepseek --dry-run 2>&1 >/dev/null; echo "exit $?"
comm -13 <(echo "$before") <(ls -A)
