# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of every recipe once more, in NumPy and from the written contract (design of the numerics, formats of the named
systems), not from the C sources. Each float32 operation is one rounding; whole tensors at a time."""
from types import SimpleNamespace

import numpy as np
from core.codes import CODEBOOKS, FLOATS, SMALL_INTEGERS, encode, limits, values_of

F = np.float32
LARGEST, SMALLEST_NORMAL = np.finfo(F).max, np.finfo(F).smallest_normal
MANTISSA = {"f32": 23, "f16": 10, "bf16": 7, "e4m3": 3, "e5m2": 2, "e4m3fnuz": 3, "e5m2fnuz": 2, "e3m2": 2, "e2m3": 3, "e2m1": 1}
INPUT_MAX = {"f64": LARGEST, "f32": LARGEST, "f16": F(65504), "bf16": F(3.3895313892515355e38)}


def fields(brc, recipe):
    """A brc_recipe in words."""
    r = brc.recipe(recipe)
    text = lambda chars: brc.ffi.string(chars).decode()
    return SimpleNamespace(
        element=brc.format_name(r.element), scale=brc.format_name(r.scale), zero=brc.format_name(r.zero), levels=r.levels,
        rule=text(brc.lib.brc_rule_name(r.rule)), arith=text(brc.lib.brc_arith_name(r.arith)), pow2=r.pow2, margin=r.margin,
        epsilon=F(r.epsilon), block=(r.block.batch, r.block.rows, r.block.cols), partial=r.partial)


def is_integer(element):
    return element in SMALL_INTEGERS or element == "int8q6"


def reach(element):
    """What amax is divided by: the largest element; of signed integers half the range."""
    low, high = limits(element)
    return F((high - low) / 2) if is_integer(element) and low < 0 else F(high)


def three(x):
    """{leading dimensions, rows, cols}."""
    shape = (1,) * (2 - x.ndim) + x.shape if x.ndim < 2 else x.shape
    return x.reshape(int(np.prod(shape[:-2], dtype=np.int64)), *shape[-2:])


def counts(shape, block):
    return tuple(1 if side == 0 else -(-n // side) for n, side in zip(shape, block))


class Blocks:
    """A tensor cut into blocks, edge blocks padded with NaN, which no scale sees."""

    def __init__(self, x, block):
        self.shape, self.counts = x.shape, counts(x.shape, block)
        self.sides = tuple(side or max(n, 1) for n, side in zip(x.shape, block))
        padded = np.full([n * side for n, side in zip(self.counts, self.sides)], F(np.nan))
        padded[tuple(slice(n) for n in x.shape)] = x
        cut = padded.reshape([n for pair in zip(self.counts, self.sides) for n in pair])
        self.amax = np.fmax.reduce(np.abs(cut), axis=(1, 3, 5), initial=F(0))
        self.low = np.fmin.reduce(cut, axis=(1, 3, 5), initial=F(0))
        self.high = np.fmax.reduce(cut, axis=(1, 3, 5), initial=F(0))

    def spread(self, table):
        """Each element's number."""
        for axis, side in enumerate(self.sides):
            table = np.repeat(table, side, axis)
        return table[tuple(slice(n) for n in self.shape)]


def power_up(x):
    """Biased exponent, 0..254, of the smallest power of two not below x; 2^-127 is the lowest."""
    mantissa, exponent = np.frexp(x.astype(np.float64))
    up = np.where(mantissa > 0.5, exponent, exponent - 1) + 127
    return np.where(x > 0, np.clip(up, 0, 254), 0).astype(np.uint8)


def store(format, scale):
    """A positive scale in its stored type: 0 -> smallest normal, too large -> largest finite."""
    most = F(limits(format)[1]) if format != "f32" else LARGEST
    codes = encode(format, np.minimum(np.abs(scale), most))     # 0 may come as -0
    return np.where(codes == 0, codes.dtype.type(1 << MANTISSA[format]), codes)


def number(format, codes):
    return values_of(format, codes).astype(F)


def cap(x):
    return np.clip(x, -LARGEST, LARGEST)


def machine_epsilon(format):
    return F(2.0**-MANTISSA[format]) if format != "e8m0" else F(2.0**-127)


def mx(r, b):
    """OCP MX: the exponent from amax's bits (torchao's four rules; rceil by the exact integer rule)."""
    bits = b.amax.view(np.uint32)
    exponent = (bits >> 23).astype(np.int64)
    emax = int(np.floor(np.log2(limits(r.element)[1])))
    if r.rule == "rceil":
        s = power_up(b.amax / reach(r.element))
    elif r.rule == "floor":
        s = np.clip(exponent - emax, 0, 254)
    elif r.rule == "ceil":
        s = np.clip(exponent + ((bits & 0x7FFFFF) > 0) - emax, 0, 254)
    else:
        kept = 1 if r.arith == "ct" and r.element not in ("e2m3", "e3m2") else MANTISSA[r.element]
        rounded = (bits.astype(np.int64) + (1 << (22 - kept))) >> 23
        s = np.clip(rounded - emax, 0, 254)
    s = np.where(np.isinf(b.amax), 254, s).astype(np.int64)
    if r.arith == "mlx":
        s = np.where(b.amax == 0, 127, s)
    if r.rule == "rceil":
        factor = np.ldexp(F(1), (127 - s).astype(np.int32))
        return s.astype(np.uint8), lambda x: x * b.spread(factor)
    factor = np.ldexp(F(1), (s - 127 if r.arith == "ct" else np.maximum(s - 127, -126)).astype(np.int32))
    return s.astype(np.uint8), lambda x: x / b.spread(factor)


def te(r, b, input_max, delayed):
    """TransformerEngine: k multiplies, its reciprocal is stored."""
    top = F(F(limits(r.element)[1]) * F(2.0**-r.margin))
    amax = np.maximum(b.amax, r.epsilon)
    k = np.where((amax == 0) | np.isinf(amax), F(1), top / amax)
    k = np.where(np.isinf(k), LARGEST if r.block[1:] == (0, 0) else input_max, k)
    if r.pow2:
        k = (k.view(np.uint32) & np.uint32(0xFF800000)).view(F)
    k = np.where(k == 0, SMALLEST_NORMAL, k)
    if delayed is not None:
        k = np.full_like(k, delayed)
    return store("f32", F(1) / k), lambda x: x * b.spread(k)


def nvfp4(r, b, gamax):
    """Block scales in E4M3, from 2^-6 up, below one global number (torchao; arith=div: a divisor)."""
    block, full = cap(b.amax) / reach(r.element), F(F(448) * reach(r.element))
    g = None
    if r.arith == "ct":                 # generate_gparam, calculate_qparams: 0 is 0.125
        if r.levels == 2:
            g = full / max(gamax, SMALLEST_NORMAL)
            g = F(1) if np.isinf(g) else g
            block = block * g
        codes = encode("e4m3", np.clip(block, F(0), F(448)))
        codes = np.where(codes == 0, np.uint8(0x20), codes)
        divisor = number("e4m3", codes) / (F(1) if g is None else g)
        divisor = np.where(divisor == 0, SMALLEST_NORMAL, divisor)
        return codes, (lambda x: x / b.spread(divisor)), g
    if r.arith == "modelopt":           # NVFP4QTensor.get_weights_scaling_factor: 0 is 1
        if r.levels == 2:
            g = np.maximum(gamax / full, SMALLEST_NORMAL) if gamax > 0 else F(1)
            block = cap(b.amax) / (reach(r.element) * g)
        block = np.where(block == 0, F(1), block)
        codes = encode("e4m3", np.clip(block, F(2.0**-9), F(448)))
        factor = number("e4m3", codes) * (F(1) if g is None else g)
        factor = np.where(factor == 0, SMALLEST_NORMAL, factor)
        return codes, (lambda x: x / b.spread(factor)), g
    if r.arith == "mlx":                # a scale may be 0: then all codes are
        codes = encode("e4m3", np.minimum(block, F(448)))
        s = number("e4m3", codes)
        return codes, (lambda x: np.where(b.spread(s) == 0, F(0), x / b.spread(s))), g
    if r.levels == 2:
        if r.arith == "div":
            g = np.minimum(full / gamax, LARGEST) if gamax > 0 else F(1)
            block = block * g
        else:
            g = np.maximum(gamax / full, SMALLEST_NORMAL) if gamax > 0 else F(1)
            block = block / g
    codes = encode("e4m3", np.clip(block, F(2.0**-6), F(448)))
    s = number("e4m3", codes)
    if r.arith == "div":
        divisor = s if g is None else s / g
        return codes, (lambda x: x / b.spread(divisor)), g
    factor = np.minimum(F(1) / s if g is None else (F(1) / g) / s, LARGEST)
    return codes, (lambda x: x * b.spread(factor)), g


def floats(r, b):
    """s = amax/max, the stored one used; deepgemm with amax >= 1e-4."""
    amax = np.maximum(b.amax, F(1e-4)) if r.arith == "deepgemm" else b.amax
    scale = np.where((amax == 0) | np.isinf(amax), F(1), amax / reach(r.element))
    if r.arith == "ct":
        scale = np.where((amax == 0) | (scale == 0), machine_epsilon(r.scale), scale)
    if r.scale == "e8m0":
        codes = np.where(b.amax == 0, 0, np.where(np.isinf(b.amax), 254, power_up(scale))).astype(np.uint8)
    else:
        if r.pow2:
            scale = np.ldexp(F(1), power_up(scale).astype(np.int32) - 127)
        codes = store(r.scale, scale)
    s = number(r.scale, codes)
    if r.arith in ("div", "ct"):
        return codes, lambda x: x / b.spread(s)
    factor = np.minimum(F(1) / s, LARGEST)
    return codes, lambda x: x * b.spread(factor)


def integers(r, b):
    """torchao's (recip) and compressed-tensors' (div) integers: codes and zero points of a whole tensor."""
    lowest, highest = (F(v) for v in limits(r.element))
    low, high, recip = cap(b.low), cap(b.high), r.arith == "recip"
    if r.rule == "amax":
        scale = cap(b.amax) / (highest if r.arith == "modelopt" else reach(r.element))
    elif r.rule == "noclip":
        scale = np.maximum(low / lowest if lowest < 0 else F(0), high / highest)
    else:
        scale = cap(high - low) / F(highest - lowest)
    if recip:
        scale = np.maximum(scale, r.epsilon if r.epsilon > 0 else machine_epsilon(r.scale))
    else:
        scale = np.where(b.amax == 0, machine_epsilon(r.scale), scale)
    if r.scale == "e8m0":
        codes = np.where(b.amax == 0, 0, power_up(scale)).astype(np.uint8)
    else:
        codes = store(r.scale, scale)
    s = number(r.scale, codes)
    factor = np.minimum(F(1) / s, LARGEST)
    zero = np.zeros_like(s)
    if r.rule == "minmax":
        zero = lowest - np.rint(low / s) if recip else lowest - low / s
        zero = np.rint(np.clip(zero, lowest, highest))
        if not recip:
            zero = np.where(b.amax == 0, np.rint((lowest + highest + 1) / 2), zero)

    def scaled(x):
        z = b.spread(zero)
        if recip:
            y = x * b.spread(factor)
            y = np.rint(y) + z if r.rule == "minmax" else y
        else:
            y = x / b.spread(s) + z
        return np.where(np.isnan(x), z, y)

    return codes, scaled, zero if r.rule == "minmax" else None


def cast(r, x, input_max=LARGEST, delayed=None):
    """.scale and .codes (one an item, of the stored formats), .zero (integers or None), .globals (float32 or None)."""
    x = three(np.asarray(x).astype(F))
    if r.arith == "ggml":
        with np.errstate(all="ignore"):
            return ggml(r, x)
    if r.arith == "mlx" and r.rule == "minmax":
        with np.errstate(all="ignore"):
            return mlx_affine(r, x)
    b = Blocks(x, r.block)
    zero = g = None
    with np.errstate(all="ignore"):
        if r.rule in ("rceil", "floor", "ceil", "even"):
            scale, scaled = mx(r, b)
        elif r.arith == "te":
            scale, scaled = te(r, b, input_max, delayed)
        elif r.scale == "e4m3" and (r.levels == 2 or not is_integer(r.element)):
            gamax = np.fmax.reduce(np.abs(x), axis=None, initial=F(0))
            scale, scaled, g = nvfp4(r, b, cap(gamax))
        elif is_integer(r.element):
            scale, scaled, zero = integers(r, b)
        else:
            scale, scaled = floats(r, b)
        y = scaled(x)
        if (r.arith == "ct" and r.element not in ("e2m3", "e3m2")) or (r.arith == "modelopt" and r.scale == "e4m3"):
            y = np.where(y == 0, F(0), y)       # a zero point of 0 is added, resp. x < 0 is the sign
        codes = encode(r.element, y)
        if r.arith == "modelopt" and r.rule == "rceil":
            codes = below_ties(y)
        if r.arith == "mlx" and r.element == "e2m1":
            codes = below_ties(y)
            codes = np.where((codes == 8) | np.isnan(y), 0, codes)      # of zeros the first
        return SimpleNamespace(scale=scale, zero=zero, globals=g, codes=codes, blocks=b)


def ue4m3(x):
    """E4M3 without a sign, half up by one bit; all of [256, 448] is 448."""
    x = np.clip(x, F(0), F(448))
    bits = x.view(np.uint32).astype(np.int64)
    exponent = (bits >> 23) - 120
    normal = (exponent << 3 | (bits >> 20) & 7) + (bits >> 19 & 1)
    small = np.clip(np.trunc(x * F(512) + F(0.5)), 0, 7).astype(np.int64)
    return np.where(exponent <= 0, small, np.where(normal >= 15 << 3, 0x7E, normal)).astype(np.uint8)


def upper_of_ties(values, y):
    """The nearest of the rising values, by differences in float32."""
    at = np.clip(np.searchsorted(values, y, "right"), 1, len(values) - 1)
    return np.where(y - values[at - 1] < values[at] - y, at - 1, at)


def fit(values, v, peak):
    """quantize_row_iq4_nl_impl: 16 scales are tried, errors weighted by x*x; sums run from left to right."""
    def sums(factor):
        product = square = np.zeros(v.shape[:-1], F)
        q = values[upper_of_ties(values, v * factor[..., None])]
        weighted = v * v * q
        for j in range(v.shape[-1]):
            product, square = product + weighted[..., j] * v[..., j], square + weighted[..., j] * q[..., j]
        return product, square

    product, square = sums(inverse(-peak / values[0]))
    d = np.where(square > 0, product / square, F(0))
    best = d * product
    for i in range(-7, 8):
        product, square = sums((F(i) + values[0]) / peak)
        better = (square > 0) & (product * product > best * square)
        d = np.where(better, product / square, d)
        best = np.where(better, d * product, best)
    d = np.where(np.isfinite(d), d, -peak / values[0])
    return np.where(np.abs(peak) < F(1e-15), F(0), d)


def inverse(d):
    return np.where(d == 0, F(0), cap(F(1) / d))


def ggml(r, x):
    """quantize_row_*_ref of ggml: codes from the scale that is not rounded yet. What overflows saturates here."""
    side = r.block[2]
    pad = -x.shape[2] % side
    cut = np.pad(x, ((0, 0), (0, 0), (0, pad)), constant_values=np.nan).reshape(*x.shape[:2], (x.shape[2] + pad) // side, side)
    v = np.where(np.isnan(cut), F(0), cap(cut))
    some = ~np.isnan(cut).all(-1)
    pick = lambda of, where: np.take_along_axis(of, where[..., None], -1)[..., 0] if of.size else of.sum(-1)
    low = np.where(some, pick(v, np.where(np.isnan(cut), np.inf, v).argmin(-1)), F(0))          # the first of equals: of 0 and -0
    high = np.where(some, pick(v, np.where(np.isnan(cut), -np.inf, v).argmax(-1)), F(0))
    peak = pick(v, np.abs(v).argmax(-1))
    peak = np.where(peak == 0, F(0), peak)
    half = lambda d: np.clip(d, F(-65504), F(65504)).astype(np.float16)
    lowest, highest = (F(n) for n in limits(r.element))
    zero, spread = None, lambda table: table[..., None]
    if r.rule == "floor":
        exponent = (np.abs(peak).view(np.uint32) >> 23).astype(np.int64)
        scale = np.maximum(exponent - 2, 0).astype(np.uint8)
        s = np.ldexp(F(1), scale.astype(np.int32) - 127)
    elif r.scale == "e4m3":
        scale = ue4m3(np.abs(peak) / F(6))
        s = number("e4m3", scale)
    else:
        d = {"peak": lambda: peak / lowest, "minmax": lambda: cap(high - low) / highest, "amax": lambda: np.abs(peak) / highest,
             "fit": lambda: fit(values_of("iq4_nl", np.arange(16)).astype(F), v, peak)}[r.rule]()
        scale, y = half(d).view(np.uint16), v * spread(inverse(d))
    if r.element == "e2m1":
        errors = np.abs(values_of("e2m1", np.arange(16)).astype(F) * spread(s)[..., None] - v[..., None])
        codes = errors.argmin(-1)
    elif r.rule == "peak":
        codes = np.clip(np.trunc(y + (F(0.5) - lowest)), 0, highest - lowest).astype(np.int64) + int(lowest)
    elif r.rule == "minmax":
        zero = half(low)
        codes = np.clip(np.trunc(cap(v - spread(low)) * spread(inverse(d)) + F(0.5)), 0, highest).astype(np.int64)
    elif r.rule == "fit":
        codes = upper_of_ties(values_of("iq4_nl", np.arange(16)).astype(F), y)
    else:
        size = np.abs(y)
        codes = (np.sign(y) * np.minimum(np.floor(size) + (size - np.floor(size) >= 0.5), highest)).astype(np.int64)
    bits = {"e2m1": 4, "iq4_nl": 4}.get(r.element) or int(r.element.lstrip("uint"))
    codes = (codes & ((1 << bits) - 1)).astype(np.uint8).reshape(*x.shape[:2], x.shape[2] + pad)[..., :x.shape[2]]
    return SimpleNamespace(scale=scale, zero=zero, globals=None, codes=codes, blocks=None)


def mlx_affine(r, x):
    """mx.quantize, mode affine: the end of larger magnitude is a code; codes by scale and offset that are not rounded yet."""
    side, last = r.block[2], F(limits(r.element)[1])
    pad = -x.shape[2] % side
    cut = np.pad(x, ((0, 0), (0, 0), (0, pad)), constant_values=np.nan).reshape(*x.shape[:2], (x.shape[2] + pad) // side, side)
    some = ~np.isnan(cut).all(-1)
    low, high = (np.where(some, cap(ends), F(0)) for ends in (np.fmin.reduce(cut, -1, initial=np.inf), np.fmax.reduce(cut, -1, initial=-np.inf)))
    down = np.abs(low) > np.abs(high)
    scale = np.maximum(cap(high - low) / last, F(1e-7))
    scale, edge = np.where(down, scale, -scale), np.where(down, low, high)
    steps = np.rint(edge / scale)
    scale, offset = np.where(steps == 0, scale, edge / steps), np.where(steps == 0, F(0), edge)
    y = (np.where(np.isnan(cut), F(0), cut) - offset[..., None]) / scale[..., None]
    codes = np.clip(np.rint(y), 0, last).astype(np.uint8).reshape(*x.shape[:2], x.shape[2] + pad)[..., :x.shape[2]]
    most = F(limits(r.scale)[1]) if r.scale != "f32" else LARGEST
    stored = lambda a: encode(r.scale, np.clip(a, -most, most))
    return SimpleNamespace(scale=stored(scale), zero=stored(offset), globals=None, codes=codes, blocks=None)


def below_ties(y):
    """MXFP4QTensor: the number of midpoints below |y|; zeros have the sign bit, NaN is +0."""
    order = (np.abs(y)[..., None] > np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5], F)).sum(-1)
    return np.where(np.isnan(y), 0, np.where(y > 0, 0, 8) + order).astype(np.uint8)


def formats_of_elements():
    return [*FLOATS, *SMALL_INTEGERS, "int8q6", *CODEBOOKS]
