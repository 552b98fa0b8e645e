"""Distillation: MonoNPHM's backward field (posed -> canonical) inverted into the forward prior F."""
