# SPDX-License-Identifier: Apache-2.0
"""JAX's arrays on a GPU: traced and not, mapped, differentiated, beside arrays of the CPU."""
import os
import warnings
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import breccia

from common import Place, check, everything, tensors

# cpu: for trying this file where there is no GPU. What is compared then is trivially equal.
ON_GPU = os.environ.get("BRECCIA_DEVICE", "cuda") == "cuda"
CPU = jax.devices("cpu")[0]
GPU = jax.devices("cuda")[0] if ON_GPU else CPU


def put(device: Any, x: np.ndarray, dtype: str) -> Any:
    return jax.device_put(x.astype(jnp.dtype(dtype)), device)


# Each shape, type and recipe is a program for XLA's compiler: fewer of them.
place = Place("jax", partial(put, GPU), partial(put, CPU), lambda x: np.asarray(x).tobytes(), lambda x: np.asarray(x).astype(np.float64),
              ("float32", "bfloat16"), lambda x: x.devices() == {GPU}, ((256, 384), (2, 128, 256), (129, 130), (4, 0)))
FEW = ("fp8", "fp8-row", "fp8-block", "fp8-block128", "mxfp8", "mxfp4", "nvfp4", "int8", "int4")


def recipes(*texts: str) -> list[Any]:
    return [breccia.recipes.from_text(text) for text in texts]


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def both(recipe: Any, x: Any) -> Any:
    st = breccia.cast(x, recipe)
    return st, breccia.dequantize(st)


def traced() -> None:
    x = numbers(128, 512)
    there, here = place.there(x, "float32"), place.here(x, "float32")
    for recipe in recipes(*FEW):
        run = jax.jit(partial(both, recipe))
        text = run.lower(there).compile().as_text()
        check(not ON_GPU or ("breccia_cuda_cast" in text and "breccia_cuda_dequantize" in text and "callback" not in text), f"jit: {recipe.text}: kernels")
        want, values = both(recipe, here)
        for _ in range(3):
            got, back = run(there)
            tensors(f"jit: {recipe.text}", got, want, place)
            check(place.content(back) == place.content(values), f"jit: {recipe.text}: values")
        # The same program's source for the other processor.
        got, back = run(here)
        check(got.data.devices() == {CPU} and got == want and place.content(back) == place.content(values), f"jit on the CPU: {recipe.text}")
        stacked = jax.vmap(partial(both, recipe))(place.there(np.stack([x * 3, x]), "float32"))
        tensors(f"vmap: {recipe.text}", jax.tree_util.tree_map(lambda leaf: leaf[1], stacked[0]), want, place)
        looped = jax.jit(lambda x: jax.lax.fori_loop(0, 3, lambda _, x: both(recipe, x)[1], x))(there)
        again = here
        for _ in range(3):
            again = both(recipe, again)[1]
        check(place.content(looped) == place.content(again), f"in a loop: {recipe.text}")


def multiplied() -> None:
    x, w, bias = numbers(128, 512), numbers(256, 512), numbers(256)
    for left, right in (("fp8", "fp8"), ("fp8-row", "fp8-row"), ("fp8-block", "fp8-block128"), ("fp8-block", "fp8-block"), ("mxfp8", "nvfp4")):
        of_x, of_w = recipes(left, right)

        def layer(x: Any, w: Any, bias: Any) -> Any:
            return breccia.matmul(breccia.cast(x, of_x), breccia.cast(w, of_w), jnp.bfloat16, transpose_b=True, bias=bias)

        there = [place.there(side, "float32") for side in (x, w, bias)]
        eager, compiled = layer(*there), jax.jit(layer)(*there)
        check(np.allclose(place.numbers(eager), place.numbers(compiled), rtol=2 ** -7), f"jit: {left} x {right}")
        if ON_GPU and left != "mxfp8":
            check("breccia_cuda_matmul" in jax.jit(layer).lower(*there).compile().as_text(), f"jit: {left} x {right}: the FP8 kernel")
        here = layer(*(place.here(side, "float32") for side in (x, w, bias)))
        check(np.allclose(place.numbers(eager), place.numbers(here), rtol=2 ** -6, atol=0.1), f"{left} x {right} beside the CPU's")


def gradients() -> None:
    x, w = place.there(numbers(128, 512), "float32"), place.there(numbers(256, 512), "float32")
    pull = numbers(128, 256)
    for run in (lambda f: f, jax.jit):
        for recipe in recipes("fp8", "mxfp8", "nvfp4"):
            st = breccia.cast(w, recipe)
            exact = pull.astype(np.float64) @ place.numbers(breccia.dequantize(st))
            got = run(jax.grad(lambda x: (breccia.matmul(x, st, transpose_b=True) * pull).sum()))(x)
            bound = 257 * 2.0 ** -24 * (np.abs(pull.astype(np.float64)) @ np.abs(place.numbers(breccia.dequantize(st))))
            check(place.held(got) and (np.abs(place.numbers(got) - exact) <= bound).all(), f"grad of a product with {recipe.text}")
            value, slope = run(jax.value_and_grad(lambda x: (breccia.cast_ste(x, recipe) ** 2).sum()))(x)
            check(np.allclose(place.numbers(slope), 2 * place.numbers(breccia.dequantize(breccia.cast(x, recipe)))), f"grad of cast_ste: {recipe.text}")


def no_waiting() -> None:
    """A call returns while what it reads is still being computed."""
    if not ON_GPU:
        return

    @jax.jit
    def long(x: Any) -> Any:
        return jax.lax.fori_loop(0, 60, lambda _, y: jnp.matmul(y, x, precision="highest") * 1e-2, x)

    x = place.there(numbers(4096, 4096), "float32")
    for recipe in recipes("fp8-row", "mxfp4", "nvfp4"):
        jax.block_until_ready(both(recipe, jax.block_until_ready(long(x))))
        late = long(x)
        got, back = both(recipe, late)
        check(not late.is_ready(), f"jax: {recipe.text}: a call waited")
        want, values = both(recipe, jax.device_put(late, CPU)[:256])
        if recipe.text != "nvfp4":                                               # whose second level is the whole tensor's
            check(place.content(got.data[:256]) == place.content(want.data) and place.content(back[:256]) == place.content(values), f"jax: {recipe.text}: too early")


def missing() -> None:
    """What there is no kernel for comes from the CPU, and is said."""
    x = numbers(64, 256)
    recipe = breccia.MXINT8BlockScaling()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for run in (lambda f: f, jax.jit):
            got = run(lambda x: breccia.cast(x, recipe))(place.there(x, "float32"))
            check(place.content(got.data) == place.content(breccia.cast(place.here(x, "float32"), recipe).data), "a cast without a kernel")
    check(sum("the GPU has no cast" in str(warning.message) for warning in said) == (1 if ON_GPU else 0), "what has no kernel is said once", said)


def run() -> None:
    everything(place)
    for part in (traced, multiplied, gradients, missing, no_waiting):
        before = check.made, check.failed
        part()
        print(f"jax {part.__name__}: {check.made - before[0]} comparisons, {check.failed - before[1]} wrong", flush=True)
