# SPDX-License-Identifier: Apache-2.0
"""The operations on arrays of an NVIDIA GPU: libbreccia's kernels on the library's current stream, nothing waits.

A library whose arrays may be there has, besides the functions of every library (breccia._frameworks):

    device(x)                   number of the GPU that holds an array; None on a CPU
    on(x)                       context in which that GPU is current
    stream(x)                   address of the stream that its work goes to
    empty_on(x, shape, format)  memory beside x
    scratch(x)                  16 bytes beside x, zero, that no other work of another stream uses
    number(x, value, shape)     float32 numbers beside x, all of this value
    rows(x)                     x with neighbouring elements in its last axis and no gaps in the leading ones
    by_column(scale)            a scale [rows, blocks] as [blocks, rows], its rows on 16 bytes
    wide(x, format)             numbers as another float type
    product(a, b, bias, format) plain matrices multiplied in float32
"""
import warnings
from typing import Any

import numpy as np

from breccia import _c, _ops
from breccia import _frameworks as frameworks
from breccia._core import ScaledTensor
from breccia.recipes import DelayedState

_BY_COLUMN = {2: (True, False), 3: (True, True)}       # brc_cuda_scaling: which sides' scales lie [blocks, rows]


def _together(arrays: list[Any]) -> None:
    devices = {frameworks.of(x).device(x) for x in arrays}
    if len(devices) > 1:
        where = ", ".join("the CPU" if device is None else f"GPU {device}" for device in devices)
        raise ValueError(f"the arrays of one call must be on one device, not on {where}")
    if len({id(frameworks.of(x)) for x in arrays}) > 1:                            # each library has streams of its own
        raise TypeError("on a GPU, the arrays of one call must be of one library: breccia.bridges.from_dlpack takes a tensor to another")


def _read(library: Any, x: Any) -> Any:
    return None if x is None else library.read(library.export(x))


def _description(library: Any, st: ScaledTensor) -> tuple[Any, ...]:
    if st.recipe._bits < 8 and st.storage_shape == st.shape and st.shape[-1] > 1:
        raise NotImplementedError("on the GPU, codes must be packed: two or more a byte")
    return (st.recipe._native, st.shape, st.layout._number, st.layout._block,
            *(_read(library, part) for part in (st.data, st.scale, st.global_scale, st.zero_point, st.group_index)))


def cast(library: Any, x: Any, recipe: Any, state: DelayedState | None) -> ScaledTensor:
    """`breccia.cast`. A delayed state is the host's: with one, the call waits for the largest magnitude."""
    shape = tuple(x.shape)
    plan = _ops._plan(recipe, shape)
    numbers = None if state is None else _ops._state(state, recipe)
    with library.on(x):
        if 0 in shape:
            return _ops._finish(library, recipe, shape, _nothing(library, x, recipe, plan, state))
        memory = [None if row is None else library.empty_on(x, *row) for row in plan]
        scale = amax = None
        if state is not None:
            scale, amax = library.number(x, state.scale, ()), library.number(x, 0.0, ())
        data, scales, level, zero = (_read(library, part) for part in memory)
        _c.cuda_cast(recipe._native, library.read(library.rows(x)), data, scales, level, zero, _read(library, scale),
                     _read(library, amax), library.read(library.scratch(x)), library.stream(x))
        if numbers is not None:
            state.amax = float(amax)                                             # type: ignore[arg-type, union-attr]
    return _ops._finish(library, recipe, shape, memory)


def _nothing(library: Any, x: Any, recipe: Any, plan: Any, state: DelayedState | None) -> list[Any]:
    """A cast without elements: no kernel runs. Scales that it has nevertheless (of the tensor, of rows) are all the same."""
    here = _ops._cast_into(frameworks.numpy, np.empty(tuple(x.shape), np.float32), recipe, plan, state, 1)
    return [None if row is None else library.number(x, float(part.flat[0]), row[0]) if part.size else library.empty_on(x, *row)
            for row, part in zip(plan, here)]


def dequantize(library: Any, st: ScaledTensor, format: str) -> Any:
    """`breccia.dequantize`."""
    _together(_ops._arrays(st))
    direct = "f32" if format == "f64" else format
    with library.on(st.data):
        out = library.empty_on(st.data, st.shape, direct)
        _c.cuda_dequantize(_description(library, st), library.write(out, direct), library.stream(st.data))
        return library.finish(out, format) if direct == format else library.wide(out, format)


def requantize(library: Any, st: ScaledTensor, recipe: Any) -> ScaledTensor:
    """`breccia.requantize`, always through float32: in registers, or, for sources that the kernel does not know, in memory."""
    _together(_ops._arrays(st))
    x = st.data
    if 0 not in st.shape:
        with library.on(x):
            memory = [None if row is None else library.empty_on(x, *row) for row in _ops._plan(recipe, st.shape)]
            data, scale, level, zero = (_read(library, part) for part in memory)
            try:
                _c.cuda_requantize(_description(library, st), recipe._native, data, scale, level, zero, library.read(library.scratch(x)),
                                   library.stream(x))
                return _ops._finish(library, recipe, st.shape, memory)
            except NotImplementedError:
                pass
    return cast(library, dequantize(library, st, "f32"), recipe, None)


def matmul(library: Any, a: Any, b: Any, shape: Any, format: str, transpose_a: bool, transpose_b: bool, bias: Any) -> Any:
    """`breccia.matmul`: FP8 sides whose K lies along rows are multiplied as they are (bounds: breccia_cuda.h), others are
    dequantized and multiplied in float32."""
    _together(_ops._arrays(a, b, bias))
    first = a.data if isinstance(a, ScaledTensor) else a
    with library.on(first):
        if (isinstance(a, ScaledTensor) and isinstance(b, ScaledTensor) and transpose_b and not transpose_a and len(shape) == 2
                and all((*a.shape, *b.shape))):
            scaling = _c.cuda_fp8_scaling(_description(library, a), _description(library, b))
            if scaling is not None:
                try:
                    return _fp8(library, a, b, scaling, shape, format, bias)
                except NotImplementedError as why:
                    warnings.warn(f"{why}; multiplied in float32 instead", RuntimeWarning, stacklevel=4)
        sides = [dequantize(library, side, "f32") if isinstance(side, ScaledTensor) else library.wide(side, "f32") for side in (a, b)]
        left, right = (side.swapaxes(-1, -2) if turn else side for side, turn in zip(sides, (transpose_a, transpose_b)))
        return library.product(left, right, bias, format)


def _fp8(library: Any, a: ScaledTensor, b: ScaledTensor, scaling: int, shape: Any, format: str, bias: Any) -> Any:
    out = library.empty_on(a.data, shape, format)
    left, right = ((_read(library, side.data), side.recipe._element) for side in (a, b))
    turned = _BY_COLUMN.get(scaling, (False, False))
    of_a, of_b = (_read(library, library.by_column(side.scale) if turn else side.scale) for side, turn in zip((a, b), turned))
    _c.cuda_matmul(left, right, scaling, of_a, of_b, _read(library, bias), library.write(out, format), library.stream(a.data))
    return library.finish(out, format)
