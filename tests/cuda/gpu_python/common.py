# SPDX-License-Identifier: Apache-2.0
"""What every library's arrays on a GPU must do, the same for all of them: each gives a `Place`, how it makes arrays on its device
and on the CPU. Casts and dequantization are compared bit for bit with the CPU's through the same package, products with double."""
import concurrent.futures
import warnings
from dataclasses import dataclass
from typing import Any, Callable

import numpy as np

import breccia

RECIPES = ("fp8", "fp8:format=e5m2", "fp8:pow2=1", "fp8:margin=2", "fp8-delayed", "fp8-row", "fp8-row:format=e5m2", "fp8-row:arith=te", "fp8-block",
           "fp8-block:arith=te,pow2=1", "fp8-block:arith=deepgemm", "fp8-block:format=e5m2", "fp8-block128", "fp8-block128:arith=te,pow2=1",
           "fp8-block128:arith=deepgemm", "mxfp8", "mxfp8:rule=floor", "mxfp8:rule=even", "mxfp8:format=e5m2", "mxfp6-e3m2", "mxfp6-e2m3",
           "mxfp4", "mxfp4:rule=ceil", "nvfp4", "nvfp4:levels=1", "nvfp4:arith=div", "int8", "int4", "int4:scale=bf16", "int4:scale=f32")
SHAPES = ((256, 384), (2, 128, 256), (3, 17), (129, 130), (1, 1), (5, 4104), (512,), (0, 128), (4, 0))
# What each output can miss by rounding once: relative to the number, and below its smallest normal one.
HALF_ULP = {"float32": (2.0 ** -24, 2.0 ** -150), "bfloat16": (2.0 ** -8, 2.0 ** -134), "float16": (2.0 ** -11, 2.0 ** -25)}
NAMES = ("data", "scale", "global_scale")


@dataclass
class Place:
    name: str
    there: Callable[[Any, str], Any]     # (NumPy float32, dtype) -> array on the device
    here: Callable[[Any, str], Any]      # the same on the CPU, of a library whose casts are known
    content: Callable[[Any], bytes]      # of either
    numbers: Callable[[Any], Any]        # float array of either -> NumPy float64
    dtypes: tuple[str, ...]              # those that the library has
    held: Callable[[Any], bool]          # whether an array is on the device
    shapes: tuple[tuple[int, ...], ...] = SHAPES


class Count:
    """Comparisons made; the first ones that fail are printed."""

    def __init__(self) -> None:
        self.made = self.failed = 0

    def __call__(self, right: Any, *words: Any) -> bool:
        self.made += 1
        if not right:
            self.failed += 1
            if self.failed <= 40:
                print("  WRONG:", *words, flush=True)
        return bool(right)


check = Count()


def refused(kind: Any, part: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    try:
        call(*arguments, **options)
    except kind as why:
        check(part in str(why), f"the refusal says {why!r}, not {part!r}")
    except Exception as why:
        check(False, f"{part!r} was to be refused by {kind}, not by {why!r}")
    else:
        check(False, f"not refused: {part}")


def awkward(shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of every magnitude, zeros, infinities, NaN, subnormals."""
    x = np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)
    flat = x.reshape(-1)
    flat[: flat.size // 8] *= np.exp2(np.linspace(-100, 100, flat.size // 8)).astype(np.float32)
    for at, value in enumerate((0.0, -0.0, np.inf, -np.inf, np.nan, 2.0 ** -133, 3e38)):
        flat[at * 11::509] = value
    if x.ndim > 1 and shape[0] > 8:
        x[5] = 0.0
    return x


def tensors(name: str, got: Any, want: Any, place: Place) -> bool:
    """Whether two scaled tensors are equal, the first of them on the device."""
    right = check((got.shape, got.recipe, got.layout) == (want.shape, want.recipe, want.layout), place.name, name, "what it says of itself")
    for part in NAMES:
        a, b = getattr(got, part), getattr(want, part)
        if a is None or b is None:
            right &= check(a is b, place.name, name, part, "is there in one")
        else:
            right &= check(place.held(a) and tuple(a.shape) == tuple(b.shape) and place.content(a) == place.content(b), place.name, name, part,
                           tuple(a.shape), tuple(b.shape), place.content(a)[:16].hex(), place.content(b)[:16].hex())
    return right


def casts(place: Place) -> None:
    for dtype in place.dtypes:
        for shape in place.shapes:
            x = awkward(shape)
            # Finite numbers too: a NaN anywhere is the scale of the whole tensor's.
            for kind, numbers in (("awkward", x), ("finite", np.clip(np.nan_to_num(x, nan=1.0), -30000, 30000))):
                there, here = place.there(numbers, dtype), place.here(numbers, dtype)
                for text in RECIPES:
                    one(place, f"{text} of {kind} {dtype} {shape}", there, here, breccia.recipes.from_text(text))


def one(place: Place, name: str, there: Any, here: Any, recipe: Any) -> None:
    try:
        want = breccia.cast(here, recipe)
    except ValueError as why:
        refused(ValueError, str(why), breccia.cast, there, recipe)
        return
    got = breccia.cast(there, recipe)
    if not tensors(name, got, want, place):
        return
    for dtype in place.dtypes:
        a, b = breccia.dequantize(got, dtype), breccia.dequantize(want, dtype)
        check(place.held(a) and tuple(a.shape) == tuple(b.shape) and place.content(a) == place.content(b), place.name, name, "dequantized to", dtype)


def requantized(place: Place) -> None:
    x = np.clip(np.nan_to_num(awkward((128, 256))), -1000, 1000)
    for first in ("mxfp6-e3m2", "mxfp8", "nvfp4", "int8"):
        for second in ("fp8", "fp8-row", "mxfp4", "nvfp4", "int4"):
            a, b = (breccia.recipes.from_text(text) for text in (first, second))
            got = breccia.requantize(breccia.cast(place.there(x, "float32"), a), b)
            # Through float32, as the GPU always does (the CPU keeps values exactly where that is possible).
            want = breccia.cast(breccia.dequantize(breccia.cast(place.here(x, "float32"), a)), b)
            tensors(f"{first} to {second}", got, want, place)


def product(place: Place, name: str, got: Any, sides: Any, bias: Any, dtype: str, growth: float) -> None:
    """|got - exact| <= growth sum |a||b| + what rounding to the output takes."""
    exact, sums = np.matmul(*sides), np.matmul(*map(np.abs, sides))
    if bias is not None:
        exact, sums = exact + bias, sums + np.abs(bias)
    numbers = place.numbers(got)
    if not check(place.held(got) and numbers.shape == exact.shape, place.name, name, "shape", numbers.shape, exact.shape):
        return
    relative, least = HALF_ULP[dtype]
    bound = growth * sums
    off = np.abs(numbers - exact) - (bound + relative * (np.abs(exact) + bound) + least)
    check(not off.size or off.max() <= 0, place.name, name, "beyond the bound by", off.max() if off.size else 0)


FP8 = (("fp8", "fp8"), ("fp8:format=e5m2", "fp8"), ("fp8-row", "fp8-row"), ("fp8-row", "fp8-row:format=e5m2"), ("fp8-block", "fp8-block128"),
       ("fp8-block", "fp8-block"))
OTHERS = (("mxfp8", "nvfp4"), ("int8", "int4"), ("fp8", "mxfp4"), (None, "mxfp8"), (None, "nvfp4"), ("fp8-row", None))
SIZES = ((64, 96, 256), (1, 512, 1024), (65, 127, 384), (300, 256, 2176), (257, 128, 128))


def side(place: Place, x: np.ndarray, text: str | None, dtype: str = "float32") -> tuple[Any, Any]:
    """An operand on the device, and its numbers in double."""
    if text is None:
        return place.there(x, dtype), place.numbers(place.here(x, dtype))
    recipe = breccia.recipes.from_text(text)
    return breccia.cast(place.there(x, dtype), recipe), place.numbers(breccia.dequantize(breccia.cast(place.here(x, dtype), recipe)))


def products(place: Place) -> None:
    draw = np.random.default_rng(3).standard_normal
    for m, n, k in SIZES:
        x, w, bias = draw((m, k)).astype(np.float32), draw((n, k)).astype(np.float32), draw(n).astype(np.float32)
        for left, right in FP8 + OTHERS:
            if right == "fp8-block128" and n % 128 and k % 128:
                continue
            try:
                (a, a64), (b, b64) = side(place, x, left), side(place, w, right)
            except ValueError:                                                   # a shape that the recipe's blocks do not divide
                continue
            direct = (left, right) in FP8
            for dtype in place.dtypes:
                for added in (None, bias):
                    given = None if added is None else place.there(added, dtype)
                    with warnings.catch_warnings():
                        warnings.simplefilter("error", RuntimeWarning)
                        got = breccia.matmul(a, b, dtype, transpose_b=True, bias=given)
                    b_numbers = None if added is None else place.numbers(given)
                    product(place, f"{left} x {right} {m}x{n}x{k} to {dtype}", got, (a64, b64.T), b_numbers, dtype,
                            (2.0 ** -11 if direct else 0) + (k + 1) * 2.0 ** -24)
    turned(place, draw)


def turned(place: Place, draw: Any) -> None:
    """Transposed sides and batches, of scaled and of plain operands."""
    m, n, k = 64, 96, 128
    for left, right in (("mxfp8", "mxfp8"), ("fp8", None), (None, "nvfp4")):
        for turn_a in (False, True):
            for turn_b in (False, True):
                for batch_a, batch_b in (((), ()), ((3,), ()), ((3,), (3,))):
                    a, a64 = side(place, draw((*batch_a, k, m) if turn_a else (*batch_a, m, k)).astype(np.float32), left)
                    b, b64 = side(place, draw((*batch_b, n, k) if turn_b else (*batch_b, k, n)).astype(np.float32), right)
                    got = breccia.matmul(a, b, transpose_a=turn_a, transpose_b=turn_b)
                    sides = (np.swapaxes(a64, -1, -2) if turn_a else a64, np.swapaxes(b64, -1, -2) if turn_b else b64)
                    product(place, f"{left} x {right} {batch_a}{turn_a} {batch_b}{turn_b}", got, sides, None, "float32", (k + 1) * 2.0 ** -24)
    nothing = breccia.matmul(place.there(np.ones((3, 0), np.float32), "float32"), place.there(np.ones((0, 2), np.float32), "float32"))
    check(tuple(nothing.shape) == (3, 2) and not place.numbers(nothing).any(), place.name, "a sum of nothing")


def delayed(place: Place) -> None:
    recipe = breccia.DelayedScaling()
    mine, theirs = breccia.DelayedState(recipe), breccia.DelayedState(recipe)
    for step in range(4):
        x = np.nan_to_num(awkward((64, 256)), posinf=9.0, neginf=-9.0) / np.float32(10.0 ** step)
        tensors(f"delayed scaling, step {step}", breccia.cast(place.there(x, "float32"), recipe, theirs),
                breccia.cast(place.here(x, "float32"), recipe, mine), place)
        check(mine.amax == theirs.amax, place.name, "amax", theirs.amax, mine.amax)
        mine.update()
        theirs.update()
        check(mine.scale == theirs.scale, place.name, "scale", theirs.scale, mine.scale)
    tensors("delayed scaling of nothing", breccia.cast(place.there(np.ones((0, 8), np.float32), "float32"), recipe, theirs),
            breccia.cast(place.here(np.ones((0, 8), np.float32), "float32"), recipe, mine), place)


def mixed(place: Place) -> None:
    x = np.ones((16, 128), np.float32)
    there = breccia.cast(place.there(x, "float32"), breccia.Float8CurrentScaling())
    refused(ValueError, "on one device", breccia.matmul, there, x, transpose_b=True)
    refused(ValueError, "on one device", breccia.matmul, there, place.here(x, "float32"), transpose_b=True)
    split = breccia.ScaledTensor(there.data, place.here(np.ones((), np.float32), "float32"), there.recipe, there.layout)
    refused(ValueError, "on one device", breccia.dequantize, split)
    refused(TypeError, "", breccia.cast, place.there(x, "float32") > 0, breccia.Float8CurrentScaling())


def threads(place: Place) -> None:
    """A thread that has not met the GPU yet."""
    x = awkward((64, 256))
    there, recipe = place.there(x, "float32"), breccia.MXFP8BlockScaling()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        got = pool.submit(breccia.cast, there, recipe).result()
    tensors("in another thread", got, breccia.cast(place.here(x, "float32"), recipe), place)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for got in pool.map(lambda _: breccia.cast(there, recipe), range(64)):
            tensors("in eight threads", got, breccia.cast(place.here(x, "float32"), recipe), place)


def everything(place: Place) -> None:
    for part in (casts, requantized, products, delayed, mixed, threads):
        before = check.made, check.failed
        part(place)
        print(f"{place.name} {part.__name__}: {check.made - before[0]} comparisons, {check.failed - before[1]} wrong", flush=True)
