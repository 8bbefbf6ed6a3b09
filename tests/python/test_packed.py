# SPDX-License-Identifier: Apache-2.0
"""breccia.pack: the products of a packed weight are those of the weight, by NumPy in double; whatever library the activations are of."""
import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from recipes_list import ALL, IDS
from test_matmul import within

import breccia
from breccia import Float8BlockScaling, INT4Scaling, INT8Scaling, MXFP8BlockScaling, NVFP4BlockScaling

RNG = np.random.default_rng(17)


def numbers(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("recipe", ALL, ids=IDS)
def test_every_recipe(recipe):
    """Plain and scaled activations; the weight as [N, K] and as [K, N]."""
    weight, x = breccia.cast(numbers(96, 256), recipe), numbers(5, 256)
    values = breccia.dequantize(weight)
    packed = breccia.pack(weight, transpose=True)
    assert packed.shape == (256, 96) and packed.ndim == 2
    within(breccia.matmul(x, packed), x, values.T)
    within(breccia.matmul(x[:, :96], breccia.pack(weight)), x[:, :96], values)
    a = breccia.cast(x, MXFP8BlockScaling())
    within(breccia.matmul(a, breccia.pack(weight, MXFP8BlockScaling(), transpose=True)), breccia.dequantize(a), values.T)


@pytest.mark.parametrize("recipe", [INT8Scaling(), INT4Scaling(32), NVFP4BlockScaling(), breccia.MXFP4BlockScaling(), breccia.GGMLScaling()], ids=lambda r: r.text)
def test_integers_are_multiplied_as_integers(recipe):
    weight, a = breccia.cast(numbers(70, 256), recipe), breccia.cast(numbers(9, 256), INT8Scaling())
    packed = breccia.pack(weight, INT8Scaling(), transpose=True)
    assert packed.kind == "integers" and packed.nbytes < 4 * 70 * 256
    within(breccia.matmul(a, packed), breccia.dequantize(a), breccia.dequantize(weight).T)
    with pytest.raises(NotImplementedError, match="not for a's activations"):
        breccia.matmul(numbers(9, 256), packed)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_torch(torch, dtype):
    """Against torch's own product in double, in each type of activations and of output."""
    kind = getattr(torch, dtype)
    weight, bias = breccia.cast(torch.from_numpy(numbers(64, 128)), Float8BlockScaling()), torch.from_numpy(numbers(64))
    x = torch.from_numpy(numbers(3, 7, 128)).to(kind)
    packed = breccia.pack(weight, kind, transpose=True)
    exact = torch.nn.functional.linear(x.double(), breccia.dequantize(weight).double(), bias.double())
    size = torch.nn.functional.linear(x.double().abs(), breccia.dequantize(weight).double().abs(), bias.double().abs())
    for out, half in ((torch.float32, 2.0**-24), (torch.float16, 2.0**-11), (torch.bfloat16, 2.0**-8)):
        got = breccia.matmul(x, packed, out, bias=bias)
        assert isinstance(got, torch.Tensor) and got.dtype == out and got.shape == (3, 7, 64)
        assert ((got.double() - exact).abs() <= 129 * 2.0**-24 * size + half * exact.abs() + 2.0**-25).all()


def test_plain_weights_and_other_libraries(torch, jax, mx):
    w, x = numbers(48, 32), numbers(4, 32)
    for weight in (w, torch.from_numpy(w), jax.numpy.asarray(w), mx.array(w), torch.from_numpy(w).bfloat16()):
        values = weight.float().numpy() if weight.dtype == torch.bfloat16 else w
        packed = breccia.pack(weight, transpose=True)
        for a in (x, torch.from_numpy(x), jax.numpy.asarray(x)):
            got = breccia.matmul(a, packed)
            assert type(got).__module__.split(".")[0] == type(a).__module__.split(".")[0]
            within(np.asarray(got), x, values.T)
    with pytest.raises(TypeError, match="no gradient"):                  # whether one is recorded MLX does not tell
        breccia.matmul(mx.array(x), packed)


@pytest.mark.parametrize("left, right, out", [((3, 4, 128), (3, 128, 5), (3, 4, 5)), ((3, 4, 128), (128, 5), (3, 4, 5)), ((4, 128), (3, 128, 5), (3, 4, 5)),
                                              ((0, 128), (128, 5), (0, 5)), ((4, 128), (128, 0), (4, 0)), ((4, 0), (0, 5), (4, 5))])
def test_batches_and_edges(left, right, out):
    a, b = numbers(*left), numbers(*right)
    got = breccia.matmul(a, breccia.pack(b))
    assert got.shape == out
    within(got, np.broadcast_to(a, (*out[:-2], *left[-2:])), b)
    within(breccia.matmul(np.ascontiguousarray(a.swapaxes(-1, -2)), breccia.pack(b.swapaxes(-1, -2), transpose=True), transpose_a=True),
           np.broadcast_to(a, (*out[:-2], *left[-2:])), b)


def test_the_weight_is_not_needed_afterwards():
    weight, x = breccia.cast(numbers(64, 128), NVFP4BlockScaling()), numbers(2, 128)
    packed, want = breccia.pack(weight, transpose=True), breccia.dequantize(weight)
    weight.data[...] = 0
    weight.scale[...] = 0
    within(breccia.matmul(x, packed), x, want.T)


def test_threads_change_nothing():
    """Neither those that pack nor those that multiply, nor several callers at one time."""
    weight, x = breccia.cast(numbers(200, 256), MXFP8BlockScaling()), numbers(33, 256)
    want = breccia.matmul(x, breccia.pack(weight, transpose=True, threads=1), threads=1)
    packed = breccia.pack(weight, transpose=True, threads=3)
    with ThreadPoolExecutor(8) as pool:
        for got in pool.map(lambda n: breccia.matmul(x, packed, threads=n % 4), range(64)):
            assert got.tobytes() == want.tobytes()


def test_what_it_is():
    packed = breccia.pack(numbers(8, 16))
    assert repr(packed) == f"breccia.PackedWeight(shape=(8, 16), kind='f32', nbytes={packed.nbytes})" and packed.nbytes >= 4 * 8 * 16
    with pytest.raises(AttributeError, match="frozen"):
        packed.shape = (1, 2)
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="save the weight, and pack it again"):
            way(packed)
    with pytest.raises(TypeError):
        packed @ packed
    for _ in range(3000):                                                # 4 MiB each, if it were kept
        breccia.pack(np.ones((1024, 1024), np.float32)) if _ % 300 == 0 else breccia.pack(np.ones((8, 8), np.float32))


@pytest.mark.parametrize("call, kind, text", [
    (lambda w, p: breccia.pack([[1.0]]), TypeError, "an array of NumPy"), (lambda w, p: breccia.pack(np.ones((4, 4), np.int8)), TypeError, "weight is int8"),
    (lambda w, p: breccia.pack(np.ones(4, np.float32)), ValueError, "at least 2 dimensions"), (lambda w, p: breccia.pack(p), TypeError, "an array of NumPy"),
    (lambda w, p: breccia.pack(w, "int8"), TypeError, "activations must be"), (lambda w, p: breccia.pack(w, np.int8), TypeError, "activations must be"),
    (lambda w, p: breccia.pack(w, threads=-1), ValueError, "threads"), (lambda w, p: breccia.matmul(p, w), TypeError, "the right side"),
    (lambda w, p: breccia.matmul(w, p, transpose_b=True), ValueError, "when it is packed"), (lambda w, p: breccia.matmul(w, p, np.int8), TypeError, "dtype must be"),
    (lambda w, p: breccia.matmul(np.ones((2, 5), np.float32), p), ValueError, "shape mismatch"),
    (lambda w, p: breccia.matmul(w, p, bias=np.ones(3, np.float32)), ValueError, "shape mismatch: bias"),
    (lambda w, p: breccia.matmul(np.ones((4, 4), np.int8), p), TypeError, "f64, f32, f16 or bf16"), (lambda w, p: breccia.dequantize(p), TypeError, "ScaledTensor is needed"),
    (lambda w, p: breccia._c.Packed(w, False, "e9", 0), ValueError, "no format 'e9'"), (lambda w, p: breccia._c.Packed(w, False, "bool", 0), TypeError, "a format of numbers"),
])
def test_errors(call, kind, text):
    w = np.ones((4, 4), np.float32)
    with pytest.raises(kind, match=text):
        call(w, breccia.pack(w))


def test_no_gradient_and_no_tracing(torch, jax):
    w = torch.ones(32, 32)
    packed, x = breccia.pack(w), torch.ones(2, 32, requires_grad=True)
    with pytest.raises(TypeError, match="no gradient.*no_grad"):
        breccia.matmul(x, packed)
    with torch.no_grad():
        assert (breccia.matmul(x, packed) == 32).all()
    with pytest.raises(TypeError, match="cannot be traced"):
        jax.jit(lambda x: breccia.matmul(x, packed))(jax.numpy.ones((2, 32)))
    with pytest.raises(Exception, match="cannot be traced"):
        torch.compile(lambda x: breccia.matmul(x, packed), fullgraph=True, backend="eager")(x.detach())
