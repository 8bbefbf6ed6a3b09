# SPDX-License-Identifier: Apache-2.0
"""Our declarations of XLA's foreign function interface are those of the installed jaxlib: sizes, offsets, numbers."""
import os
import re
import subprocess
from pathlib import Path


STRUCTS = [   # ours, theirs, our fields, their fields
    ("xla_extension", "XLA_FFI_Extension_Base", "size type next", "struct_size type next"),
    ("xla_version", "XLA_FFI_Api_Version", "size extension major minor", "struct_size extension_start major_version minor_version"),
    ("xla_metadata", "XLA_FFI_Metadata", "size version traits state", "struct_size api_version traits state_type_id"),
    ("xla_metadata_extension", "XLA_FFI_Metadata_Extension", "base metadata", "extension_base metadata"),
    ("xla_error_create", "XLA_FFI_Error_Create_Args", "size extension message code", "struct_size extension_start message errc"),
    ("xla_error_destroy", "XLA_FFI_Error_Destroy_Args", "size extension error", "struct_size extension_start error"),
    ("xla_stream_get", "XLA_FFI_Stream_Get_Args", "size extension context stream", "struct_size extension_start ctx stream"),
    ("xla_span", "XLA_FFI_ByteSpan", "text length", "ptr len"),
    ("xla_array", "XLA_FFI_Array", "type count data", "dtype size data"),
    ("xla_buffer", "XLA_FFI_Buffer", "size extension type data rank shape", "struct_size extension_start dtype data rank dims"),
    ("xla_buffers", "XLA_FFI_Args", "size extension count types items", "struct_size extension_start size types args"),
    ("xla_buffers", "XLA_FFI_Rets", "size extension count types items", "struct_size extension_start size types rets"),
    ("xla_attributes", "XLA_FFI_Attrs", "size extension count types names items", "struct_size extension_start size types names attrs"),
    ("xla_frame", "XLA_FFI_CallFrame", "size extension api context stage arguments results attributes future",
     "struct_size extension_start api ctx stage args rets attrs future"),
]
NUMBERS = {
    "XLA_MAJOR": "API_MAJOR", "XLA_MINOR": "API_MINOR", "XLA_EXTENSION_METADATA": "Extension_Metadata",
    "XLA_STAGE_EXECUTE": "ExecutionStage_EXECUTE", "XLA_ATTRIBUTE_ARRAY": "AttrType_ARRAY", "XLA_ATTRIBUTE_STRING": "AttrType_STRING",
    "XLA_INVALID_ARGUMENT": "Error_Code_INVALID_ARGUMENT", "XLA_S8": "DataType_S8", "XLA_S32": "DataType_S32", "XLA_S64": "DataType_S64",
    "XLA_U8": "DataType_U8", "XLA_F16": "DataType_F16", "XLA_F32": "DataType_F32", "XLA_F64": "DataType_F64", "XLA_BF16": "DataType_BF16",
    "XLA_E5M2": "DataType_F8E5M2", "XLA_E4M3": "DataType_F8E4M3FN", "XLA_E5M2FNUZ": "DataType_F8E5M2FNUZ",
    "XLA_E4M3FNUZ": "DataType_F8E4M3FNUZ", "XLA_E8M0": "DataType_F8E8M0FNU",
}


def test_header(jax, root, tmp_path):
    lines = []
    for ours, theirs, fields, names in STRUCTS:
        lines.append(f"static_assert(sizeof({ours}) == sizeof({theirs}), \"{ours}\");")
        lines += [f"static_assert(offsetof({ours}, {a}) == offsetof({theirs}, {b}) && sizeof((({ours} *)0)->{a}) == sizeof((({theirs} *)0)->{b}), "
                  f"\"{ours}.{a}\");" for a, b in zip(fields.split(), names.split(), strict=True)]
    lines += [f"static_assert(offsetof(xla_api, {ours}) == offsetof(XLA_FFI_Api, XLA_FFI_{theirs}), \"xla_api\");"
              for ours, theirs in (("error_create", "Error_Create"), ("error_destroy", "Error_Destroy"), ("stream_get", "Stream_Get"))]
    # From 0.4 on, the structs that other structs of this interface are chained by are called internal.
    include = Path(jax.ffi.include_dir())
    if "XLA_FFI_InternalExtension" in (include / "xla/ffi/api/c_api.h").read_text():
        lines = [line.replace("XLA_FFI_Extension_Base", "XLA_FFI_InternalExtension") for line in lines]
    lines += [f"static_assert((int){ours} == (int)XLA_FFI_{theirs}, \"{ours}\");" for ours, theirs in NUMBERS.items() if ours != "XLA_MINOR"]
    # A later minor version adds behind what we know; jaxlib's own check decides whether it takes a handler of ours.
    lines.append("static_assert(XLA_MINOR <= XLA_FFI_API_MINOR, \"minor\");")
    declared = set(re.findall(r"\bXLA_[A-Z0-9_]+\b", (root / "python/ext/xla_ffi.h").read_text()))
    assert declared == set(NUMBERS)
    source = tmp_path / "abi.cpp"
    source.write_text('#include <cstddef>\n#include "xla/ffi/api/c_api.h"\n'
                      f'#include "{root}/python/ext/xla_ffi.h"\n' + "\n".join(lines) + "\n")
    subprocess.run([os.environ.get("CXX", "c++"), "-std=c++17", "-fsyntax-only", "-Wno-invalid-offsetof", f"-I{include}",
                    str(source)], check=True)
