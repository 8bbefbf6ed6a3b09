# SPDX-License-Identifier: Apache-2.0
"""The package as a whole: what is public, what it imports, that it computes nothing, that its words are true."""
import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import breccia

FOLDER = Path(breccia.__file__).parent
SOURCES = sorted(FOLDER.rglob("*.py"))
PUBLIC = ["breccia", "breccia.recipes", "breccia.layouts", "breccia.bridges", "breccia.autograd", "breccia.kernels.reference",
          "breccia.kernels.reference.cast", "breccia.kernels.reference.matmul", "breccia.kernels.cuda", "breccia.kernels.triton"]

CONTRACT = """ScaledTensor from_buffer cast dequantize requantize matmul cast_ste cast_ste_clipped ScalingRecipe DelayedScaling
    Float8CurrentScaling Float8BlockScaling MXFP8BlockScaling NVFP4BlockScaling INT4Scaling Layout PerTensor PerBlockK PerChannel
    PerBlockMN PerColumn __version__""".split()


def modules():
    return ["breccia", *(m.name for m in pkgutil.walk_packages([str(FOLDER)], "breccia.") if not m.name.endswith("._c"))]


def test_contract_of_the_top_level():
    assert breccia.__all__[:len(CONTRACT)] == CONTRACT
    assert all(hasattr(breccia, name) for name in breccia.__all__)
    assert breccia.__version__ == breccia._c.VERSION


OF_LIBRARY = {"breccia._frameworks._torch": "torch", "breccia._frameworks._jax": "jax", "breccia._frameworks._mlx": "mx"}


def load(name, request):
    if name in OF_LIBRARY:
        request.getfixturevalue(OF_LIBRARY[name])
    return importlib.import_module(name)


@pytest.mark.parametrize("name", modules())
def test_modules(name, request):
    module = load(name, request)
    if name in PUBLIC:
        assert all(hasattr(module, word) for word in module.__all__)
    assert module.__doc__


def test_old_addresses():
    from breccia.kernels import cuda, reference, triton
    from breccia.kernels.reference.cast import cast, dequantize, requantize
    from breccia.kernels.reference.matmul import matmul
    assert (cast, dequantize, requantize, matmul) == (breccia.cast, breccia.dequantize, breccia.requantize, breccia.matmul)
    assert reference.__all__ == ["cast", "dequantize", "requantize", "matmul"]
    assert triton.TRITON_AVAILABLE is False and isinstance(cuda.CUDA_AVAILABLE, bool)


def test_every_public_name_is_explained():
    for name in PUBLIC:
        module = importlib.import_module(name)
        for word in module.__all__:
            value = getattr(module, word)
            if inspect.isclass(value) or inspect.isfunction(value):
                assert value.__doc__ and not value.__doc__.startswith(word + "("), f"{name}.{word}"
                assert ">>> " in value.__doc__ and re.search(r"Error|Raises", value.__doc__), f"{name}.{word}: an example, and the errors"


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings(name, request):
    module = load(name, request)
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL).failed == 0


def test_import_brings_no_framework():
    code = ("import sys, breccia; from breccia import bridges, autograd, kernels; from breccia.kernels import cuda, triton\n"
            "print([m for m in ('torch', 'jax', 'mlx', 'triton', 'ml_dtypes', 'safetensors', 'torchao') if m in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("order", ["import breccia, torch", "import torch, breccia"])
def test_import_order_does_not_matter(order, torch):
    code = (f"{order}\nx = torch.ones(2, 32); r = breccia.MXFP8BlockScaling()\n"
            "from torch.utils import _pytree\n"
            "f = torch.compile(lambda x: breccia.dequantize(breccia.cast(x, r)), fullgraph=True, backend='aot_eager')\n"
            "assert torch.equal(f(x), x); assert len(_pytree.tree_leaves(breccia.cast(x, r))) == 2")
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


# -------------------------------------------------------------------------- no algorithm in Python: the syntax trees

LIBRARIES = {"np", "numpy", "torch", "jax", "jnp", "mx", "ml_dtypes"}
# What the package may take from array libraries: making, viewing and reshaping arrays, naming types, exchange, registration.
ALLOWED = {
    "np": {"asarray", "ascontiguousarray", "empty", "zeros", "array", "arange", "frombuffer", "from_dlpack", "dtype", "ndarray",
           "generic", "float16", "float32", "float64", "int8", "uint8", "uint16", "int64",
           "integer"},
    "torch": {"empty", "to_dlpack", "Tensor", "dtype", "from_dlpack", "nn", "compiler", "library", "ops", "autograd", "_C", "uint8", "int8", "float16",
              "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"},
    "jax": {"Array", "core", "dlpack", "numpy", "tree_util", "pure_callback", "ffi", "custom_vjp", "ShapeDtypeStruct", "default_backend"},
    "jnp": {"float16", "bfloat16", "float32", "float64", "int8", "uint8", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz",
            "float8_e5m2fnuz"},
    "mx": {"array", "Dtype", "float16", "float32", "bfloat16", "uint16"},
}
METHODS = {"sum", "mean", "max", "min", "amax", "abs", "clip", "clamp", "round", "rint", "floor", "ceil", "exp2", "log2", "dot",
           "mm", "einsum", "where", "argmax", "sqrt", "ldexp", "frexp", "cumsum", "sort"}
BUILTINS = {"round", "abs", "pow", "divmod"}
# The straight-through estimator's backward masks a gradient in the tracer's own words: where() and two comparisons.
EXCEPTIONS = {("_frameworks/_torch.py", "torch", "where"), ("_frameworks/_jax.py", "jnp", "where")}


def complaints(name, tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in LIBRARIES:
            library = {"numpy": "np"}.get(node.value.id, node.value.id)
            if node.attr not in ALLOWED.get(library, set()) and (name, library, node.attr) not in EXCEPTIONS:
                yield f"{name}:{node.lineno}: {node.value.id}.{node.attr}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
            base = node.func.value
            if not (isinstance(base, ast.Name) and (name, base.id, node.func.attr) in EXCEPTIONS):
                yield f"{name}:{node.lineno}: .{node.func.attr}()"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BUILTINS:
            yield f"{name}:{node.lineno}: {node.func.id}()"
        elif isinstance(node, (ast.BinOp, ast.AugAssign)) and isinstance(node.op, (ast.MatMult, ast.Pow, ast.Div, ast.LShift, ast.RShift)):
            yield f"{name}:{node.lineno}: operator {type(node.op).__name__}"
        elif isinstance(node, ast.ImportFrom) and node.module in ("math", "numpy", "torch", "jax.numpy"):
            yield f"{name}:{node.lineno}: from {node.module}"
        elif isinstance(node, ast.Import) and any(alias.name == "math" for alias in node.names):
            yield f"{name}:{node.lineno}: import math"


@pytest.mark.parametrize("path", SOURCES, ids=[str(p.relative_to(FOLDER)) for p in SOURCES])
def test_no_algorithm_in_python(path):
    tree = ast.parse(path.read_text())
    assert list(complaints(str(path.relative_to(FOLDER)), tree)) == []


@pytest.mark.parametrize("text", ["np.round(x)", "x.sum()", "a @ b", "x ** 2", "2.0 / x", "torch.matmul(a, b)", "jnp.clip(x, 0, 1)",
                                  "import math", "round(x)", "np.where(x, 1, 2)", "x.abs().amax()"])
def test_the_walk_finds_algorithms(text):
    assert list(complaints("somewhere.py", ast.parse(text)))


def test_the_lock_is_released():
    """While a kernel runs in one thread, another one's Python goes on."""
    a = breccia.cast(np.ones((256, 512), np.float32), breccia.MXFP8BlockScaling())
    b, turns = np.ones((512, 512), np.float32), 0
    thread = threading.Thread(target=lambda: breccia.matmul(a, b, threads=1))
    thread.start()
    while thread.is_alive():
        turns += 1
    assert turns > 100


def test_extension_sees_public_headers_alone(root):
    for path in (root / "python" / "ext").glob("*.[ch]"):
        for line in path.read_text().splitlines():
            if line.startswith("#include") and "breccia" in line:
                assert line in ("#include <breccia/breccia.h>", "#include <breccia/breccia_file.h>"), (path.name, line)
