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
import time
from pathlib import Path

import numpy as np
import pytest

import breccia

FOLDER = Path(breccia.__file__).parent
SOURCES = sorted(FOLDER.rglob("*.py"))
PUBLIC = ["breccia", "breccia.recipes", "breccia.layouts", "breccia.bridges", "breccia.autograd", "breccia.kernels.reference",
          "breccia.kernels.reference.cast", "breccia.kernels.reference.matmul", "breccia.kernels.cuda", "breccia.kernels.triton", "breccia._packed"]

CONTRACT = """ScaledTensor from_buffer cast dequantize requantize matmul cast_ste cast_ste_clipped ScalingRecipe DelayedScaling
    Float8CurrentScaling Float8BlockScaling MXFP8BlockScaling NVFP4BlockScaling INT4Scaling Layout PerTensor PerBlockK PerChannel
    PerBlockMN PerColumn __version__""".split()


def modules():
    return ["breccia", *(m.name for m in pkgutil.walk_packages([str(FOLDER)], "breccia.") if not m.name.endswith("._c"))]


def test_contract_of_the_top_level():
    assert breccia.__all__[:len(CONTRACT)] == CONTRACT
    assert all(hasattr(breccia, name) for name in breccia.__all__)
    assert breccia.__version__ == breccia._c.VERSION


OF_LIBRARY = {"breccia._frameworks._torch": "torch", "breccia._frameworks._jax": "jax", "breccia._frameworks._jax_gpu": "jax",
              "breccia._frameworks._mlx": "mx"}


def load(name, request):
    if name in OF_LIBRARY:
        request.getfixturevalue(OF_LIBRARY[name])
    if name == "breccia._frameworks._cupy":
        pytest.importorskip("cupy", reason="CuPy is not installed; tests/cuda runs the module over what stands in for it")
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


# What a public docstring says, and how one can tell. The bridges take whatever shape and type there is.
SAYS = {"an example": r">>> ", "the errors": r"Error|Raises", "its source": r"\b[Ss]ources?:"}
NUMBERS = {"shapes": r"[Ss]hape|\(\.\.\.|flat", "dtypes": r"dtype|float|u?int\d|FP8"}


def test_every_public_name_is_explained():
    for name in PUBLIC + ["breccia._core", "breccia._formats"]:
        module = importlib.import_module(name)
        for word in module.__all__:
            value = getattr(module, word)
            if not (inspect.isclass(value) or inspect.isfunction(value)) or word.startswith("_is_"):
                continue
            said = value.__doc__ or ""
            assert said and not said.startswith(word + "("), f"{name}.{word}"
            plain = value.__module__.startswith("breccia.bridges") or inspect.isfunction(value) and not inspect.signature(value).parameters
            signs = SAYS if plain else SAYS | NUMBERS
            assert [what for what, sign in signs.items() if not re.search(sign, said)] == [], f"{name}.{word}"
            for part, member in vars(value).items() if inspect.isclass(value) else ():
                if not part.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                    assert member.__doc__, f"{name}.{word}.{part}"


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


def test_threads_may_come_first(torch, jax):
    """The first calls of many threads after other libraries were imported."""
    code = ("import threading, breccia, numpy as np, torch, jax\nfailures = []\n"
            "def first():\n    try: breccia.cast(np.ones((2, 32), np.float32), breccia.MXFP8BlockScaling())\n"
            "    except BaseException as failure: failures.append(failure)\n"
            "threads = [threading.Thread(target=first) for _ in range(16)]\n"
            "[t.start() for t in threads]; [t.join() for t in threads]\nassert not failures, failures\n"
            "st = breccia.cast(np.ones((2, 32), np.float32), breccia.MXFP8BlockScaling())\n"
            "assert len(jax.tree_util.tree_leaves(st)) == len(torch.utils._pytree.tree_leaves(st)) == 2")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_library_may_be_imported_later(jax):
    """A pytree of JAX, though the recipe was made before: the next cast notices."""
    code = ("import breccia, numpy as np\nrecipe = breccia.MXFP8BlockScaling(); x = np.ones((2, 32), np.float32); breccia.cast(x, recipe)\n"
            "import jax\nst = breccia.cast(x, recipe)\nassert (jax.jit(breccia.dequantize)(st) == 1).all()")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# -------------------------------------------------------------------------- no algorithm in Python: the syntax trees

LIBRARIES = {"np", "numpy", "torch", "jax", "jnp", "mx", "cupy", "ml_dtypes"}
# What the package may take from array libraries: making, viewing and reshaping arrays, naming types, exchange, registration.
ALLOWED = {
    "np": {"asarray", "ascontiguousarray", "empty", "zeros", "array", "arange", "frombuffer", "from_dlpack", "dtype", "ndarray",
           "generic", "float16", "float32", "float64", "int8", "uint8", "uint16", "int64",
           "integer", "floating", "ma"},
    "torch": {"empty", "ones", "zeros", "from_numpy", "Size", "float8_e8m0fnu", "float4_e2m1fn_x2", "stack", "is_grad_enabled", "to_dlpack", "Tensor", "dtype", "from_dlpack", "nn", "compiler", "library", "ops", "autograd", "_C", "uint8", "int8", "float16",
              "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "full", "cuda", "int32", "device"},
    "jax": {"Array", "errors", "config", "core", "dlpack", "numpy", "tree_util", "pure_callback", "ffi", "custom_vjp", "ShapeDtypeStruct", "default_backend", "devices",
            "jit", "lax"},
    "jnp": {"ones", "float16", "bfloat16", "float32", "float64", "int8", "uint8", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz",
            "float8_e5m2fnuz", "zeros", "full", "pad", "int32"},
    "cupy": {"empty", "zeros", "full", "ascontiguousarray", "from_dlpack", "ndarray", "cuda", "float16", "float32", "float64", "int8", "int32", "uint8", "uint16"},
    "mx": {"array", "ones", "Dtype", "float16", "float64", "bfloat16", "uint16", "custom_function"},
    "ml_dtypes": {"bfloat16"},
}
METHODS = {"sum", "mean", "max", "min", "amax", "abs", "clip", "clamp", "round", "rint", "floor", "ceil", "exp2", "log2", "dot",
           "mm", "einsum", "where", "argmax", "sum_to_size", "sqrt", "ldexp", "frexp", "cumsum", "sort"}
BUILTINS = {"round", "abs", "pow", "divmod"}
# The straight-through estimator's backward masks a gradient in the tracer's own words: where() and two comparisons.
EXCEPTIONS = {("_frameworks/_torch.py", "torch", "where"), ("_frameworks/_jax.py", "jnp", "where"),
              ("_frameworks/_mlx.py", "mx", "where")}


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


# Where a GPU has no kernels for a product, the library's own multiplies dequantized numbers.
FALLBACK = {("_frameworks/_torch.py", "torch.matmul"), ("_frameworks/_jax_gpu.py", "jnp.matmul"), ("_frameworks/_cupy.py", "cupy.matmul")}


@pytest.mark.parametrize("path", SOURCES, ids=[str(p.relative_to(FOLDER)) for p in SOURCES])
def test_no_algorithm_in_python(path):
    tree = ast.parse(path.read_text())
    name = str(path.relative_to(FOLDER))
    assert [found for found in complaints(name, tree) if (name, found.split(": ")[1]) not in FALLBACK] == []


@pytest.mark.parametrize("text", ["np.round(x)", "x.sum()", "a @ b", "x ** 2", "2.0 / x", "torch.matmul(a, b)", "jnp.clip(x, 0, 1)",
                                  "import math", "round(x)", "np.where(x, 1, 2)", "x.abs().amax()"])
def test_the_walk_finds_algorithms(text):
    assert list(complaints("somewhere.py", ast.parse(text)))


def test_the_lock_is_released(monkeypatch):
    """Threads are told to keep the lock for good: the other one goes on only because kernels give it up."""
    a, b = breccia.cast(np.ones((64, 128), np.float32), breccia.MXFP8BlockScaling()), np.ones((128, 64), np.float32)
    running, stop, stopped = [], [], []

    def work():
        running.append(True)
        ends = time.monotonic() + 20
        while time.monotonic() < ends and not stopped:
            for use in (lambda: breccia.matmul(a, b, threads=1), lambda: breccia.cast(b, breccia.INT8Scaling()),
                        lambda: breccia.dequantize(a), lambda: breccia.requantize(a, breccia.INT4Scaling()))[turn:turn + 1]:
                use()
            stopped.extend(stop)

    before = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1000)
        for turn in range(4):
            running.clear(), stop.clear(), stopped.clear()
            thread = threading.Thread(target=work)
            thread.start()
            while not running:
                time.sleep(0)
            stop.append(True)
            thread.join()
            assert stopped, f"operation {turn} keeps the lock"
    finally:
        sys.setswitchinterval(before)


def test_extension_sees_public_headers_alone(root):
    for path in (root / "python" / "ext").rglob("*.[ch]"):
        for line in path.read_text().splitlines():
            if line.startswith("#include") and "breccia" in line:
                assert line in ("#include <breccia/breccia.h>", "#include <breccia/breccia_file.h>", "#include <breccia/breccia_cuda.h>"), (path.name, line)
