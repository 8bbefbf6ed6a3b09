#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The Python package on arrays of a real GPU: PYTHONPATH=FOLDER check_gpu_python.py [torch|cupy|jax|transformer_engine ..], where FOLDER is what
`pip install --target FOLDER` made of a wheel with kernels (docs/python.md). A library that is not installed is named and left out;
a section that fails does not stop the others. The last line is PYTHON ON GPU RIGHT or WRONG."""
import importlib
import os
import pathlib
import sys
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).parent / "gpu_python"))

import breccia  # noqa: E402
from breccia.kernels import cuda  # noqa: E402

from common import check  # noqa: E402

LIBRARIES = ("torch", "cupy", "jax", "transformer_engine")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")    # JAX leaves the others memory


def main() -> int:
    chosen = [name for name in sys.argv[1:]] or list(LIBRARIES)
    print(f"breccia {breccia.__version__} at {pathlib.Path(breccia.__file__).parent}, kernels: {'there' if cuda.CUDA_AVAILABLE else cuda.why()}")
    ran = []
    for name in chosen:
        try:
            library = importlib.import_module(name)
        except ImportError as missing:
            print(f"{name}: NOT CHECKED, it is not installed ({missing})")
            continue
        began = time.monotonic()
        print(f"## {name} {getattr(library, '__version__', '')}", flush=True)
        try:
            importlib.import_module(f"of_{name}").run()
        except Exception:
            check(False, f"{name}: stopped by an exception")
            traceback.print_exc()
        ran.append(name)
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    right = ran and not check.failed
    print(f"{check.made} comparisons, {check.failed} wrong; libraries: {', '.join(ran) or 'none'}")
    print("PYTHON ON GPU", "RIGHT" if right else "WRONG")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
