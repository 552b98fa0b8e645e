"""The rasteriser on a CUDA GPU: Triton kernels (torch's CUDA wheels for Linux bring the compiler).

``project`` places every Gaussian in every camera, ``tiles`` lists which Gaussian touches which
tile, ``blend`` draws the tiles; ``autograd`` makes two torch functions of them.
"""
