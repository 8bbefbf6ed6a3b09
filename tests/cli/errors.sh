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
# What is said about a file names it once, by the path given; hints that cannot help are left out.
mkdir below && cp infinite.safetensors below/model.safetensors
try quantize below -o new -r mxfp8
try quantize ./below/model.safetensors -o new.safetensors -r mxfp8
mkdir folder.safetensors
try quantize plain.safetensors -o folder.safetensors -r mxfp8
try quantize plain.safetensors -o folder.safetensors -r mxfp8 --force
try quantize plain.safetensors -o text -r mxfp8 && rm -r text
touch text && try quantize plain.safetensors -o text -r mxfp8
try quantize plain.safetensors -o nodir/x.safetensors -r mxfp8
try dequantize plain.safetensors -o nodir/further/x
# The source's own files are not replaced, whatever the destination is called; another file beside them may be made.
try quantize deepseek/model.safetensors -o deepseek -r mxfp8 --force
try quantize sharded -o ./sharded/ -r mxfp8 --force
ln -s sharded/../plain.safetensors link.safetensors
try quantize plain.safetensors -o link.safetensors -r mxfp8 --force
mkdir beside && cp plain.safetensors beside/s.safetensors
(cd beside && try quantize s.safetensors -o . -r mxfp8 && ls)
# Globs that match nothing, names that collide, nothing to do.
try quantize plain.safetensors -o new.safetensors -r mxfp8 --include '*.nothing'
try quantize plain.safetensors -o new.safetensors -r mxfp8 --exclude '*.nothing' --exclude '*.bias' && rm new.safetensors
try quantize hostile.safetensors -o new.safetensors -r mxfp8 && rm new.safetensors
try dequantize plain.safetensors -o new.safetensors && rm new.safetensors
try quantize colliding.safetensors -o new.safetensors -r mxfp8
# Variables that make no sense are passed over, and said so.
for variable in BRECCIA_THREADS=many BRECCIA_THREADS=0 BRECCIA_THREADS= BRECCIA_ISA=sse9 BRECCIA_ISA=REFERENCE; do
    printf '$ %s\n' $variable
    env $variable breccia inspect plain.safetensors 2>&1 >out | sed 's/; .*//'
done
# Scales that lose their values.
try dequantize nan_scale -o kept
try dequantize nan_scale -o kept --bad-scales=keep && rm -r kept
# Sound scales that are too large for the numbers that come out.
try dequantize huge_scale -o f16 --dtype f16
try dequantize huge_scale -o f32 --dtype f32 && rm -r f16 f32
# What lies beside the weights and does not go along is named.
mkdir laden laden/1_Pooling && cp plain.safetensors laden/model.safetensors && echo '{}' >laden/config.json
touch laden/model.onnx && ln -s nowhere laden/dangling
try quantize laden -o unladen -r mxfp8 && rm -r unladen
for ((i = 0; i < 100; i++)); do touch laden/other-file-number-$i.gguf; done
try dequantize laden -o unladen && rm -r unladen
try quantize laden -o new.safetensors -r mxfp8 && rm new.safetensors
