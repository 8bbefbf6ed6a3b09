# SPDX-License-Identifier: Apache-2.0
"""Made comfyui.safetensors, once, with comfy-kitchen 0.2.40 from PyPI: a weight of 160 x 64 in each of ComfyUI's formats that are read.

    python make_comfyui.py      writes the file beside this one

The arrays are what comfy-kitchen's state_dict gives, named and described as ComfyUI's comfy/ops.py saves them. The metadata pair
NAME.sha256 is the hash of the F32 values to which comfy-kitchen dequantizes NAME.weight.
"""
import hashlib
import json
from pathlib import Path

import torch
from comfy_kitchen.tensor import QuantizedTensor
from safetensors.torch import save_file

LAYERS = {
    "fp8": ("float8_e4m3fn", "TensorCoreFP8Layout", {}),
    "e5m2": ("float8_e5m2", "TensorCoreFP8Layout", {"dtype": torch.float8_e5m2}),
    "int8": ("int8_tensorwise", "TensorWiseINT8Layout", {}),
    "int8_row": ("int8_tensorwise", "TensorWiseINT8Layout", {"per_channel": True}),
    "nvfp4": ("nvfp4", "TensorCoreNVFP4Layout", {}),
    "mxfp8": ("mxfp8", "TensorCoreMXFP8Layout", {}),
}

torch.manual_seed(0)
weight = torch.randn(160, 64)
weight[3], weight[5, :32] = 0, 0
arrays, metadata = {}, {}
for name, (format, layout, options) in LAYERS.items():
    made = QuantizedTensor.from_float(weight, layout, **options)
    arrays |= made.state_dict(f"{name}.weight")
    arrays[f"{name}.comfy_quant"] = torch.tensor(list(json.dumps({"format": format}).encode()), dtype=torch.uint8)
    metadata[f"{name}.sha256"] = hashlib.sha256(made.dequantize().contiguous().numpy().tobytes()).hexdigest()
save_file(arrays, Path(__file__).with_name("comfyui.safetensors"), metadata=metadata)
