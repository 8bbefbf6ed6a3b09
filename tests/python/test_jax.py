# SPDX-License-Identifier: Apache-2.0
"""JAX arrays: the bits of NumPy, native FP8 types, jit, vmap, pytrees."""
import subprocess
import sys

import numpy as np
import pytest

import breccia
from breccia import Float8CurrentScaling, INT4Scaling, MXFP8BlockScaling, NVFP4BlockScaling
from recipes_list import ALL, IDS


@pytest.mark.parametrize("recipe", ALL, ids=IDS)
def test_same_bits_as_numpy(jax, x, recipe, monkeypatch):
    jx, want = jax.numpy.asarray(x), breccia.cast(x, recipe)
    w = np.random.default_rng(0).standard_normal((256, 8)).astype(np.float32)

    def everything(x, w):
        st = breccia.cast(x, recipe)
        return (st, breccia.dequantize(st), breccia.dequantize(st, "bf16"), breccia.matmul(st, w), breccia.matmul(st, w, jax.numpy.bfloat16),
                breccia.requantize(st, MXFP8BlockScaling(scale_rule="floor")))

    from breccia._frameworks import _jax
    assert jax.default_backend() == "cpu" and _jax._handlers(), "XLA refused the handlers"

    def with_callbacks(*arguments):
        monkeypatch.setattr(_jax, "_handlers", lambda: False)
        return jax.jit(lambda x, w: everything(x, w))(*arguments)

    for run in (everything, jax.jit(everything), with_callbacks):
        st, y, narrow, product, narrow_product, other = run(jx, jax.numpy.asarray(w))
        assert isinstance(st.data, jax.Array) and isinstance(st.scale, jax.Array)
        assert np.array_equal(np.asarray(st.data).view(np.uint8), want.data.view(np.uint8))
        assert np.array_equal(np.asarray(st.scale).astype(np.float64), want.scale.astype(np.float64))
        assert (st.shape, st.layout, st.recipe) == (want.shape, want.layout, want.recipe)
        assert np.array_equal(y, breccia.dequantize(want)) and y.dtype == np.float32
        assert narrow.dtype == jax.numpy.bfloat16 and np.array_equal(narrow, breccia.dequantize(want, "bf16"))
        assert np.array_equal(product, breccia.matmul(want, w))
        assert narrow_product.dtype == jax.numpy.bfloat16
        assert np.array_equal(narrow_product, breccia.matmul(want, w, "bf16"))
        assert other == breccia.requantize(want, MXFP8BlockScaling(scale_rule="floor"))


def test_types(jax, x):
    jx = jax.numpy.asarray(x)
    assert breccia.cast(jx, Float8CurrentScaling()).data_dtype == jax.numpy.float8_e4m3fn
    assert breccia.cast(jx, Float8CurrentScaling("E5M2")).data_dtype == jax.numpy.float8_e5m2
    assert breccia.cast(jx, MXFP8BlockScaling()).scale_dtype == jax.numpy.uint8
    assert breccia.cast(jx, INT4Scaling(scale_dtype="bf16")).scale_dtype == jax.numpy.bfloat16
    half = jx.astype(jax.numpy.bfloat16)
    assert breccia.cast(half, NVFP4BlockScaling()) == breccia.cast(half.astype(jax.numpy.float32), NVFP4BlockScaling())


def test_strides(jax, x):
    assert breccia.cast(jax.numpy.asarray(x.T).T, MXFP8BlockScaling()) == breccia.cast(x, MXFP8BlockScaling())


@pytest.mark.parametrize("recipe", [Float8CurrentScaling(), NVFP4BlockScaling(), INT4Scaling()])
def test_vmap(jax, x, recipe):
    """Each element of the batch is cast on its own: one scale each where the layout is PerTensor."""
    batch = jax.numpy.stack([jax.numpy.asarray(x), 3 * jax.numpy.asarray(x)])
    st = jax.vmap(lambda x: breccia.cast(x, recipe))(batch)
    assert st.shape == (2, 8, 256)
    for i in range(2):
        one = jax.tree_util.tree_map(lambda leaf: leaf[i], st)
        assert one == breccia.cast(batch[i], recipe)
    assert np.array_equal(jax.vmap(breccia.dequantize)(st)[1], breccia.dequantize(breccia.cast(batch[1], recipe)))


def test_pytree(jax, x):
    st = breccia.cast(jax.numpy.asarray(x), NVFP4BlockScaling())
    leaves, tree = jax.tree_util.tree_flatten(st)
    assert len(leaves) == 3 and jax.tree_util.tree_unflatten(tree, leaves) == st
    assert jax.tree_util.tree_structure(st) == jax.tree_util.tree_structure(breccia.cast(jax.numpy.asarray(x), NVFP4BlockScaling()))
    assert jax.jit(lambda st: st)(st) == st
    w = jax.numpy.ones((256, 4))
    assert np.array_equal(jax.jit(breccia.matmul)(st, w), breccia.matmul(st, w))
    again = jax.jit(lambda st: jax.lax.fori_loop(0, 2, lambda _, st: breccia.requantize(st, NVFP4BlockScaling()), st))(st)
    assert again == st


def test_leaves_of_any_kind(jax, x):
    """Paths have names; trees of other things keep the structure."""
    st = breccia.cast(jax.numpy.asarray(x), NVFP4BlockScaling())
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(st)[0]]
    assert paths == [".data", ".scale", ".global_scale"]
    shapes = jax.tree_util.tree_map(lambda leaf: "leaf", st)
    assert jax.tree_util.tree_structure(shapes) == jax.tree_util.tree_structure(st) and "leaf" in repr(shapes)
    planned = jax.eval_shape(lambda x: breccia.cast(x, NVFP4BlockScaling()), jax.numpy.asarray(x))
    assert planned.shape == (8, 256) and planned.data.dtype == np.uint8


def test_any_traced_part(jax, x):
    """Tracing is noticed whichever array is traced."""
    st = breccia.cast(jax.numpy.asarray(x), MXFP8BlockScaling())
    want = breccia.dequantize(st)
    assert np.array_equal(jax.jit(lambda scale: breccia.dequantize(breccia.ScaledTensor(st.data, scale, st.recipe, st.layout)))(st.scale), want)
    bias = jax.numpy.arange(8, dtype=jax.numpy.float32)
    assert np.array_equal(jax.jit(lambda bias: breccia.matmul(st, st, transpose_b=True, bias=bias))(bias),
                          breccia.matmul(st, st, transpose_b=True, bias=bias))


def test_what_the_handlers_do_not_read(jax, x):
    """Codes one a byte, and a scale (M,) that a batch shares, under jit."""
    st = breccia.cast(x, INT4Scaling())
    codes = np.stack([st.data & 15, st.data >> 4], -1).reshape(8, 256)
    wide = breccia.ScaledTensor(jax.numpy.asarray(codes), jax.numpy.asarray(st.scale), st.recipe, st.layout, shape=(8, 256))
    assert np.array_equal(jax.jit(breccia.dequantize)(wide), breccia.dequantize(st))
    assert jax.jit(lambda st: breccia.requantize(st, MXFP8BlockScaling()))(wide) == breccia.requantize(st, MXFP8BlockScaling())
    row = breccia.cast(x, breccia.Float8RowScaling())
    shared = breccia.ScaledTensor(jax.numpy.stack([row.data, row.data]), jax.numpy.asarray(row.scale.reshape(8)), row.recipe, row.layout)
    assert np.array_equal(jax.jit(breccia.dequantize)(shared)[1], breccia.dequantize(row))
    assert np.array_equal(jax.jit(lambda st: breccia.matmul(st, x, transpose_b=True))(shared)[0], breccia.matmul(row, x, transpose_b=True))


def test_float64_is_jaxs_to_allow(jax, x):
    st = breccia.cast(jax.numpy.asarray(x), MXFP8BlockScaling())
    assert breccia.dequantize(st, "f64").dtype == jax.jit(lambda st: breccia.dequantize(st, "f64"))(st).dtype == np.float32
    with jax.enable_x64(True):
        assert breccia.dequantize(st, "f64").dtype == jax.jit(lambda st: breccia.dequantize(st, "f64"))(st).dtype == np.float64


def test_traced_values_have_no_hash(jax, x):
    @jax.jit
    def traced(x):
        st = breccia.cast(x, MXFP8BlockScaling())
        with pytest.raises(TypeError, match="traced"):
            hash(st)
        with pytest.raises(TypeError, match="traced"):
            st == breccia.cast(x + 1, MXFP8BlockScaling())
        with pytest.raises(TypeError, match="DelayedState"):
            recipe = breccia.DelayedScaling()
            breccia.cast(x, recipe, breccia.DelayedState(recipe))
        return x

    traced(jax.numpy.asarray(x))


def test_errors_under_jit(jax):
    with pytest.raises(ValueError, match="divisible"):
        jax.jit(lambda x: breccia.dequantize(breccia.cast(x, MXFP8BlockScaling())))(jax.numpy.ones((2, 33)))
    with pytest.raises(ValueError, match="shape mismatch"):
        jax.jit(breccia.matmul)(jax.numpy.ones((2, 33)), jax.numpy.ones((32, 3)))
    with pytest.raises(TypeError, match="x is int32"):
        jax.jit(lambda x: breccia.dequantize(breccia.cast(x, MXFP8BlockScaling())))(jax.numpy.ones((2, 32), jax.numpy.int32))
    with pytest.raises(TypeError, match="b is int8"):
        jax.jit(breccia.matmul)(jax.numpy.ones((2, 32)), jax.numpy.ones((32, 3), jax.numpy.int8))
    with pytest.raises(TypeError, match="dtype must be"):
        jax.jit(lambda x: breccia.matmul(x, x, jax.numpy.float64))(jax.numpy.ones((2, 2)))


def test_bias_and_group_index(jax, x):
    """The optional arrays, through XLA's handler."""
    w = np.random.default_rng(0).standard_normal((3, 256)).astype(np.float32)
    bias = np.arange(8, dtype=np.float32)
    st = breccia.cast(x, INT4Scaling(32, signed=False, symmetric=False))
    index = np.random.default_rng(1).integers(0, 8, 256).astype(np.int32)
    st = breccia.ScaledTensor(st.data, st.scale, st.recipe, st.layout, st.zero_point, group_index=index)
    want = breccia.matmul(w, st, transpose_b=True, bias=bias)
    on_jax = breccia.bridges.from_dlpack(st, "jax")
    got = jax.jit(lambda w, st, bias: breccia.matmul(w, st, transpose_b=True, bias=bias))(w, on_jax, bias)
    assert np.array_equal(got, want)
    assert np.array_equal(jax.jit(breccia.dequantize)(on_jax), breccia.dequantize(st))


@pytest.mark.parametrize("arrays, attributes, text", [
    (1, {"recipe": "no-such-row", "numbers": [0]}, "there is no recipe"), (1, {"numbers": [0]}, "recipe's text is missing"),
    (1, {"recipe": "mxfp8"}, "numbers are missing"), (0, {"recipe": "mxfp8", "numbers": [0]}, "array is missing"),
    (1, {"recipe": "nvfp4", "numbers": [0]}, "has not the size"),
])
def test_handlers_refuse(jax, arrays, attributes, text):
    from breccia._frameworks import _jax
    assert jax.default_backend() == "cpu" and _jax._handlers()
    shapes = [jax.ShapeDtypeStruct((4, 64), jax.numpy.uint8), jax.ShapeDtypeStruct((4, 2), jax.numpy.uint8)]
    attributes = {key: np.array(value, np.int64) if isinstance(value, list) else value for key, value in attributes.items()}
    with pytest.raises(Exception, match=text):
        jax.block_until_ready(jax.ffi.ffi_call("breccia_cast", shapes)(*[jax.numpy.ones((4, 64))] * arrays, **attributes))


def test_handlers_refuse_tensors_that_do_not_fit(jax):
    from breccia._frameworks import _jax
    assert jax.default_backend() == "cpu" and _jax._handlers()
    data, scale = jax.numpy.zeros((4, 64), jax.numpy.uint8), jax.numpy.zeros((4, 2), jax.numpy.uint8)
    good = [0, 3, 1, 1, 32, 0, 4, 64]
    call = jax.ffi.ffi_call("breccia_dequantize", jax.ShapeDtypeStruct((4, 64), jax.numpy.float32))
    assert call(data, scale, recipe="mxfp8", numbers=np.array(good)).shape == (4, 64)
    for wrong, text in (([0, 3, 1, 1, 32, 0, 4, 65], "size"), ([0, 3, 1, 1, 16, 0, 4, 64], "table"), ([0, 3, 1, 1, 32, 1, 4, 64], "table is missing"),
                        ([0, 9, 1, 1, 32, 0, 4, 64], "layout"), ([0, 3, 1, 1, 32, 0] + [1] * 9, "dimensions")):
        with pytest.raises(Exception, match=text):
            jax.block_until_ready(call(data, scale, recipe="mxfp8", numbers=np.array(wrong)))
    other = jax.numpy.zeros((4, 64), jax.numpy.float8_e5m2)
    for arrays, text in (((other, scale), "data's type"), ((data, scale.view(jax.numpy.int8)), "scale's or zero point's type")):
        with pytest.raises(Exception, match=text):
            jax.block_until_ready(call(*arrays, recipe="mxfp8", numbers=np.array(good)))


def test_a_refused_handler_stops_nothing(jax):
    """An interface that XLA does not take: JAX works, and jit goes through callbacks."""
    code = ("import breccia, jax, jax.numpy as jnp\nfrom breccia import _c\nfrom breccia._frameworks import _jax\n"
            "_c.xla_handlers = lambda on_gpus: {'breccia_cast': object()}\nx = jnp.ones((2, 32))\n"
            "assert (jax.jit(lambda x: breccia.dequantize(breccia.cast(x, breccia.MXFP8BlockScaling())))(x) == x).all()\nassert not _jax._handlers()")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_threads_under_jit(jax):
    """As without: a number that is none is refused when the call is traced."""
    for wrong, kind in ((-1, ValueError), (2**33, ValueError), (1.5, TypeError)):
        for call in (lambda x: breccia.cast(x, MXFP8BlockScaling(), threads=wrong).data, lambda x: breccia.matmul(x, x, transpose_b=True, threads=wrong)):
            with pytest.raises(kind, match="threads must be"):
                jax.jit(call)(jax.numpy.ones((2, 32)))


def test_bias_under_jit(jax):
    x = jax.numpy.ones((4, 32))
    for wrong, kind, text in ((jax.numpy.ones(3), ValueError, "bias must be"), (jax.numpy.ones(4, int), TypeError, "bias is int32")):
        with pytest.raises(kind, match=text):
            jax.jit(lambda x: breccia.matmul(x, x, transpose_b=True, bias=wrong))(x)


def test_types_that_are_not_exchanged(jax):
    with pytest.raises(TypeError, match="int4"):
        breccia.cast(jax.numpy.ones((2, 32), jax.numpy.int4), MXFP8BlockScaling())
