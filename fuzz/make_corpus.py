#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Seeds of the fuzzers: make_corpus.py FOLDER [safetensors_cases.json]. The golden cases where they are given, and files that
use every rule of the header once."""
import base64
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from container import gguf_bytes  # noqa: E402

folder = Path(sys.argv[1])
bits = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "F8_E4M3": 8, "F8_E8M0": 8, "BF16": 16, "F32": 32, "C64": 64, "U64": 64}


def blob(header, size):
    header = header.encode()
    return len(header).to_bytes(8, "little") + header + bytes(size)


def entries(*made):
    header, at = {"__metadata__": {"format": "pt", "k\"\n": "\U0001f5ff"}}, 0
    for name, dtype, shape in made:
        size = bits[dtype]
        for d in shape:
            size *= d
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size // 8]}
        at += size // 8
    return header, at


files = {}
for i, dtype in enumerate(bits):
    header, size = entries(("", dtype, [4, 2]), ("é\n", dtype, [0, 3]), (f"t{i}", dtype, [8]))
    for indent in (None, 1):
        files[f"{dtype}-{indent}"] = blob(json.dumps(header, indent=indent), size)
header, size = entries(*((f"layers.{i}.weight", "BF16", [1]) for i in range(40)))
header["layers.0.weight"]["x"] = [1.5e3, -1, None, True, {"y": ["\\u0041"]}]
files["many"] = blob(json.dumps(header), size)
files["null"] = blob('{"__metadata__":null}', 0)
if len(sys.argv) > 2:
    for name, case in json.loads(Path(sys.argv[2]).read_text())["cases"].items():
        files[f"golden-{name}"] = base64.b64decode(case["file"])
indexes = {
    "two": {"metadata": {"total_size": 8}, "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}},
    "below": {"weight_map": {"a": "sub/x", "é": "sub/.../y", "\n": "..x"}, "x": [None, 1.5]},
    "out": {"weight_map": {"a": "../x"}},
    "size": {"metadata": {"total_size": 1e10, "x": {}}, "weight_map": {}},
}
pairs = [gguf_bytes.pair("general.alignment", "u32", 64), *(gguf_bytes.pair(k, k, 1) for k in gguf_bytes.NUMBERS)]
lists = [gguf_bytes.pair("s", "str", "text"), gguf_bytes.pair("l", ["str"], ["a", "", "ccc"]), gguf_bytes.pair("n", ["f32"], [1, 2])]
tensors = [(f"t{i}", t, (2, gguf_bytes.TYPES[t][1])) for i, t in enumerate(gguf_bytes.TYPES)]
ggufs = {"pairs": gguf_bytes.gguf(pairs, tensors, 64), "lists": gguf_bytes.gguf(lists, tensors[:2]), "bare": gguf_bytes.gguf(),
         "two": gguf_bytes.gguf(lists, tensors[2:], version=2)}
for kind, made in (("gguf", ggufs), ("safetensors", files), ("index", {n: json.dumps(v).encode() for n, v in indexes.items()})):
    (folder / kind).mkdir(parents=True, exist_ok=True)
    for name, raw in made.items():
        (folder / kind / name).write_bytes(raw)
