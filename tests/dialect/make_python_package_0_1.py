# SPDX-License-Identifier: Apache-2.0
"""Made python_package_0.1.safetensors, once, with breccia 0.1.3 from PyPI (pip install --target FOLDER breccia==0.1.3).

    python make_python_package_0_1.py FOLDER      writes the file beside this one

The file holds what that package's save_safetensors wrote, and NAME.expected = its own dequantize, F32.
"""
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import breccia
import numpy as np
import torch
from breccia import bridges
from safetensors.torch import load_file, safe_open, save_file

target = Path(__file__).with_name("python_package_0.1.safetensors")
x = np.random.default_rng(7).standard_normal((3, 256)).astype(np.float32)
recipes = {
    "delayed": breccia.DelayedScaling(), "current": breccia.Float8CurrentScaling(),
    "e5m2": breccia.Float8CurrentScaling(fp8_format="E5M2"), "block": breccia.Float8BlockScaling(), "mxfp8": breccia.MXFP8BlockScaling(),
    "nvfp4": breccia.NVFP4BlockScaling(), "int4": breccia.INT4Scaling(), "int4_bf16": breccia.INT4Scaling(group_size=64, scale_dtype="bf16"),
    "int4_zero": breccia.INT4Scaling(signed=False, symmetric=False, scale_dtype="fp32"), "int4_unsigned": breccia.INT4Scaling(signed=False),
    "int4_zero_fp16": breccia.INT4Scaling(signed=False, symmetric=False),
}
tensors = {name: breccia.cast(x, recipe) for name, recipe in recipes.items()}
tensors["block_of_torch"] = breccia.cast(torch.from_numpy(x), recipes["block"])      # its codes have torch's FP8 type
bridges.save_safetensors(tensors, str(target))
with safe_open(target, "pt") as f:
    metadata = f.metadata()
arrays = load_file(target)
for name, tensor in tensors.items():
    arrays[f"{name}.expected"] = torch.as_tensor(breccia.dequantize(tensor)).float()
save_file(arrays, target, metadata=metadata)
