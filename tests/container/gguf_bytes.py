# SPDX-License-Identifier: Apache-2.0
"""GGUF files byte by byte, so that every rule can be broken: gguf(pairs, tensors) builds one from the specification."""
import struct

NUMBERS = {"u8": (0, "B"), "i8": (1, "b"), "u16": (2, "H"), "i16": (3, "h"), "u32": (4, "I"), "i32": (5, "i"), "f32": (6, "f"), "bool": (7, "B"),
           "u64": (10, "Q"), "i64": (11, "q"), "f64": (12, "d")}
TYPES = {"F32": (0, 1, 4), "F16": (1, 1, 2), "Q4_0": (2, 32, 18), "I8": (24, 1, 1), "Q8_0": (8, 32, 34), "Q4_K": (12, 256, 144)}


def string(text):
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(kind, x):
    """The type's number and the bytes: kinds of NUMBERS, "str", or ["kind", items] as an array of them."""
    if kind == "str":
        return struct.pack("<I", 8) + string(x)
    if isinstance(kind, list):
        number = 8 if kind[0] == "str" else NUMBERS[kind[0]][0]
        items = b"".join(string(i) if kind[0] == "str" else struct.pack("<" + NUMBERS[kind[0]][1], i) for i in x)
        return struct.pack("<IIQ", 9, number, len(x)) + items
    number, code = NUMBERS[kind]
    return struct.pack("<I" + code, number, x)


def pair(key, kind, x):
    return string(key) + value(kind, x)


def tensor(name, type, shape, offset):
    number = TYPES[type][0] if isinstance(type, str) else type
    return string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], number, offset)


def size(type, shape):
    _, numbers, size = TYPES[type]
    n = 1
    for side in shape:
        n *= side
    return n // numbers * size


def gguf(pairs=(), tensors=(), alignment=32, version=3, counts=None, magic=b"GGUF", tail=True):
    """pairs: bytes of pair(); tensors: (name, type, shape) or bytes of tensor() with none of data."""
    infos, offset, data = b"", 0, b""
    for i, t in enumerate(tensors):
        if isinstance(t, bytes):
            infos += t
            continue
        infos += tensor(*t, offset)
        length = size(*t[1:])
        data = data.ljust(offset, b"\0") + bytes([i + 1]) * length
        offset += -(-length // alignment) * alignment
    head = magic + struct.pack("<IQQ", version, *(counts or (len(tensors), len(pairs)))) + b"".join(pairs) + infos
    head = head.ljust(-(-len(head) // alignment) * alignment, b"\0") if tensors else head
    return head + (data.ljust(offset, b"\0") if tail else data)
