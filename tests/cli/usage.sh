# SPDX-License-Identifier: Apache-2.0
# What a wrong command line is told: one line on stderr, exit code 2, nothing on stdout.
try() {
    printf '$ breccia %s\n' "$*"
    breccia "$@" 2>&1 >out
    printf '[%d, %d bytes on stdout]\n' $? "$(wc -c <out)"
}
try inspekt plain.safetensors
try --verson
try --json
try inspect
try inspect plain.safetensors other
try inspect --jso1 plain.safetensors
try inspect --json=yes plain.safetensors
try show plain.safetensors
try show plain.safetensors model.position_ids --row -1
try show plain.safetensors model.position_ids --row 1
try show plain.safetensors model.position_ids --block x
try quantize plain.safetensors
try quantize plain.safetensors -o new.safetensors
try quantize plain.safetensors -o
try quantize plain.safetensors -o new.safetensors --recipe
try quantize plain.safetensors -o new.safetensors --recpe mxfp8
try quantize plain.safetensors -o new.safetensors -r mxfp9
try quantize plain.safetensors -o new.safetensors -r int4:grup=3
try quantize plain.safetensors -o new.safetensors -r int4:group=many
try quantize plain.safetensors -o new.safetensors -r mxfp8:scale=f32
try quantize plain.safetensors -o new.safetensors -r mxfp8 --dialect gguf
try quantize plain.safetensors -o new.safetensors -r mxfp8 --nonfinite=drop
try quantize plain.safetensors -o new.safetensors -r mxfp8 --threads 0
try quantize plain.safetensors -o plain.safetensors -r mxfp8 --force
try dequantize plain.safetensors -o new.safetensors --dtype f8
try compare plain.safetensors plain.safetensors --fail-under much
try formats --jsn
[ ! -e new.safetensors ] || echo written
try quantize plain.safetensors -o '' -r mxfp8
try quantize plain.safetensors -o new.gguf -r mxfp8
try quantize plain.safetensors -o new.gguf -r mxfp4 --dialect deepseek
try dequantize plain.safetensors -o new.bin
try quantize plain.safetensors -o new.safetensors -o other.safetensors -r mxfp8
try quantize plain.safetensors -o new.safetensors -r mxfp8 --recipe int4
