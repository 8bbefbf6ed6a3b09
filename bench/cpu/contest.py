# SPDX-License-Identifier: Apache-2.0
"""The harness of bench/cpu: breccia, the machine's limits and the peers in turns, in one run; medians, ratios, bars.

A row is one line of the table. To add some, write a module with ROWS = {"F32 -> E4M3": make, ...}, name it in MODULES of __main__.py:

    def make(c):                                   # c: this Contest; c.threads, c.size are what the run is about
        x = c.array((m, n), np.float32)            # page-aligned, every page touched, filled with normal numbers
        return Row(amount=bytes, unit="GB/s", ours=lambda: call(),
                   limits=c.skeleton(x, out_bytes), bar=0.88,           # or limits={"FMA": c.peak("fma")}
                   peers=c.peers(**{"torch copy_": maker}), peer_bar=2.0,   # what cannot be had: not there, why in notes
                   recorded="torch.compile 2.7 / 4.8", notes=[])

A contestant is a callable without arguments that writes into memory supplied to it; an attribute .amount overrides the row's. A row
is made when its turn comes, and its memory goes before the next one's is taken. Every round times each contestant once; a ratio is the
median over rounds of the ratio inside a round. One thread is timed in processor time, which other processes disturb less; several in
wall time. Contestants that are slow are called fewer times.
"""
import ctypes
import dataclasses
import datetime
import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("BRECCIA_BUILD") or ROOT / "build").resolve()
sys.path[:0] = [str(ROOT / "tests")]

import breccia_c as brc          # noqa: E402  the library of $BRECCIA_BUILD, as the tests call it

JUDGED = 64 << 20              # elements that a cast must have for its bars to count
RECORDED = "recorded 2026-11, another AVX-512/VNNI server of 2 cores"
SLOW = 0.25                      # seconds a call: such contestants sit out two rounds of three


@dataclasses.dataclass
class Row:
    amount: float                 # bytes or operations of one call
    unit: str                     # "GB/s", "GFLOP/s", "GOP/s"
    ours: object
    limits: dict = dataclasses.field(default_factory=dict)       # {name: callable, or callable with .amount}; the fastest is the limit
    bar: float | None = None      # wanted share of the limit
    peers: dict = dataclasses.field(default_factory=dict)
    peer_bar: float | None = None
    recorded: str = ""            # peers' figures of the issue, where none runs here
    notes: list = dataclasses.field(default_factory=list)


class Peak:
    """An arithmetic limit: a call of about 10 ms."""

    def __init__(self, lib, name, threads):
        operations = getattr(lib, f"limits_{name}_operations")()
        self.call, self.threads = getattr(lib, f"limits_{name}"), threads
        start = time.perf_counter()
        self.call(100_000, 1)
        self.iterations = int(100_000 * 0.01 / (time.perf_counter() - start))
        self.amount = operations * self.iterations * threads

    def __call__(self):
        self.call(self.iterations, self.threads)


def features():
    """What decides the figures, as Linux tells it."""
    text = Path("/proc/cpuinfo").read_text()
    field = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in text.splitlines())}
    flags = set(field.get("flags", field.get("Features", "")).split())
    known = ("avx2", "avx512f", "avx512_vnni", "avx512vbmi", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16", "asimd", "asimddp")
    model = f"{field.get('model name', 'unknown processor')}, family {field.get('cpu family')}, model {field.get('model')}"
    return f"{model}; {os.cpu_count()} processors; " + ", ".join(f"{f}{'' if f in flags else ': no'}" for f in known[:8] if "flags" in field or f in flags), flags


class Contest:
    def __init__(self, threads, size, rounds, with_peers=True):
        self.threads, self.size, self.rounds, self.with_peers = threads, size, rounds, with_peers
        self.lib = ctypes.CDLL(str(BUILD / "bench" / "liblimits.so"))
        self.lib.limits_move.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_int]
        for name in ("limits_fma", "limits_dot"):
            getattr(self.lib, name).argtypes = [ctypes.c_int64, ctypes.c_int]
            getattr(self.lib, name + "_operations").restype = ctypes.c_int64
        self.pool = ThreadPoolExecutor(threads)
        self.done = []

    # ------------------------------------------------------------------------------------------ what rows are made of

    def array(self, shape, dtype=np.uint8, fill=True):
        """Aligned memory whose pages are there; random normal numbers where `fill`, else zeros."""
        dtype = np.dtype(dtype)
        n = int(np.prod(shape))
        raw = np.empty(n * dtype.itemsize + 4096, np.uint8)
        raw[:] = 0
        start = -raw.ctypes.data % 4096
        out = raw[start:start + n * dtype.itemsize].view(dtype)
        if fill and dtype.kind != "u":
            block = np.random.default_rng(0).standard_normal(min(n, 1 << 20), dtype=np.float32)
            for i in range(0, n, block.size):
                out[i:i + block.size] = block[:n - i]
        return out.reshape(shape)

    def move(self, x, out, reads=1, streaming=1):
        """Skeleton: x read, out written, no arithmetic."""
        return lambda: self.lib.limits_move(x.ctypes.data, x.nbytes, reads, out.ctypes.data, out.nbytes, streaming, self.threads)

    def skeleton(self, x, out_bytes, reads=1):
        """The two ways of writing: the faster one is the limit."""
        out = self.array(int(out_bytes) // 64 * 64)
        return {"streamed": self.move(x, out, reads, 1), "stored": self.move(x, out, reads, 0)}

    def peak(self, name):
        return Peak(self.lib, name, self.threads)

    def peers(self, **makers):
        """{name: call} of the makers that can make one here; a maker returns a call, and what it raises becomes a note of the row."""
        made = {}
        for name, maker in makers.items() if self.with_peers else ():
            try:
                made[name] = maker()
            except Exception as error:
                made[name] = error
        return made

    def split(self, function, n):
        """function(first, last) over n rows, shared by the threads: for libraries that have none of their own."""
        if self.threads == 1:
            return lambda: function(0, n)
        ends = [n * i // self.threads for i in range(self.threads + 1)]
        return lambda: list(self.pool.map(function, ends[:-1], ends[1:]))

    # ------------------------------------------------------------------------------------------------------ the contest

    def time_of(self, call):
        clock = time.process_time if self.threads == 1 else time.perf_counter
        start = clock()
        call()
        return clock() - start

    def run(self, name, row):
        calls = {("ours", ""): row.ours, **{("limit", k): v for k, v in row.limits.items()}, **{("peer", k): v for k, v in row.peers.items()}}
        failed = []
        for key, call in list(calls.items()):
            try:
                if isinstance(call, Exception):
                    raise call
                call()                                    # compiles, touches
            except Exception as error:                    # a peer that cannot run is a fact of the line
                if key[0] != "peer":
                    raise
                failed.append(f"{key[1]} fails: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:80]}")
                del calls[key]
        times = {key: [] for key in calls}
        order = list(calls)
        for i in range(self.rounds):
            turn = order[i % len(order):] + order[:i % len(order)]
            for key in turn[::-1] if i % 2 else turn:     # nobody always follows the one whose stores still fill the caches
                if times[key] and times[key][0] > SLOW and i % 3:
                    continue
                times[key].append(self.time_of(calls[key]))
        speeds = {key: [getattr(calls[key], "amount", row.amount) / t / 1e9 for t in times[key]] for key in calls}
        result = self.judge(row, speeds, failed) | {"name": name}
        self.done.append(result)
        print(self.line(result), flush=True)

    def judge(self, row, speeds, failed):
        def median(key):
            return statistics.median(speeds[key])

        def ratio(key):
            pairs = list(zip(speeds["ours", ""], speeds[key])) if len(speeds[key]) == len(speeds["ours", ""]) else None
            return statistics.median(a / b for a, b in pairs) if pairs else median(("ours", "")) / median(key)

        limits, peers = [k for k in speeds if k[0] == "limit"], [k for k in speeds if k[0] == "peer"]
        limit, peer = max(limits, key=median, default=None), max(peers, key=median, default=None)
        notes = list(row.notes) + failed
        verdicts = []

        def verdict(key, bar):
            return "unjudged" if self.size < JUDGED else "met" if ratio(key) >= bar else "MISSED"
        if row.bar is not None and limit is not None:
            verdicts.append(verdict(limit, row.bar))
        if row.peer_bar is not None and peer is not None:
            verdicts.append(verdict(peer, row.peer_bar))
        elif row.peer_bar is not None:
            verdicts.append("unproven")
            notes.append(f"no peer here; {RECORDED}: {row.recorded}")
        low, high = np.percentile(speeds["ours", ""], [25, 75])
        return {"row": row, "ours": median(("ours", "")), "low": low, "high": high, "limit": limit and (limit[1], median(limit), ratio(limit)),
                "peer": peer and (peer[1], median(peer), ratio(peer)), "verdicts": verdicts, "notes": notes,
                "others": {k[1]: median(k) for k in limits + peers if k not in (limit, peer)}}

    HEAD = ("| work | breccia (quartiles) | limit | share | bar | best peer | times | bar | notes |\n|---|---|---|---|---|---|---|---|---|")

    @staticmethod
    def line(r):
        row, verdicts = r["row"], iter(r["verdicts"])
        share = peer = ("", "", "")
        if r["limit"]:
            share = (f"{r['limit'][0]} {r['limit'][1]:.4g}", f"{r['limit'][2]:.2f}", f"{row.bar} {next(verdicts)}" if row.bar is not None else "")
        if r["peer"]:
            peer = (f"{r['peer'][0]} {r['peer'][1]:.3g}", f"{r['peer'][2]:.2f}", f"{row.peer_bar} {next(verdicts)}" if row.peer_bar is not None else "")
        elif row.peer_bar is not None:
            peer = ("-", "", f"{row.peer_bar} {next(verdicts)}")
        notes = "; ".join([f"{k} {v:.3g}" for k, v in r["others"].items()] + r["notes"])
        return "| " + " | ".join((r["name"], f"{r['ours']:.4g} {row.unit} ({r['low']:.3g}-{r['high']:.3g})", *share, *peer, notes)) + " |"

    def limits_of_machine(self):
        """Copy, read, and the arithmetic peaks, so that every run says on what it ran."""
        x, out = self.array(self.size, np.float32), self.array(self.size * 4)
        read = np.zeros(0, np.uint8)
        calls = {"copy": (self.move(x, out), 2 * x.nbytes), "copy, stored": (self.move(x, out, 1, 0), 2 * x.nbytes),
                 "read": (self.move(x, read), x.nbytes), "FMA": (self.peak("fma"), None), "VNNI": (self.peak("dot"), None)}
        times = {k: [] for k in calls}
        for _ in range(max(5, self.rounds // 2)):
            for k, (call, _) in calls.items():
                times[k].append(self.time_of(call))
        for k, (call, amount) in calls.items():
            found = (amount or call.amount) / statistics.median(times[k]) / 1e9
            print(f"{k}: {found:.4g} {'GB/s' if amount else 'GFLOP/s' if k == 'FMA' else 'GOP/s'}" if found else f"{k}: this machine has none")

    def all(self, modules, only):
        print(f"\n## {self.threads} thread{'s' * (self.threads > 1)}, {datetime.date.today()}, breccia {brc.ffi.string(brc.lib.brc_version()).decode()} "
              f"{brc.ffi.string(brc.lib.brc_isa()).decode()}, {self.size / 2**20:g} M elements, {self.rounds} rounds\n")
        self.limits_of_machine()
        print("\n" + self.HEAD)
        for module in modules:
            for name, make in module.ROWS.items():
                if not only or any(word.lower() in name.lower() for word in only):
                    self.run(name, make(self))
        verdicts = [v for r in self.done for v in r["verdicts"]]
        unjudged = f", {verdicts.count('unjudged')} not judged: bars are for {JUDGED >> 20} M elements, which caches do not hold" if self.size < JUDGED else ""
        print(f"\n{verdicts.count('met')} bars met, {verdicts.count('MISSED')} missed, {verdicts.count('unproven')} unproven{unjudged}")
