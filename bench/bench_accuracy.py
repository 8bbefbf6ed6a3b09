# SPDX-License-Identifier: Apache-2.0
"""Accuracy of every recipe: cosine and SQNR of dequantize(cast(x)) against x, mean over seeds.

    python bench/bench_accuracy.py [--seeds 8] [--rows 256] [--cols 1024] [--json file]

Inputs: Gaussian, and heavy-tailed (Student's t with 3 degrees of freedom), with a few columns 30 times as large as an
outlier-ridden activation has. Both numbers are computed in float64.
"""
import argparse
import json

import numpy as np

import breccia
from breccia import recipes

# Every recipe of the C table, and what its parameters change.
RECIPES = sorted([*breccia._c.RECIPES, "fp8:format=e5m2", "mxfp8:format=e5m2", "mxfp8:rule=floor", "mxfp4:rule=floor", "nvfp4:levels=1",
                  "int8:rule=minmax", "int4:group=32", "int4:format=uint4,rule=minmax"])


def gaussian(rng, shape):
    return rng.standard_normal(shape).astype(np.float32)


def heavy_tailed(rng, shape):
    x = rng.standard_t(3, shape).astype(np.float32)
    x[:, rng.choice(shape[1], max(1, shape[1] // 256), replace=False)] *= 30
    return x


INPUTS = {"gaussian": gaussian, "heavy-tailed": heavy_tailed}


def measure(text, make, seeds, shape):
    """Mean cosine, mean SQNR in dB, bits stored per element."""
    recipe, found = recipes.from_text(text), []
    for seed in range(seeds):
        x = make(np.random.default_rng(seed), shape)
        st = breccia.cast(x, recipe)
        a, b = x.astype(np.float64).ravel(), breccia.dequantize(st).astype(np.float64).ravel()
        found.append((a @ b / np.sqrt((a @ a) * (b @ b)), 10 * np.log10((a @ a) / ((a - b) @ (a - b))), 8 * st.nbytes / a.size))
    return [float(column) for column in np.mean(found, 0)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--cols", type=int, default=1024)
    parser.add_argument("--json")
    args = parser.parse_args()
    results = {text: {name: measure(text, make, args.seeds, (args.rows, args.cols)) for name, make in INPUTS.items()} for text in RECIPES}
    print(f"breccia {breccia.__version__}, [{args.rows}, {args.cols}] float32, mean over {args.seeds} seeds")
    print(f"{'recipe':32s} {'bits':>6s}" + "".join(f" {name + ' cosine':>20s} {'SQNR dB':>8s}" for name in INPUTS))
    for text, row in results.items():
        print(f"{text:32s} {row['gaussian'][2]:6.2f}" + "".join(f" {row[name][0]:20.6f} {row[name][1]:8.2f}" for name in INPUTS))
    if args.json:
        with open(args.json, "w") as file:
            json.dump(results, file, indent=1)


main()
