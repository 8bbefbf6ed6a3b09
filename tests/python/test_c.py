# SPDX-License-Identifier: Apache-2.0
"""The package and the C API (tests/breccia_c.py, another way into another build of the library) give the same bits."""
import numpy as np
import pytest

import breccia
import breccia_c
from recipes_list import ALL, IDS


@pytest.mark.parametrize("recipe", ALL, ids=IDS)
def test_same_bits(x, recipe):
    x = x.reshape(2, 4, 256)
    st, t = breccia.cast(x, recipe), breccia_c.cast(x, recipe.text)

    def same(ours, theirs):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert ours.tobytes() == np.ascontiguousarray(theirs).tobytes()

    same(st.data, t.data)
    same(st.scale, np.asarray(t.scale).astype(np.float32) if recipe._scale == "bf16" else t.scale)
    same(st.global_scale, t.globals)
    same(st.zero_point, t.zero)
    assert breccia.dequantize(st).tobytes() == breccia_c.dequantize(t).tobytes()
    w = np.random.default_rng(2).standard_normal((256, 8)).astype(np.float32)
    assert breccia.matmul(st, w).tobytes() == breccia_c.matmul(t, w, shape=(2, 4, 8)).tobytes()
    other = breccia.MXFP8BlockScaling(scale_rule="ceil")
    again = breccia_c.requantize(t, other.text)              # its arrays are views: it must live as long as they
    same(breccia.requantize(st, other).data, again.data)
