"""exp(-x) that LLVM can vectorise: numba's own needs a vendor library to become SIMD code."""

import math

import numpy as np
from numba import types
from numba.extending import overload

_LOG2E = np.float32(math.log2(math.e))
_FARTHEST = np.float32(80.0)
_ONE, _HALF = np.float32(1.0), np.float32(0.5)
# 2^f on [-1/2, 1/2], minimax fit of degree 6 (relative error 2e-9; rounding in float32 adds 1e-7)
_C2, _C1 = np.float32(0.240226479), np.float32(0.693147203)
_C4, _C3 = np.float32(0.00961843736), np.float32(0.0555033247)
_C6, _C5 = np.float32(0.00015353362), np.float32(0.00133988747)


def exp_negative(x):  # noqa: ANN001, ANN201 (numba compares the bare signatures)
    """exp(-x) for x >= 0, in x's precision; float32 stops falling at exp(-80)."""
    return math.exp(-x)


@overload(exp_negative)
def _exp_negative(x):  # noqa: ANN001, ANN202
    if x != types.float32:
        return lambda x: math.exp(-x)

    def single(x):  # noqa: ANN001, ANN202
        t = -min(x, _FARTHEST) * _LOG2E
        whole = np.int32(t - _HALF)  # truncation towards zero = rounding to nearest, as t <= 0
        f = t - np.float32(whole)
        p = ((((_C6 * f + _C5) * f + _C4) * f + _C3) * f + _C2) * f + _C1
        return (p * f + _ONE) * np.int32((whole + 127) << 23).view(np.float32)

    return single
