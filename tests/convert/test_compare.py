# SPDX-License-Identifier: Apache-2.0
"""The figures of compare against NumPy's, in double."""
import ml_dtypes
import numpy as np
import pytest

import breccia_c as brc
import checkpoint_files as files

TYPES = [np.float32, np.float16, ml_dtypes.bfloat16, np.float64]


def figures(a, b):
    """What brc_difference says, by NumPy in extended precision: its range is that of squares of doubles."""
    a, b = a.astype(np.longdouble).ravel(), b.astype(np.longdouble).ravel()
    pair = np.isfinite(a) & np.isfinite(b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    left_out, n = int((~pair & ~same).sum()), len(same)
    a, b = a[pair], b[pair]
    noise, signal = ((a - b) ** 2).sum(), (a * a).sum()
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        relative = np.abs(a - b)[a != 0] / np.abs(a[a != 0])
        norms = np.sqrt(signal) * np.sqrt((b * b).sum())
        figures = dict(sqnr=float(10 * np.log10(signal / noise)) if noise else np.inf, cosine=float((a * b).sum() / norms) if norms else (0.0 if noise else 1.0),
                       max_absolute=float(np.abs(a - b).max(initial=0)), max_relative=float(relative.max(initial=0)))
        if left_out:
            figures = dict(sqnr=-np.inf, cosine=np.nan, max_absolute=np.inf, max_relative=np.inf)
        elif n == 0:
            figures.update(sqnr=np.nan, cosine=np.nan)
        least = np.finfo(np.float64).smallest_subnormal
        return dict(signal=max(float(signal), least) if signal else 0.0, noise=max(float(noise), least) if noise else 0.0,
                    flushed=int(((a != 0) & (b == 0)).sum()), nonfinite=left_out, elements=n, **figures)


def check(got, want):
    for name, value in want.items():
        if isinstance(value, int):
            assert getattr(got, name) == value, name
        else:
            np.testing.assert_allclose(getattr(got, name), value, rtol=1e-11, err_msg=name)


@pytest.mark.parametrize("right", TYPES)
@pytest.mark.parametrize("left", TYPES)
def test_plain_tensors_of_every_type(tmp_path, left, right):
    rng = np.random.default_rng(1)
    a = rng.standard_normal((70, 123)).astype(left)
    b = (a.astype(np.float64) * (1 + 1e-3 * rng.standard_normal(a.shape))).astype(right)
    b[3, :5] = 0
    files.write(tmp_path / "a.safetensors", {"w": a})
    files.write(tmp_path / "b.safetensors", {"w": b})
    differences, missing, total = files.compare(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert not missing and not differences["w"].quantized
    check(differences["w"], figures(a, b))
    check(total, figures(a, b))


EDGES = {
    "equal": ([1, 2, 3], [1, 2, 3]), "zeros": ([0, 0], [0, 0]), "signal of zero": ([0, 0], [1, -1]), "lost": ([1, 1], [0, 0]), "empty": ([], []),
    "equal NaN and infinity": ([np.nan, np.inf, -np.inf, 1], [np.nan, np.inf, -np.inf, 1]), "NaN on one side": ([np.nan, 1, 2], [1, np.nan, 2]),
    "infinity of the other sign": ([np.inf, 1], [-np.inf, 1]), "tiny": ([1e-40, 2e-40], [1e-40, 1e-40]), "huge": ([3e38, 3e38], [3e38, 1e38]),
    "signed zero": ([0.0, -0.0], [-0.0, 0.0]),
}


@pytest.mark.parametrize("case", EDGES)
def test_edges(tmp_path, case):
    a, b = (np.array(x, np.float32) for x in EDGES[case])
    files.write(tmp_path / "a.safetensors", {"w": a})
    files.write(tmp_path / "b.safetensors", {"w": b})
    differences, _, _ = files.compare(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    check(differences["w"], figures(a, b))


@pytest.mark.parametrize("recipe", ["fp8", "fp8-row", "mxfp4:rule=floor", "mxfp6-e3m2", "nvfp4", "int4:group=32", "int4:format=int3,group=16", "int8:rule=minmax"])
def test_saturated_and_flushed_elements_of_a_quantized_tensor(tmp_path, recipe):
    rng = np.random.default_rng(9)
    arrays = {"w": (rng.standard_normal((70, 75)) * np.exp(rng.standard_normal((70, 1)) * 3)).astype(np.float32), "norm.weight": np.ones(5, np.float32)}
    a = files.write(tmp_path / "a.safetensors", arrays)
    files.quantize(a, tmp_path / "b.safetensors", recipe)
    with files.Checkpoint(tmp_path / "b.safetensors") as c:
        tensor = c["w"].tensor()
        values, info = c["w"].values(), brc.lib.brc_format_get(tensor.c.format)
        codes = np.stack([brc.decode(tensor.c.format, row, 75) for row in tensor.data])
    differences, missing, total = files.compare(a, tmp_path / "b.safetensors")
    at_end = (codes >= info.max) | (codes <= info.min)
    want = figures(arrays["w"], values)
    want["saturated"] = int((at_end & (np.abs(arrays["w"].astype(np.float64)) > np.abs(values.astype(np.float64)))).sum())
    assert not missing and differences["w"].quantized and differences["norm.weight"].sqnr == np.inf
    check(differences["w"], want)
    check(total, want)                   # the total is of the quantized tensors alone
    for threads in (1, 3):
        again, _, _ = files.compare(a, tmp_path / "b.safetensors", threads=threads)
        assert vars(again["w"]) == vars(differences["w"])


def test_what_only_one_side_has_and_what_cannot_be_subtracted(tmp_path):
    files.write(tmp_path / "a.safetensors", {"a.10": np.ones(1, np.float32), "a.9": np.ones(1, np.float32), "shape": np.ones((2, 3), np.float32),
                                             "mask": np.array([True, False]), "same": np.array([True]), "ids": np.array([1, 2, 2 ** 60])})
    files.write(tmp_path / "b.safetensors", {"b": np.ones(1, np.float32), "a.10": np.ones(1, np.float32), "shape": np.ones((3, 2), np.float32),
                                             "mask": np.array([True, True]), "same": np.array([True]), "ids": np.array([1, 2, 2 ** 60 + 1])})
    differences, missing, total = files.compare(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert missing == {"a.9": "only in the first", "b": "only in the second", "ids": "the bytes differ", "mask": "the bytes differ", "shape": "the shapes differ: [2,3], [3,2]"}
    assert list(missing) == ["a.9", "b", "ids", "mask", "shape"] and list(differences) == ["a.10", "same"]
    assert differences["same"].noise == 0 and total.elements == 2


WIDE = {
    "tiny": ([1e-300, 2e-300, 0], [1e-300, 1e-300, 1e-308]), "subnormal": ([5e-324, 1e-310], [0, 1e-310]), "huge": ([1e300, -1e300], [1e300, 1e299]),
    "huge and tiny": ([1e300, 1e-300, 1], [1e300, 2e-300, 1]), "tiny noise": ([1, 0], [1, 1e-200]), "ends": ([1.7e308, 1e-308], [1.6e308, 5e-324]),
    "orthogonal": ([1e200, 0], [0, 1e-200]), "opposite": ([1e200, 1], [-1e200, -1]),
}


@pytest.mark.skipif(np.finfo(np.longdouble).maxexp <= 1024, reason="long double has no more range than double here")
@pytest.mark.parametrize("case", WIDE)
def test_doubles_whose_squares_leave_the_range(tmp_path, case):
    a, b = (np.array(x, np.float64) for x in WIDE[case])
    files.write(tmp_path / "a.safetensors", {"w": a})
    files.write(tmp_path / "b.safetensors", {"w": b})
    differences, _, total = files.compare(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    check(differences["w"], figures(a, b))
    check(total, figures(a, b))
    assert differences["w"].noise > 0 and np.isfinite(differences["w"].sqnr)


def test_what_is_not_finite_is_never_perfect(tmp_path):
    ones = np.ones((4, 4), np.float32)
    files.write(tmp_path / "a.safetensors", {"v": ones, "w": ones})
    files.write(tmp_path / "b.safetensors", {"v": ones, "w": np.full((4, 4), np.nan, np.float32)})
    for pair in ("ab", "ba"):
        differences, _, total = files.compare(*(tmp_path / f"{name}.safetensors" for name in pair))
        assert differences["v"].sqnr == np.inf and differences["w"].nonfinite == total.nonfinite == 16
        for d in (differences["w"], total):
            assert d.sqnr == -np.inf and np.isnan(d.cosine) and d.max_absolute == d.max_relative == np.inf


def test_nothing_compared_has_no_figures(tmp_path):
    a = files.write(tmp_path / "a.safetensors", {"a": np.ones(1, np.float32)})
    b = files.write(tmp_path / "b.safetensors", {"b": np.ones(1, np.float32)})
    _, _, total = files.compare(a, b)
    assert total.elements == 0 and np.isnan(total.sqnr) and np.isnan(total.cosine)


# recipe, shape: slabs that end within a matrix, and within a row of matrices; blocks of several rows
SLABS = [("fp8-block128", (5000, 1100)), ("int8:block=tensor", (3, 3000, 700)), ("int4:group=32", (3, 2100, 1200)), ("nvfp4:block=16x16", (4111, 1040)),
         ("int4:format=uint4,rule=minmax,group=32", (2, 2500, 1024)), ("custom:format=e2m1,scale=f16,block=4x32,rule=amax,arith=div", (4099, 1056))]


@pytest.mark.parametrize("recipe, shape", SLABS)
def test_a_tensor_of_several_slabs(tmp_path, recipe, shape):
    rng = np.random.default_rng(4)
    w = (rng.standard_normal(shape) * np.exp(rng.standard_normal((*shape[:-1], 1)))).astype(np.float32)
    a = files.write(tmp_path / "a.safetensors", {"w": w})
    files.quantize(a, tmp_path / "b.safetensors", recipe, include=["w"])
    with files.Checkpoint(tmp_path / "b.safetensors") as c:
        values = c["w"].values()
        assert c.verify() == []
    differences, _, _ = files.compare(a, tmp_path / "b.safetensors")
    check(differences["w"], figures(w, values))


def test_what_cannot_be_read_is_not_compared(tmp_path):
    a = files.write(tmp_path / "a.safetensors", {"w": np.ones(1, np.float32)})
    b = files.write(tmp_path / "b.safetensors", {"w.weight": ("F8_E4M3", np.ones((2, 2), np.uint8)), "w.weight_scale_inv": np.ones((9, 9), np.float32)})
    for pair in ((a, b), (b, a)):
        with pytest.raises(brc.Error, match="w.weight"):
            files.compare(*pair)
