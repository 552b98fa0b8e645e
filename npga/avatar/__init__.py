"""The avatar: canonical Gaussians, F (forward prior), G (detail) and the screen-space refiner."""

from npga.avatar.forward import ForwardPrior as ForwardPrior
from npga.avatar.forward import load_prior as load_prior
from npga.avatar.forward import save_prior as save_prior
