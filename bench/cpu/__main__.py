# SPDX-License-Identifier: Apache-2.0
"""`make bench-cpu`: python bench/cpu [--quick] [--threads 1,2] [--rounds 15] [--no-peers] [--only WORD,WORD]"""
import argparse
import importlib
import os
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent)]
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", "/tmp/torchinductor_bench_cpu")     # compiled peers are found again

import contest        # noqa: E402

MODULES = ("casts", "products", "integer_products")      # those that exist


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="4 M elements, 5 rounds: does it run at all")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--only", default="", help="rows whose names hold one of these words")
    given = parser.parse_args()
    words = [word for word in given.only.split(",") if word]
    described, flags = contest.features()
    print(described)
    for wanted in ("avx512f", "avx512_vnni"):
        if wanted not in flags:
            print(f"This machine has no {wanted}: rows that need it claim nothing.")
    here = Path(__file__).resolve().parent
    modules = [importlib.import_module(name) for name in MODULES if (here / f"{name}.py").exists()]
    for threads in map(int, given.threads.split(",")):
        if threads > len(os.sched_getaffinity(0)):
            print(f"{threads} threads: this machine has {len(os.sched_getaffinity(0))} processors, left out")
            continue
        run = contest.Contest(threads, 4 << 20 if given.quick else contest.JUDGED, given.rounds or (5 if given.quick else 15), not given.no_peers)
        run.all(modules, words)


main()
