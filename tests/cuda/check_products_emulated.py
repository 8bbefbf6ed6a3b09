#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The product kernels, run on this processor (emulated/): every row of the kernel table once with integers, bit for bit, and
once with normal data where K is split or rows are few; several products of each grouping. Needs torch.
check_products_emulated.py LIBRARY_OF_EMULATED_KERNELS"""
import os
import sys

os.environ.update(BRECCIA_DEVICE="cpu", BRECCIA_CUDA=os.path.abspath(sys.argv[1]))

import torch  # noqa: E402

import check_groups  # noqa: E402
from check_products import Case, brc, check  # noqa: E402

MODES = ((brc.TENSOR, brc.FAST), (brc.ROW, 0), (brc.BLOCK, 0), (brc.BLOCK_ROWS, 0))


def main():
    torch.set_num_threads(1)
    table, failures, ran = brc.rows_of_table(), [], 0

    def note(what, results):
        nonlocal ran
        here = [r for r in results if r is not None]
        ran += len(here)
        failures.extend(f"{what}: {r}" for r in here if r)
        print(f"{what}: {len(here)} ran, {sum(bool(r) for r in here)} wrong", flush=True)
        return len(here)

    whole = Case(70, 200, 400, integers=True)
    for scaling, flags in MODES:
        note(f"one product, scaling {scaling}", [check(whole, scaling, (torch.bfloat16, torch.float32)[row % 2], flags, row, bias=row % 3 == 0) for row in range(table)])
    few = Case(5, 1000, 300)                                 # K in two uneven parts, several heights of rows
    for scaling in (brc.TENSOR, brc.BLOCK):
        rows = [row for row in range(table) if (p := brc.planned(few.product(scaling, torch.empty(5, 1000)), row)) is not None and (p.rows or p.cluster > 1 or "beside" in str(p))]
        note(f"few rows, scaling {scaling}", [check(few, scaling, torch.bfloat16, brc.B_UNCHANGED, row) for row in rows])
    note("plain kernel", [check(Case(70, 33, 50), s, torch.float32) for s in range(4)])
    sizes = [70, 0, 129, 1]
    for grouping, name in enumerate(("batch", "masked", "ragged", "indexed"), brc.BATCH):
        c = check_groups.Groups(grouping, [130] * 2 if grouping == brc.BATCH else sizes, 72, 144, integers=True)
        done = note(name, [check_groups.check(c, s, (torch.bfloat16, torch.float32)[row % 2], f, row) for s, f in MODES for row in range(table)])
        if not done:
            failures.append(f"{name}: no kernel")
        plain = check_groups.Groups(grouping, [130] * 2 if grouping == brc.BATCH else sizes, 33, 50)
        note(f"{name}, plain kernel", [check_groups.check(plain, s, torch.bfloat16, 0, None) for s in range(4)])
    for line in failures[:20]:
        print(line)
    print(f"emulated products: {ran} ran,", "WRONG" if failures else "right")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
