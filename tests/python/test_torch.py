# SPDX-License-Identifier: Apache-2.0
"""PyTorch tensors: the bits of NumPy, native FP8 types, memory shared, torch.compile, pytrees, opcheck."""
import subprocess
import sys

import numpy as np
import pytest

import breccia
from breccia import Float8CurrentScaling, INT4Scaling, MXFP8BlockScaling, NVFP4BlockScaling
from recipes_list import ALL, IDS

pytestmark = pytest.mark.usefixtures("torch")


def codes(torch, tensor):
    return tensor.view(torch.uint8).numpy() if tensor.element_size() == 1 else tensor.float().numpy()


@pytest.mark.parametrize("recipe", ALL, ids=IDS)
def test_same_bits_as_numpy(torch, x, recipe):
    st, want = breccia.cast(torch.from_numpy(x), recipe), breccia.cast(x, recipe)
    for name in ("data", "scale", "zero_point", "global_scale"):
        ours, theirs = getattr(st, name), getattr(want, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert isinstance(ours, torch.Tensor) and tuple(ours.shape) == theirs.shape
            assert (codes(torch, ours) == theirs.view(np.uint8 if theirs.itemsize == 1 else theirs.dtype)).all(), name
    assert (st.shape, st.layout, st.recipe, st.nbytes) == (want.shape, want.layout, want.recipe, st.nbytes)
    y = breccia.dequantize(st)
    assert y.dtype == torch.float32 and (y.numpy() == breccia.dequantize(want)).all()
    w = np.random.default_rng(0).standard_normal((256, 8)).astype(np.float32)
    product = breccia.matmul(st, torch.from_numpy(w))
    assert isinstance(product, torch.Tensor) and (product.numpy() == breccia.matmul(want, w)).all()
    again = breccia.requantize(st, Float8CurrentScaling())
    assert again == breccia.requantize(want, Float8CurrentScaling())


def test_types(torch, x):
    kinds = {Float8CurrentScaling(): (torch.float8_e4m3fn, torch.float32), Float8CurrentScaling("E5M2"): (torch.float8_e5m2, torch.float32),
             MXFP8BlockScaling(): (torch.float8_e4m3fn, torch.uint8), NVFP4BlockScaling(): (torch.uint8, torch.uint8),
             INT4Scaling(): (torch.uint8, torch.float16), INT4Scaling(scale_dtype="bf16"): (torch.uint8, torch.bfloat16)}
    for recipe, (data, scale) in kinds.items():
        st = breccia.cast(torch.from_numpy(x), recipe)
        assert (st.data_dtype, st.scale_dtype) == (data, scale)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        st = breccia.cast(torch.from_numpy(x).to(dtype), MXFP8BlockScaling())
        assert st == breccia.cast(torch.from_numpy(x).to(dtype).float(), MXFP8BlockScaling())
        assert breccia.dequantize(st, dtype).dtype == dtype
    assert breccia.matmul(st, torch.ones(256, 4), torch.bfloat16).dtype == torch.bfloat16
    assert breccia.matmul(st, torch.ones(256, 4), np.float16).dtype == torch.float16


def test_fp8_that_is_not_exchanged(torch, x, monkeypatch):
    """PyTorch before 2.10 has no DLPack for FP8: bytes with the format's name, the same bits."""
    from breccia._frameworks import _torch
    assert _torch._REFUSED == {}
    t, recipes = torch.from_numpy(x), (Float8CurrentScaling("E5M2"), MXFP8BlockScaling())
    want = [(breccia.cast(t, recipe), breccia.matmul(breccia.cast(t, recipe), t.T)) for recipe in recipes]
    monkeypatch.setattr(_torch, "_REFUSED", {torch.float8_e4m3fn: "e4m3", torch.float8_e5m2: "e5m2"})
    for recipe, (st, product) in zip(recipes, want):
        again = breccia.cast(t, recipe)
        assert again == st and again.data_dtype == st.data_dtype and torch.equal(breccia.matmul(again, t.T), product)
        with pytest.raises(TypeError, match="the recipe wants e4m3"):
            breccia.dequantize(breccia.from_buffer(want[0][0].data, want[0][0].scale, Float8CurrentScaling(), breccia.PerTensor()))


def test_inputs(torch, x):
    t = torch.from_numpy(x)
    st = breccia.cast(t, MXFP8BlockScaling())
    assert breccia.cast(t.T.contiguous().T, MXFP8BlockScaling()) == st
    assert breccia.cast(torch.nn.Parameter(t), MXFP8BlockScaling()) == st
    assert breccia.cast(t.clone().requires_grad_(), MXFP8BlockScaling()) == st
    with pytest.raises(TypeError, match="int64"):
        breccia.cast(torch.ones(2, 32, dtype=torch.int64), MXFP8BlockScaling())
    with pytest.raises(ValueError, match="divisible"):
        breccia.cast(torch.ones(2, 33), MXFP8BlockScaling())
    with pytest.raises(NotImplementedError):
        breccia.dequantize(breccia.ScaledTensor(st.data.to("meta"), st.scale.to("meta"), st.recipe, st.layout)).cpu()


def test_tensors_that_are_not_their_memory(torch, x):
    """A view of negatives is read as it is meant; what is not strided memory is refused in one line."""
    negative = torch.complex(torch.zeros(8, 256), torch.from_numpy(x)).conj().imag
    assert negative.is_neg() and breccia.cast(negative, MXFP8BlockScaling()) == breccia.cast(-x, MXFP8BlockScaling())
    with pytest.raises(TypeError, match="torch.sparse_coo.*cannot be read"):
        breccia.cast(torch.eye(32).to_sparse(), Float8CurrentScaling())
    with pytest.raises(TypeError, match="complex"):
        breccia.cast(torch.zeros(2, 32, dtype=torch.complex64), MXFP8BlockScaling())


def test_empty(torch):
    for recipe in ALL:
        st = breccia.cast(torch.ones(0, 256), recipe)
        assert st.shape == (0, 256) and breccia.dequantize(st).shape == (0, 256) and st == breccia.cast(np.ones((0, 256), np.float32), recipe)
        assert breccia.requantize(st, MXFP8BlockScaling()).shape == (0, 256) and breccia.matmul(st, torch.ones(256, 3)).shape == (0, 3)


def test_codes_that_lie_apart(torch, x):
    """A transposed view of codes is read as it is meant."""
    st = breccia.cast(torch.from_numpy(x), Float8CurrentScaling())
    turned = breccia.ScaledTensor(st.data.T, st.scale, st.recipe, st.layout)
    assert (breccia.dequantize(turned) == breccia.dequantize(st).T).all()


COMPILED = [Float8CurrentScaling(), breccia.Float8BlockScaling(), MXFP8BlockScaling(), NVFP4BlockScaling(),
            INT4Scaling(signed=False, symmetric=False), breccia.MXFP6BlockScaling()]


@pytest.mark.parametrize("recipe", COMPILED, ids=[r.text for r in COMPILED])
def test_compile(torch, x, recipe):
    """One graph, no breaks: cast, dequantize, requantize, matmul; a ScaledTensor may go in and come out."""
    def all_of_them(x, w):
        st = breccia.cast(x, recipe)
        other = breccia.requantize(st, MXFP8BlockScaling(scale_rule="floor"))
        return breccia.dequantize(st), breccia.matmul(st, w), breccia.dequantize(other, torch.bfloat16)

    torch._dynamo.reset()
    t, w = torch.from_numpy(x), torch.randn(256, 8)
    compiled = torch.compile(all_of_them, fullgraph=True, backend="aot_eager")
    assert all(torch.equal(a, b) for a, b in zip(compiled(t, w), all_of_them(t, w), strict=True))
    outward = torch.compile(lambda x: breccia.cast(x, recipe), fullgraph=True, backend="aot_eager")
    assert outward(t) == breccia.cast(t, recipe)
    inward = torch.compile(lambda st, w: breccia.matmul(st, w, bias=w[0]), fullgraph=True, backend="aot_eager")
    st = breccia.cast(t, recipe)
    assert torch.equal(inward(st, w), breccia.matmul(st, w, bias=w[0]))


def test_compile_with_inductor(torch, x):
    torch._dynamo.reset()
    recipe = NVFP4BlockScaling()
    function = torch.compile(lambda x, w: breccia.matmul(breccia.cast(x * 2, recipe), w) + 1, fullgraph=True)
    t, w = torch.from_numpy(x), torch.randn(256, 8)
    assert torch.equal(function(t, w), breccia.matmul(breccia.cast(t * 2, recipe), w) + 1)


def test_compile_refuses_while_tracing(torch):
    """What is wrong is said when the graph is made, not when it runs."""
    recipe = MXFP8BlockScaling()
    w = breccia.cast(torch.randn(8, 128), recipe)
    for function, x, text in ((lambda x: breccia.dequantize(breccia.cast(x, recipe)), torch.ones(2, 32, dtype=torch.int32), "x is torch.int32"),
                              (lambda x: breccia.matmul(x, w, torch.float64, transpose_b=True), torch.ones(2, 128), "dtype must be"),
                              (lambda x: breccia.matmul(x, w, transpose_b=True), torch.ones(2, 128, dtype=torch.int8), "a is torch.int8"),
                              (lambda x: breccia.dequantize(breccia.cast(x, recipe)), torch.ones(2, 33), "divisible")):
        torch._dynamo.reset()
        with pytest.raises(Exception, match=text):
            torch.compile(function, fullgraph=True, backend="eager")(x)


def test_imports_are_no_reason_to_compile_again(torch):
    code = ("import sys, torch, breccia\ntorch._dynamo.config.error_on_recompile = True\nrecipe = breccia.MXFP8BlockScaling()\n"
            "made = torch.compile(lambda d, s: breccia.dequantize(breccia.ScaledTensor(d, s, recipe, breccia.PerBlockMN(1, 32))),"
            " fullgraph=True, backend='eager')\n"
            "cast = torch.compile(lambda x: breccia.dequantize(breccia.cast(x, breccia.NVFP4BlockScaling())), fullgraph=True, backend='eager')\n"
            "x = torch.randn(4, 128); st = breccia.cast(x, recipe)\n"
            "for name in ('one', 'two', 'three'):\n"
            "    made(st.data, st.scale); cast(x); sys.modules[name] = sys\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_vmap(torch, x):
    """torch.func.vmap: each element of the batch on its own, as in JAX."""
    batch, recipe = torch.from_numpy(np.stack([x, 3 * x])), NVFP4BlockScaling()
    w = breccia.cast(torch.randn(8, 256), INT4Scaling())
    st = torch.func.vmap(lambda x: breccia.cast(x, recipe))(batch)
    assert st.shape == (2, 8, 256)
    assert all(torch.equal(st.data[i], breccia.cast(batch[i], recipe).data) for i in range(2))
    assert torch.equal(torch.func.vmap(breccia.dequantize)(st)[1], breccia.dequantize(breccia.cast(batch[1], recipe)))
    across = torch.func.vmap(lambda x: breccia.matmul(x, w, transpose_b=True), in_dims=1, out_dims=1)(batch.transpose(0, 1).contiguous())
    assert torch.equal(across.transpose(0, 1), breccia.matmul(batch, w, transpose_b=True))
    again = torch.func.vmap(lambda st: breccia.requantize(st, MXFP8BlockScaling()))(st)
    assert torch.equal(again.data[1].view(torch.uint8), breccia.requantize(breccia.cast(batch[1], recipe), MXFP8BlockScaling()).data.view(torch.uint8))


def test_compile_dynamic_shapes(torch):
    torch._dynamo.reset()
    recipe = NVFP4BlockScaling()
    function = torch.compile(lambda x: breccia.dequantize(breccia.cast(x, recipe)), fullgraph=True, dynamic=True, backend="aot_eager")
    for rows in (3, 5, 9):
        t = torch.randn(rows, 64)
        assert torch.equal(function(t), breccia.dequantize(breccia.cast(t, recipe)))


def test_operations_are_well_formed(torch, x):
    """PyTorch's own check of schema, fake results and aliasing."""
    from breccia._frameworks import _torch
    t = torch.from_numpy(x)
    st = breccia.cast(t, NVFP4BlockScaling())
    words = _torch._words(st)
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_static")
    torch.library.opcheck(_torch._cast, (t, "nvfp4", 0), test_utils=tests)
    torch.library.opcheck(_torch._dequantize, (*words, "bf16", 0), test_utils=tests)
    torch.library.opcheck(_torch._requantize, (*words, "mxfp8", 0), test_utils=tests)
    plain = (torch.randn(256, 8), None, None, None, None, "", [256, 8], 0, [0, 0, 0])
    torch.library.opcheck(_torch._matmul, (*words, *plain, [8, 8], "f32", False, False, None, 0), test_utils=tests)


def test_fake_tensors(torch):
    from torch._subclasses.fake_tensor import FakeTensorMode
    with FakeTensorMode():
        st = breccia.cast(torch.empty(4, 256), INT4Scaling())
        assert st.shape == (4, 256) and tuple(st.data.shape) == (4, 128) and st.scale.dtype == torch.float16
        assert tuple(breccia.dequantize(st).shape) == (4, 256)


def test_no_bytes_no_hash(torch, x):
    st = breccia.cast(torch.from_numpy(x), MXFP8BlockScaling())
    meta = breccia.ScaledTensor(st.data.to("meta"), st.scale.to("meta"), st.recipe, st.layout)
    for ask in (lambda: hash(meta), lambda: meta == st, lambda: st == meta):
        with pytest.raises(TypeError, match="traced"):
            ask()


def test_export(torch):
    class Layer(torch.nn.Module):
        def forward(self, x):
            return breccia.dequantize(breccia.cast(x, breccia.MXFP8BlockScaling()))

    t = torch.randn(4, 64)
    assert torch.equal(torch.export.export(Layer(), (t,)).module()(t), Layer()(t))


def test_pytree(torch, x):
    from torch.utils import _pytree
    st = breccia.cast(torch.from_numpy(x), NVFP4BlockScaling())
    leaves, tree = _pytree.tree_flatten(st)
    assert len(leaves) == 3 and all(isinstance(leaf, torch.Tensor) for leaf in leaves)
    assert _pytree.tree_unflatten(leaves, tree) == st
    assert _pytree.tree_map(lambda leaf: leaf.clone(), {"w": st})["w"] == st
    paths = [_pytree.keystr(path) for path, _ in _pytree.tree_flatten_with_path(st)[0]]
    assert paths == [".data", ".scale", ".global_scale"]
    assert "shape=None" in repr(_pytree.tree_map(lambda leaf: tuple(leaf.shape), st))            # leaves of any kind


def test_memory_is_shared(torch, x):
    """The codes that C wrote are the tensor's own memory, and from_dlpack shares it with NumPy."""
    st = breccia.cast(torch.from_numpy(x), MXFP8BlockScaling())
    from breccia.bridges import from_dlpack
    seen = from_dlpack(st, "numpy")
    st.data.view(torch.uint8)[0, 0] = 99
    assert seen.data[0, 0] == 99 and seen.data.dtype == np.uint8


def test_numpy_and_torch_together(torch, x):
    """An operand of each: the result is the library's that is not NumPy."""
    st = breccia.cast(x, MXFP8BlockScaling())
    assert isinstance(breccia.matmul(st, torch.ones(256, 3)), torch.Tensor)
    assert isinstance(breccia.matmul(torch.ones(3, 8), st), torch.Tensor)


def test_who_looks_on(torch, x):
    """Tracers that see PyTorch's calls alone: each records the operation, or is refused; none gets memory that nobody fills."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    t, recipe = torch.from_numpy(x), MXFP8BlockScaling()

    def layer(t):
        return breccia.matmul(breccia.cast(t, recipe), t, transpose_b=True)

    for mode in ("real", "fake", "symbolic"):
        assert torch.equal(make_fx(layer, tracing_mode=mode)(t)(t * 2), layer(t * 2)), mode
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert breccia.cast(t, recipe).data.device.type == "cpu"
    with pytest.raises(NotImplementedError, match="torch.jit.trace"):
        torch.jit.trace(layer, (t,))


def test_default_device(torch, x):
    """What a cast writes is on the CPU, wherever new tensors go."""
    t, recipe = torch.from_numpy(x), NVFP4BlockScaling()
    with torch.device("meta"):
        st = breccia.cast(t, recipe)
        product = breccia.matmul(st, t, transpose_b=True)
    assert st == breccia.cast(t, recipe) and torch.equal(product, breccia.matmul(st, t, transpose_b=True))


def test_forward_mode_is_refused(torch, x):
    """A registered operation drops tangents without a word."""
    t, st = torch.from_numpy(x), breccia.cast(torch.from_numpy(x), MXFP8BlockScaling())
    for point, function in ((t, lambda t: breccia.matmul(t, st, transpose_b=True)), (t[0, :8], lambda bias: breccia.matmul(st, x.T, bias=bias))):
        with pytest.raises(NotImplementedError, match="forward mode"):
            torch.func.jvp(function, (point,), (point,))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(t, t)
        with pytest.raises(NotImplementedError, match="forward mode"):
            breccia.matmul(dual, st, transpose_b=True)


def test_one_device(torch, x):
    """A scale without numbers beside codes that have some is no reason for numbers that nobody wrote."""
    st = breccia.cast(torch.from_numpy(x), MXFP8BlockScaling())
    mixed = breccia.ScaledTensor(st.data, st.scale.to("meta"), st.recipe, st.layout)
    for use in (breccia.dequantize, lambda st: breccia.requantize(st, NVFP4BlockScaling()), lambda st: breccia.matmul(st, torch.ones(256, 2))):
        with pytest.raises(ValueError, match="on one device, not on cpu and meta"):
            use(mixed)
    with pytest.raises(ValueError, match="on one device"):
        breccia.matmul(torch.ones(4, 256, device="meta"), st, transpose_b=True)


def test_vmap_over_nothing(torch):
    st = torch.func.vmap(lambda t: breccia.cast(t, NVFP4BlockScaling()))(torch.ones(0, 4, 32))
    assert st.shape == (0, 4, 32) and st.storage_shape == (0, 4, 16) and tuple(st.scale.shape) == (0, 4, 2)
    assert torch.func.vmap(breccia.dequantize)(st).shape == (0, 4, 32)
