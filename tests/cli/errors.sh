# SPDX-License-Identifier: Apache-2.0
# Inputs that cannot be read: one line, stdout empty, the documented exit code.
try() {
    printf '$ breccia %s\n' "$*"
    breccia "$@" 2>&1 >out
    printf '[%d, %d bytes on stdout]\n' $? "$(wc -c <out)"
}
for path in nowhere.safetensors pytorch_model.bin model.pt model.ckpt text.safetensors truncated.safetensors; do
    try inspect $path
done
mkdir empty && try inspect empty
try show plain.safetensors no.such.tensor
try quantize infinite.safetensors -o new.safetensors -r mxfp8
touch taken.safetensors
try quantize plain.safetensors -o taken.safetensors -r mxfp8
try quantize plain.safetensors -o taken.safetensors/new.safetensors -r mxfp8
try quantize deepseek -o deepseek -r mxfp8 --force
ls -A | grep -v safetensors$
