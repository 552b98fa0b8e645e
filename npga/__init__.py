"""npga: photoreal 3D Gaussian head avatars from calibrated multi-view video.

    core     types and pure math            capture  calibrated frames
    avatar   canonical Gaussians, F, G      raster   Gaussians -> images
    distill  backward field -> prior F      fit      one person's avatar
    render   avatar -> pictures             reenact  someone's codes -> an avatar

This file imports nothing, so that `import npga` is instant and no floor can depend on it.
"""

__version__ = "0.1.0"
