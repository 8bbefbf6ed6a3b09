#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# build.sh FOLDER        writes FOLDER/*.fatbin and FOLDER/libbreccia_cuda.so: the GPU part alone, with the core types it uses
# build.sh FOLDER NAME   writes FOLDER/NAME.fatbin only
# CHECK=1: to see that all compiles: the PTX for other devices without optimization, in a quarter of the time, and into nothing.
# Where nvcc is missing, FOLDER/*.fatbin that were built elsewhere are taken as they are. Fails on spills, stack frames and warpgroup products that the compiler serialized.
set -e
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
name=$2

compile() {
    image=$1
    fatbin=$out/$image.fatbin
    made=$out/$image.new       # not yet what is wanted: an interrupted build leaves no fatbin
    log=$out/$image.log
    if [ -e "$fatbin" ] && [ -z "$(find "$here" -newer "$fatbin" \( -name '*.cuh' -o -name '*.def' -o -name arguments.h -o -name shape.h -o -name pace.c -o -name build.sh -o -name "$image.cu" \))" ]; then
        return 0
    fi
    if ! command -v "${NVCC:-nvcc}" > /dev/null; then
        [ -e "$fatbin" ] || { echo "no nvcc to compile $image.cu, and no $fatbin" >&2; return 1; }
        echo "no nvcc: $image.fatbin is taken as it is"
        return 0
    fi
    rm -f "$fatbin"
    set -- "${NVCC:-nvcc}" -std=c++17
    portable=
    case $image in gemm_*) set -- "$@" -no-compress ;; esac            # pace reads it; the PTX of casts is a third, compressed
    if grep -q "^IMAGE($image, ANY_DEVICE)" "$here/images.def"; then   # casts: equal to the reference bit for bit
        set -- "$@" -ftz=false -prec-div=true -fmad=false
        portable="-gencode=arch=compute_80,code=compute_80"
    fi
    set -- "$@" -fatbin "$here/$image.cu"
    if [ "$CHECK" ] && [ "$portable" ]; then
        "$@" -G $portable -o /dev/null > "$log" 2>&1 || { cat "$log"; return 1; }
        portable=
    fi
    "$@" -O3 $portable -gencode=arch=compute_90a,code=sm_90a -Xptxas -v -o "$made" > "$log" 2>&1 || { cat "$log"; return 1; }
    if grep -E 'C75(08|1[0-4])|[1-9][0-9]* bytes (spill|stack)' "$log"; then
        echo "$image.cu: the lines above are errors here" >&2
        return 1
    fi
    case $image in gemm_*)
        ${CC:-cc} -std=c11 -O1 "$here/sass/pace.c" -o "$out/$image.pace" && "$out/$image.pace" "$made" >> "$log" || return 1
        rm "$out/$image.pace" ;;
    esac
    mv "$made" "$fatbin"
}

if [ "$name" ]; then
    compile "$name"
    exit
fi
sed -n 's/^IMAGE(\([^,]*\),.*/\1/p' "$here/images.def" | xargs -r -P "$(nproc)" -n 1 sh "$here/build.sh" "$out"
${CC:-cc} -std=c11 -O2 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -fPIC -fvisibility=hidden -shared -I"$here/.." -I"$here/../../include" \
    -DBRCI_IMAGES="\"$out\"" "$here"/*.c "$here"/../core/*.c -o "$out/libbreccia_cuda.so" -ldl -lpthread
