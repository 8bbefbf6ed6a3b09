# SPDX-License-Identifier: Apache-2.0
"""The golden vectors again, through Python: every test of tests/golden runs with the package in place of the C API."""
import importlib.util
import inspect
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import breccia
import breccia_c
from breccia import _c
from breccia.recipes import from_text


@dataclass
class Tensor:
    """A ScaledTensor with the names that the tests of the C API use."""
    st: Any

    @property
    def shape(self):
        return self.st.shape

    @property
    def data(self):
        return self.st.data

    @property
    def scale(self):
        scale = self.st.scale
        scale = scale.astype(ml_dtypes.bfloat16) if self.st.recipe._scale == "bf16" else scale
        batch, rows, cols = ((1,) * 3 + tuple(scale.shape))[-3:]
        return scale.reshape(int(np.prod(scale.shape[:-2], dtype=int)), rows, cols) if scale.ndim > 1 else scale.reshape(1, 1, -1)

    @property
    def globals(self):
        return self.st.global_scale

    @property
    def zero(self):
        return self.st.zero_point


def cast(x, text, state=None, threads=0, format=None):
    recipe = from_text(text)
    if state is not None:
        state.recipe = recipe                                # C's state knows no recipe
    return Tensor(breccia.cast(x, recipe, state, threads=threads))


def dequantize(t, dtype=np.float32, threads=0):
    return breccia.dequantize(t.st, dtype, threads=threads)


def tensor(format, shape, data, scale, layout="per_tensor", globals=None, zero=None, group_index=None, recipe_of=None):
    """Arrays of a file as a ScaledTensor: the recipe that says the formats and the kinds, the layout that says the blocks."""
    numbers, scale_format, (batch, rows, cols) = scale[:3]
    kind = globals[3] if globals is not None and len(globals) > 3 else "multiplier"
    rule = "rule=rceil" if scale_format == "e8m0" else "arith=div" if kind == "divisor" else "arith=recip"
    text = f"custom:format={format},scale={scale_format},block={max(rows, 1)}x{max(cols, 1)},{rule}" + (",levels=2" if globals else "")
    where = {"per_tensor": breccia.PerTensor(), "per_channel": breccia.PerChannel(), "per_block_k": breccia.PerBlockK(max(cols, 1), True),
             "per_block_mn": breccia.PerBlockMN(max(rows, 1), max(cols, 1), True)}[layout]
    scale = np.asarray(numbers).reshape(where._scale_shape(shape))
    level = None if globals is None else np.asarray(globals[0]).reshape(())
    return Tensor(breccia.ScaledTensor(np.asarray(data), scale, from_text(text), where, global_scale=level, shape=tuple(shape)))


def encode(format, x):
    x = np.ascontiguousarray(x, np.float32).reshape(-1)
    row = np.empty((x.size * _c.FORMATS[format]["bits"] + 7) // 8, np.uint8)
    _c.encode(format, x, row)
    return row


def decode(format, row, n):
    x = np.empty(n, np.float32)
    _c.decode(format, np.ascontiguousarray(row), x)
    return x


@pytest.fixture
def brc():
    facts = SimpleNamespace(brc_format_get=lambda name: SimpleNamespace(**_c.FORMATS[name]))
    return SimpleNamespace(cast=cast, dequantize=dequantize, tensor=tensor, encode=encode, decode=decode, lib=facts,
                           format_of=lambda name: name, delayed_state=lambda: breccia.DelayedState(breccia.DelayedScaling()))


def _collect(folder):
    for path in sorted(folder.glob("test_*.py")):
        spec = importlib.util.spec_from_file_location(f"golden_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        topic = path.stem.removeprefix("test_")
        for name, value in vars(module).items():
            if name.startswith("test_") and inspect.isfunction(value):
                globals()[f"test_{topic}_{name.removeprefix('test_')}"] = value
            elif getattr(value, "_fixture_function", None) is not None or type(value).__name__ == "FixtureFunctionDefinition":
                globals()[name] = value


_collect(breccia_c.ROOT / "tests" / "golden")
