"""MonoNPHM as a plain torch module: codes -> backward field -> canonical SDF and colour.

Source: Giebenhain et al., MonoNPHM (CVPR 2024) and its published code; see ``head_model``.
"""
