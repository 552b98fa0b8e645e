"""The numbers that decide what a Gaussian looks like: gsplat 1.5.3's, shared by all back-ends.

alpha_i(p) = min(ALPHA_MAX, o_i exp(-sigma_i(p))), sigma = 1/2 d^T C^-1 d with d = p - mean2d, pixel
centres p at +0.5, and C = J W Sigma W^T J^T + BLUR I. An alpha below ALPHA_MIN is skipped. Front to
back, w_i = T_i alpha_i and T_(i+1) = T_i (1 - alpha_i); a pixel ends before the Gaussian that would
bring T to T_MIN or below. With antialias, o_i is multiplied by sqrt(det(C - BLUR I) / det C).
Where the clamp at ALPHA_MAX acts, the gradient to opacity, shape and place is zero. Picture: sum of
w_i colors_i + T_end background; alpha: 1 - T_end; depth: sum of w_i z_i (camera z, not divided).
"""

BLUR = 0.3
"""Added to both variances of a footprint, in square pixels."""
ALPHA_MAX = 0.999
ALPHA_MIN = 1.0 / 255.0
T_MIN = 1e-4
EXTENT_MAX = 3.33
"""Radius of a footprint in standard deviations, at most; less where the opacity is small."""
RADIUS_MAX = 1e6
"""Pixels; a wider footprint is left out (ours: single precision could not place its edge)."""
FRUSTUM_MARGIN = 0.3
"""The Jacobian is taken no further than this share of tan(fov / 2) outside the picture."""
NEAR = 0.01
"""Default near plane, metres."""
