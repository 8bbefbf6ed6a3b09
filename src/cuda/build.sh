#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds the GPU part alone, with the core types it uses: build.sh OUTPUT_FOLDER
# Writes OUTPUT_FOLDER/*.fatbin and libbreccia_cuda.so. Fails on spills, local memory and serialized warpgroup products.
set -e
here=$(cd "$(dirname "$0")" && pwd)
out=$1
mkdir -p "$out"
out=$(cd "$out" && pwd)
NVCC=${NVCC:-nvcc}
compile() {
    fmad=
    [ "$1" = casts ] && fmad=-fmad=false
    [ "$out/$1.fatbin" -nt "$here/$1.cu" ] && [ -z "$(find "$here" -newer "$out/$1.fatbin" \( -name '*.cuh' -o -name '*.h' -o -name '*.def' \))" ] && return 0
    $NVCC -std=c++17 -O3 -ftz=false -prec-div=true $fmad -gencode=arch=compute_90a,code=sm_90a -fatbin -Xptxas -v \
        "$here/$1.cu" -o "$out/$1.fatbin" > "$out/$1.log" 2>&1 || { cat "$out/$1.log"; return 1; }
    if grep -E 'C75(08|1[0-4])|[1-9][0-9]* bytes (spill|stack)' "$out/$1.log"; then
        echo "$1.cu: the lines above are errors here" >&2
        rm -f "$out/$1.fatbin"
        return 1
    fi
}
if [ "$BRECCIA_PARALLEL" ]; then
    for name in $(sed -n 's/^IMAGE(\(.*\))/\1/p' "$here/images.def"); do compile "$name" & done
    wait
else
    for name in $(sed -n 's/^IMAGE(\(.*\))/\1/p' "$here/images.def"); do compile "$name"; done
fi
${CC:-cc} -std=c11 -O2 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -fPIC -fvisibility=hidden -shared -I"$here/.." -I"$here/../../include" \
    -DBRCI_IMAGES="\"$out\"" "$here"/*.c "$here"/../core/*.c -o "$out/libbreccia_cuda.so" -ldl -lpthread
