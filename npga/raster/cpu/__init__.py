"""The compiled CPU back-end: projection, tile lists and blending as numba kernels."""
