# SPDX-License-Identifier: Apache-2.0
"""Recipes: how numbers become codes and scales. Configuration only: frozen, hashable values.

Each class is a row (or two) of libbreccia's recipe table; ``recipe.text`` is the form that the C library and the command
line read. The names and defaults follow TransformerEngine where it has the recipe.

>>> from breccia import MXFP8BlockScaling
>>> MXFP8BlockScaling().text, MXFP8BlockScaling(scale_rule="floor").text
('mxfp8', 'mxfp8:rule=floor')
>>> from_text("mxfp8:rule=floor")
MXFP8BlockScaling(fp8_format='E4M3', block_size=32, scale_rule='floor', partial=False)
"""
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Any, Callable, ClassVar

import numpy as np

from breccia import _c, _frameworks
from breccia.layouts import _choice, _of_number, _positive

__all__ = ["ScalingRecipe", "DelayedScaling", "DelayedState", "Float8CurrentScaling", "Float8RowScaling", "Float8BlockScaling",
           "MXFP8BlockScaling", "MXFP6BlockScaling", "MXFP4BlockScaling", "MXINT8BlockScaling", "NVFP4BlockScaling", "INT8Scaling",
           "INT4Scaling", "GGMLScaling", "CustomScaling", "from_text"]

_SCALE_DTYPES = {"fp16": "f16", "bf16": "bf16", "fp32": "f32"}
_SCALE_NAMES = {format: name for name, format in _SCALE_DTYPES.items()}
_MX_RULES = ("rceil", "floor", "ceil", "even")

_native_of = lru_cache(maxsize=None)(_c.Recipe)


def _fact(text: str, name: str) -> Any:
    """One fact of a recipe, a plain value, so that tracers can take it as a constant."""
    native = _native_of(text)
    return native.block[int(name)] if name.isdigit() else getattr(native, name)


# What each parameter is called in a recipe's text, how it is written there, and how it is read back from the C recipe.
_KEYS: dict[str, tuple[str, Callable[[Any], str], Callable[[_c.Recipe], Any]]] = {
    "fp8_format": ("format", lambda r: r.fp8_format.lower(), lambda n: n.element.upper()),
    "fp6_format": ("format", lambda r: r.fp6_format.lower(), lambda n: n.element.upper()),
    "fp4_format": ("format", lambda r: r.fp4_format.lower(), lambda n: n.element.upper()),
    "amax_history_len": ("length", lambda r: str(r.amax_history_len), lambda n: n.history_length),
    "amax_history": ("history", lambda r: r.amax_history, lambda n: n.history),
    "margin": ("margin", lambda r: str(r.margin), lambda n: n.margin),
    "power_of_two": ("pow2", lambda r: str(int(r.power_of_two)), lambda n: bool(n.pow2)),
    "epsilon": ("epsilon", lambda r: repr(float(r.epsilon)), lambda n: n.epsilon),
    "arith": ("arith", lambda r: r.arith, lambda n: n.arith),
    "block_k": ("block", lambda r: f"{r.block_m}x{r.block_k}", lambda n: n.block[2]),
    "block_m": ("", lambda r: "", lambda n: n.block[1]),
    "scale_rule": ("rule", lambda r: r.scale_rule, lambda n: n.rule),
    "levels": ("levels", lambda r: str(r.levels), lambda n: n.levels),
    "group_size": ("group", lambda r: str(r.group_size), lambda n: n.block[2]),
    "signed": ("format", lambda r: r._integer, lambda n: n.element.startswith("int")),
    "symmetric": ("rule", lambda r: "amax" if r.symmetric else "minmax", lambda n: n.rule != "minmax"),
    "scale_dtype": ("scale", lambda r: _SCALE_DTYPES[r.scale_dtype], lambda n: _SCALE_NAMES[n.scale]),
    "block_type": ("", lambda r: "", lambda n: n.text.partition(":")[0].upper()),
    "partial": ("partial", lambda r: str(int(r.partial)), lambda n: bool(n.partial)),
}


class ScalingRecipe:
    """Base of all recipes: element format, scale format, shape of a block and the rule for its scale. Own classes that are no row of
    the table may be carried by a ScaledTensor, not cast to (TypeError). Source: include/breccia/recipes.def.

    >>> import breccia
    >>> isinstance(breccia.INT4Scaling(), breccia.ScalingRecipe), breccia.INT4Scaling.name
    (True, 'int4')
    """

    name: ClassVar[str] = ""
    _row: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for f in fields(self):                                                  # type: ignore[arg-type]
            if f.type is bool:
                _choice(f.name, getattr(self, f.name), (True, False))
        self._check()
        # Not fields: they follow from the fields, and take no part in == and hash.
        written = self._written()
        facts = self.__dict__
        facts["text"] = _fact(written, "text")
        element, facts["_bits"] = _fact(written, "element"), _fact(written, "bits")
        scale, facts["_zero"], facts["_levels"] = _fact(written, "scale"), _fact(written, "zero"), _fact(written, "levels")
        facts["_element"], facts["_scale"] = element, scale
        # How a library holds them: codes as their own type where they are whole bytes, scales of 8 bits as codes.
        facts["_stored"] = element if facts["_bits"] == 8 else "uint8"
        facts["_numbers"] = "uint8" if scale in ("e8m0", "e4m3") else scale
        block = _fact(written, "0"), _fact(written, "1"), _fact(written, "2")
        facts["_layout"] = _of_number(_fact(written, "layout"), block, _fact(written, "partial") == 1)
        if _frameworks.unregistered:
            _frameworks.register()

    def __reduce__(self) -> Any:
        """Pickled and copied as its fields: the facts are those of the library that reads it."""
        if not is_dataclass(self):
            return super().__reduce_ex__(2)
        return type(self), tuple(getattr(self, f.name) for f in fields(self))

    @property
    def _native(self) -> _c.Recipe:
        return _native_of(self.text)                                            # type: ignore[attr-defined]

    def _check(self) -> None:
        """Raises ValueError naming the parameter that is wrong."""

    def _written(self) -> str:
        pairs = [(_KEYS[f.name][0], _KEYS[f.name][1](self)) for f in fields(self) if f.name in _KEYS]     # type: ignore[arg-type]
        return f"{self._row}:" + ",".join(f"{key}={value}" for key, value in pairs if key)


@dataclass(frozen=True)
class DelayedScaling(ScalingRecipe):
    """FP8 with one scale a tensor that comes from the largest magnitudes of past casts (TransformerEngine).

    ``margin``: the largest element is scaled to max * 2**-margin. The history is the caller's: ``DelayedState``.
    Without a state, ``cast`` is current scaling with the margin. ValueError names the parameter that is wrong.

    Source: TransformerEngine 2.x, common/recipe/delayed_scaling. ``cast`` gives FP8 data of the shape of x and one float32 scale.

    >>> import numpy as np, breccia
    >>> st = breccia.cast(np.ones((2, 128), np.float32), breccia.DelayedScaling())
    >>> st.storage_shape, st.scale.shape, st.scale.dtype.name
    ((2, 128), (), 'float32')
    """

    fp8_format: str = "E4M3"
    amax_history_len: int = 16
    margin: int = 0
    amax_history: str = "max"
    name: ClassVar[str] = "delayed"
    _row: ClassVar[str] = "fp8-delayed"

    def _check(self) -> None:
        _choice("fp8_format", self.fp8_format, ("E4M3", "E5M2"))
        _positive("amax_history_len", self.amax_history_len)
        if isinstance(self.margin, bool) or not isinstance(self.margin, (int, np.integer)):
            raise ValueError(f"margin must be a whole number, got {self.margin!r}")
        _choice("amax_history", self.amax_history, ("max", "most_recent"))


class DelayedState:
    """What delayed scaling remembers between casts of one tensor: the next scale, the last amax, the history.

    ``cast(x, recipe, state)`` multiplies by ``scale`` and writes ``amax``; ``update()`` then puts the amax into the history
    and derives the next scale (TransformerEngine: the history's max or its most recent; an amax of 0, Inf or NaN leaves the
    scale). ``history`` is float32, shape ``(amax_history_len,)``, in units of x. TypeError for any other recipe. Source:
    TransformerEngine 2.x, common/recipe/delayed_scaling.

    >>> import numpy as np, breccia
    >>> recipe = breccia.DelayedScaling()
    >>> state = breccia.recipes.DelayedState(recipe)
    >>> st = breccia.cast(np.full((2, 4), 7.0, np.float32), recipe, state)
    >>> state.update()
    >>> state.amax, state.scale
    (7.0, 64.0)
    """

    def __init__(self, recipe: DelayedScaling) -> None:
        if not isinstance(recipe, DelayedScaling):
            raise TypeError(f"a DelayedScaling recipe is needed, got {type(recipe).__name__}")
        self.recipe: DelayedScaling = recipe
        self.history: np.ndarray = np.zeros(recipe.amax_history_len, np.float32)
        self._numbers = np.array([1.0, 0.0], np.float32)

    @property
    def scale(self) -> float:
        """What the next cast multiplies by: max / amax of the past, not a dequantization scale."""
        return float(self._numbers[0])

    @scale.setter
    def scale(self, value: float) -> None:
        self._numbers[0] = value

    @property
    def amax(self) -> float:
        """Largest magnitude that the last cast saw; NaN is not counted."""
        return float(self._numbers[1])

    @amax.setter
    def amax(self, value: float) -> None:
        self._numbers[1] = value

    def update(self) -> None:
        """After a cast: the amax joins the history, the scale follows, the history moves on."""
        _c.update(self.recipe._native, (self._numbers, self.history))           # type: ignore[attr-defined]


@dataclass(frozen=True)
class Float8CurrentScaling(ScalingRecipe):
    """FP8 with one scale a tensor from its own largest magnitude.

    ``arith="te"`` (default) is TransformerEngine's arithmetic, ``"div"`` torchao's: their scales differ in one ulp at times.
    ``epsilon``: smallest amax (te).

    FP8 data of the shape of x, one float32 scale. Sources: TransformerEngine 2.x (te), torchao 0.18 (div). ValueError names the
    parameter that is wrong.

    >>> import numpy as np, breccia
    >>> st = breccia.cast(np.ones((2, 128), np.float32), breccia.Float8CurrentScaling())
    >>> st.storage_shape, st.scale.shape, st.scale.dtype.name
    ((2, 128), (), 'float32')
    """

    fp8_format: str = "E4M3"
    power_of_two: bool = False
    arith: str = "te"
    epsilon: float = 0.0
    name: ClassVar[str] = "current"
    _row: ClassVar[str] = "fp8"

    def _check(self) -> None:
        _choice("fp8_format", self.fp8_format, ("E4M3", "E5M2"))
        _choice("arith", self.arith, _c.ARITHMETICS)
        if not isinstance(self.epsilon, (int, float, np.floating)) or not 0 <= self.epsilon < float("inf"):
            raise ValueError(f"epsilon must be a finite number >= 0, got {self.epsilon!r}")


@dataclass(frozen=True)
class Float8RowScaling(ScalingRecipe):
    """FP8 with one scale a row of the last axis (torchao's PerRow): layout PerChannel, scale ``(..., M, 1)``.

    Source: torchao 0.18, Float8Tensor. ValueError names the parameter that is wrong.

    >>> import numpy as np, breccia
    >>> st = breccia.cast(np.ones((2, 128), np.float32), breccia.Float8RowScaling())
    >>> st.storage_shape, st.scale.shape, st.scale.dtype.name
    ((2, 128), (2, 1), 'float32')
    """

    fp8_format: str = "E4M3"
    power_of_two: bool = False
    arith: str = "div"
    name: ClassVar[str] = "row"
    _row: ClassVar[str] = "fp8-row"

    def _check(self) -> None:
        _choice("fp8_format", self.fp8_format, ("E4M3", "E5M2"))
        _choice("arith", self.arith, _c.ARITHMETICS)


@dataclass(frozen=True)
class Float8BlockScaling(ScalingRecipe):
    """FP8 with a float32 scale for each ``block_k`` elements of the last axis, or for each ``block_m`` x ``block_k`` tile.

    ``block_m=1``: layout PerBlockK(block_k). ``block_m=128``: DeepSeek's weights, layout PerBlockMN(128, 128).
    TransformerEngine's block scaling is ``arith="te", power_of_two=True``. ``partial=True`` allows partial edge blocks.

    Sources: DeepSeek-V3 (blocks, multiplying scales), torchao 0.18 (arithmetic), TransformerEngine 2.x. ValueError names the
    parameter that is wrong.

    >>> import numpy as np, breccia
    >>> st = breccia.cast(np.ones((2, 128), np.float32), breccia.Float8BlockScaling())
    >>> st.storage_shape, st.scale.shape, st.scale.dtype.name
    ((2, 128), (2, 1), 'float32')
    """

    fp8_format: str = "E4M3"
    block_k: int = 128
    block_m: int = 1
    power_of_two: bool = False
    arith: str = "div"
    partial: bool = False
    name: ClassVar[str] = "block"

    @property
    def _row(self) -> str:                                                      # type: ignore[override]
        return "fp8-block" if self.block_m == 1 else "fp8-block128"

    def _check(self) -> None:
        _choice("fp8_format", self.fp8_format, ("E4M3", "E5M2"))
        _positive("block_k", self.block_k)
        _positive("block_m", self.block_m)
        _choice("arith", self.arith, _c.ARITHMETICS)


def _check_mx(recipe: Any, what: str) -> None:
    if recipe.block_size != 32:
        raise ValueError(f"{what} block_size must be 32 (OCP Microscaling Formats 1.0), got {recipe.block_size!r}")
    _choice("scale_rule", recipe.scale_rule, _MX_RULES)


@dataclass(frozen=True)
class MXFP8BlockScaling(ScalingRecipe):
    """OCP MXFP8: FP8 elements, one E8M0 scale (a power of two) for 32 of them; layout PerBlockMN(1, 32).

    ``scale_rule``: how the largest magnitude becomes a power of two. ``rceil`` rounds up (TransformerEngine), ``floor`` is the
    specification's, ``ceil`` and ``even`` are torchao's other modes.

    Data FP8 of the shape of x; scale uint8 ``(..., K/32)``, byte b is 2**(b - 127). Source: OCP Microscaling Formats 1.0.
    ValueError names the parameter that is wrong.

    >>> import numpy as np, breccia
    >>> st = breccia.cast(np.ones((2, 128), np.float32), breccia.MXFP8BlockScaling())
    >>> st.storage_shape, st.scale.shape, st.scale.dtype.name
    ((2, 128), (2, 4), 'uint8')
    """

    fp8_format: str = "E4M3"
    block_size: int = 32
    scale_rule: str = "rceil"
    partial: bool = False
    name: ClassVar[str] = "mxfp8"
    _row: ClassVar[str] = "mxfp8"

    def _check(self) -> None:
        _choice("fp8_format", self.fp8_format, ("E4M3", "E5M2"))
        _check_mx(self, "MXFP8")


@dataclass(frozen=True)
class MXFP6BlockScaling(ScalingRecipe):
    """OCP MXFP6: 6-bit elements, four in three bytes (low bits first), one E8M0 scale for 32 of them.

    Data uint8 ``(..., 3K/4)``, scale uint8 ``(..., K/32)``. Source: OCP Microscaling Formats 1.0. ValueError names the parameter
    that is wrong.

    >>> import numpy as np, breccia
    >>> st = breccia.cast(np.ones((2, 128), np.float32), breccia.MXFP6BlockScaling())
    >>> st.storage_shape, st.scale.shape, st.scale.dtype.name
    ((2, 96), (2, 4), 'uint8')
    """

    fp6_format: str = "E3M2"
    block_size: int = 32
    scale_rule: str = "rceil"
    partial: bool = False
    name: ClassVar[str] = "mxfp6"

    @property
    def _row(self) -> str:                                                      # type: ignore[override]
        return f"mxfp6-{self.fp6_format.lower()}"

    def _check(self) -> None:
        _choice("fp6_format", self.fp6_format, ("E3M2", "E2M3"))
        _check_mx(self, "MXFP6")


@dataclass(frozen=True)
class MXFP4BlockScaling(ScalingRecipe):
    """OCP MXFP4: E2M1 elements, two in a byte (the first in the low bits), one E8M0 scale for 32 of them.

    Data uint8 ``(..., K/2)``, scale uint8 ``(..., K/32)``. Source: OCP Microscaling Formats 1.0. ValueError names the parameter
    that is wrong.

    >>> import numpy as np, breccia
    >>> st = breccia.cast(np.ones((2, 128), np.float32), breccia.MXFP4BlockScaling())
    >>> st.storage_shape, st.scale.shape, st.scale.dtype.name
    ((2, 64), (2, 4), 'uint8')
    """

    fp4_format: str = "E2M1"
    block_size: int = 32
    scale_rule: str = "rceil"
    partial: bool = False
    name: ClassVar[str] = "mxfp4"
    _row: ClassVar[str] = "mxfp4"

    def _check(self) -> None:
        _choice("fp4_format", self.fp4_format, ("E2M1",))
        _check_mx(self, "MXFP4")


@dataclass(frozen=True)
class MXINT8BlockScaling(ScalingRecipe):
    """OCP MXINT8: int8 elements with six fraction bits (64 is 1.0), one E8M0 scale for 32 of them.

    Data int8 of the shape of x, scale uint8 ``(..., K/32)``. Source: OCP Microscaling Formats 1.0. ValueError names the parameter
    that is wrong.

    >>> import numpy as np, breccia
    >>> st = breccia.cast(np.ones((2, 128), np.float32), breccia.MXINT8BlockScaling())
    >>> st.storage_shape, st.scale.shape, st.scale.dtype.name
    ((2, 128), (2, 4), 'uint8')
    """

    block_size: int = 32
    scale_rule: str = "rceil"
    partial: bool = False
    name: ClassVar[str] = "mxint8"
    _row: ClassVar[str] = "mxint8"

    def _check(self) -> None:
        if self.scale_rule == "even":
            raise ValueError("scale_rule must not be even: integer elements have no mantissa to round to")
        _check_mx(self, "MXINT8")


@dataclass(frozen=True)
class NVFP4BlockScaling(ScalingRecipe):
    """NVIDIA's NVFP4: E2M1 elements, one E4M3 scale for 16 of them; layout PerBlockMN(1, 16).

    ``levels=2`` (default): one float32 ``global_scale`` above the block scales, value = e * (s * g). ``levels=1``: none.
    ``arith``: "recip" is torchao's, "div" compressed-tensors', whose global scale is a divisor.

    Data uint8 ``(..., K/2)``, scale uint8 ``(..., K/16)``, E4M3 codes. Sources: torchao 0.18, compressed-tensors 0.20. ValueError
    names the parameter that is wrong.

    >>> import numpy as np, breccia
    >>> st = breccia.cast(np.ones((2, 128), np.float32), breccia.NVFP4BlockScaling())
    >>> st.storage_shape, st.scale.shape, st.scale.dtype.name
    ((2, 64), (2, 8), 'uint8')
    """

    fp4_format: str = "E2M1"
    block_size: int = 16
    scale_format: str = "E4M3"
    levels: int = 2
    arith: str = "recip"
    partial: bool = False
    name: ClassVar[str] = "nvfp4"
    _row: ClassVar[str] = "nvfp4"

    def _check(self) -> None:
        _choice("fp4_format", self.fp4_format, ("E2M1",))
        if self.block_size != 16:
            raise ValueError(f"NVFP4 block_size must be 16, got {self.block_size!r}")
        _choice("scale_format", self.scale_format, ("E4M3",))
        _choice("levels", self.levels, (1, 2))
        _choice("arith", self.arith, _c.ARITHMETICS)


@dataclass(frozen=True)
class INT8Scaling(ScalingRecipe):
    """int8 with one scale a row of the last axis: layout PerChannel, scale ``(..., M, 1)``; value = q * s or (q - z) * s.

    Data int8 of the shape of x. Sources: compressed-tensors 0.20 (div), torchao 0.18 (recip). ValueError names the parameter that
    is wrong.

    >>> import numpy as np, breccia
    >>> st = breccia.cast(np.ones((2, 128), np.float32), breccia.INT8Scaling())
    >>> st.storage_shape, st.scale.shape, st.scale.dtype.name
    ((2, 128), (2, 1), 'float32')
    """

    symmetric: bool = True
    scale_dtype: str = "fp32"
    arith: str = "div"
    name: ClassVar[str] = "int8"
    _row: ClassVar[str] = "int8"

    def _check(self) -> None:
        _choice("scale_dtype", self.scale_dtype, _SCALE_DTYPES)
        _choice("arith", self.arith, _c.ARITHMETICS)


@dataclass(frozen=True)
class INT4Scaling(ScalingRecipe):
    """4-bit integers, one scale for each ``group_size`` elements of the last axis; layout PerBlockK(group_size).

    ``signed=True``: codes -8..7, else 0..15. ``symmetric=False`` (needs ``signed=False``): a uint8 zero point for each group,
    value = (q - z) * s. ``scale_dtype``: fp16, bf16 or fp32. Arithmetic: compressed-tensors' ("div") or torchao's ("recip").

    Data uint8 ``(..., K/2)``, scale ``(..., K/group_size)``. Sources: compressed-tensors 0.20, torchao 0.18. ValueError names the
    parameter that is wrong.

    >>> import numpy as np, breccia
    >>> st = breccia.cast(np.ones((2, 128), np.float32), breccia.INT4Scaling())
    >>> st.storage_shape, st.scale.shape, st.scale.dtype.name
    ((2, 64), (2, 1), 'float16')
    """

    group_size: int = 128
    signed: bool = True
    scale_dtype: str = "fp16"
    symmetric: bool = True
    arith: str = "div"
    partial: bool = False
    name: ClassVar[str] = "int4"
    _row: ClassVar[str] = "int4"

    @property
    def _integer(self) -> str:
        return "int4" if self.signed else "uint4"

    def _check(self) -> None:
        _positive("group_size", self.group_size)
        _choice("scale_dtype", self.scale_dtype, _SCALE_DTYPES)
        if self.signed and not self.symmetric:
            raise ValueError("symmetric=False needs signed=False: the zero point shifts the unsigned codes 0..15")
        _choice("arith", self.arith, _c.ARITHMETICS)


@dataclass(frozen=True)
class GGMLScaling(ScalingRecipe):
    """The block types of ggml, which GGUF files hold: 32 elements of the last axis share a float16 scale; layout PerBlockK(32).

    ``block_type``: "Q8_0", "Q4_0", "Q5_0" (signed integers; value = q * scale), "Q4_1", "Q5_1" (unsigned ones above a float16
    minimum, ``zero_point``; value = q * scale + minimum), "IQ4_NL" (16 values that are not evenly spaced). Scales may be negative.

    Data int8 or uint8 ``(..., 4K/8)``, ``(..., 5K/8)``, scale float16 ``(..., K/32)``. Source: ggml, src/ggml-quants.c, bit for bit
    (IQ4_NL: without an importance matrix). ValueError names the parameter that is wrong.

    >>> import numpy as np, breccia
    >>> st = breccia.cast(np.ones((2, 128), np.float32), breccia.GGMLScaling("Q4_0"))
    >>> st.storage_shape, st.scale.shape, st.scale.dtype.name
    ((2, 64), (2, 4), 'float16')
    """

    block_type: str = "Q8_0"
    partial: bool = False
    name: ClassVar[str] = "ggml"

    @property
    def _row(self) -> str:                                                      # type: ignore[override]
        return self.block_type.lower()

    def _check(self) -> None:
        _choice("block_type", self.block_type, ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL"))


@dataclass(frozen=True)
class CustomScaling(ScalingRecipe):
    """A recipe in the words of the command line: a row with changes that its class has no parameter for, or one composed
    from existing formats and rules. ``definition`` becomes its shortest form, so that equal recipes compare equal.

    Shapes and dtypes of data and scale follow from the text. ValueError if libbreccia does not know it or its parts do not go
    together. Source: include/breccia/recipes.def.

    >>> CustomScaling("custom:format=e4m3,scale=bf16,block=4x32,rule=amax,arith=div")._layout
    PerBlockMN(block_m=4, block_n=32, partial=False)
    """

    definition: str
    name: ClassVar[str] = "custom"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.__dict__["definition"] = self.text                                 # type: ignore[attr-defined]

    def _written(self) -> str:
        return self.definition


_CLASSES: dict[str, type[ScalingRecipe]] = {
    c.__name__: c for c in (DelayedScaling, Float8CurrentScaling, Float8RowScaling, Float8BlockScaling, MXFP8BlockScaling,
                            MXFP6BlockScaling, MXFP4BlockScaling, MXINT8BlockScaling, NVFP4BlockScaling, INT8Scaling, INT4Scaling,
                            GGMLScaling)}


def from_text(text: str) -> ScalingRecipe:
    """The recipe of a text as the command line takes it: ``"nvfp4:levels=1"``, ``"fp8-block:block=1x64"``.

    A text that no class can say (a bfloat16 scale under ``fp8``, say) gives the same thing as a ``CustomScaling``.
    Shapes and dtypes of a cast follow from it. ValueError if libbreccia does not know the text. Source: include/breccia/recipes.def.

    >>> from_text("fp8-block:block=1x64")
    Float8BlockScaling(fp8_format='E4M3', block_k=64, block_m=1, power_of_two=False, arith='div', partial=False)
    """
    native = _native_of(text)
    kind = _CLASSES.get(native.class_name)
    if kind is not None:
        known = {f.name: _KEYS[f.name][2](native) for f in fields(kind) if f.name in _KEYS}     # type: ignore[arg-type]
        try:
            recipe: ScalingRecipe = kind(**known)
        except ValueError:
            pass
        else:
            if recipe.text == native.text:                                      # type: ignore[attr-defined]
                return recipe
    return CustomScaling(native.text)
