"""Distillation: the backward field (posed -> canonical) inverted into the forward prior F."""
