# SPDX-License-Identifier: Apache-2.0
"""The recipes that many tests walk: one of each kind of result."""
import breccia as b

ALL = [b.DelayedScaling(margin=1), b.Float8CurrentScaling(), b.Float8CurrentScaling("E5M2"), b.Float8RowScaling(),
       b.Float8BlockScaling(), b.Float8BlockScaling(block_k=128, block_m=4), b.Float8BlockScaling(power_of_two=True, arith="te"),
       b.MXFP8BlockScaling(), b.MXFP8BlockScaling("E5M2", scale_rule="floor"), b.MXFP6BlockScaling(), b.MXFP6BlockScaling("E2M3"),
       b.MXFP4BlockScaling(), b.MXINT8BlockScaling(), b.NVFP4BlockScaling(), b.NVFP4BlockScaling(levels=1),
       b.NVFP4BlockScaling(arith="div"), b.INT8Scaling(), b.INT8Scaling(symmetric=False), b.INT4Scaling(), b.INT4Scaling(64),
       b.INT4Scaling(signed=False, symmetric=False), b.INT4Scaling(scale_dtype="fp32", arith="recip"),
       b.INT4Scaling(scale_dtype="bf16"), b.GGMLScaling(), b.GGMLScaling("Q4_1"), b.GGMLScaling("IQ4_NL"), b.CustomScaling("custom:format=e4m3,scale=f16,block=4x32,rule=amax,arith=div")]
IDS = [recipe.text for recipe in ALL]
