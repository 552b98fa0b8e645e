"""The tracker's landmarks carried by F instead of inverting B.

l landmarks, t frames, e expression size. A landmark's omega is what B gives its canonical place
under the neutral expression, as for the Gaussians of an avatar. The basis of F is kept as long as
neither the identity nor the landmarks change, which is so for all frames of a sequence.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from npga.avatar.forward import ForwardPrior, combine, load_prior, prior_file
from nphm_tracking.config import TrackConfig
from nphm_tracking.energies import PosedLandmarks
from nphm_tracking.model.head_model import HeadModel
from nphm_tracking.run import run

KEPT = 2
"""Sets of points whose basis is kept: landmarks, and the surface that is seen in pictures."""


class ForwardLandmarks:
    """A `LandmarkMotion` of a forward prior; ours."""

    def __init__(self, forward: ForwardPrior, model: HeadModel) -> None:
        self.forward = forward
        self.model = model
        self._known: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    @torch.no_grad()
    def __call__(
        self,
        canonical: Float[Tensor, "l 3"],
        z_geo: Float[Tensor, " g"],
        z_exp: Float[Tensor, "t e"],
    ) -> PosedLandmarks:
        """Posed landmarks and their derivative by the codes, head units."""
        basis, identity = self._person(canonical, z_geo)
        coefficients = self.forward.coefficients(z_exp, identity)
        slopes = self.forward.coefficient_slopes(z_exp, identity)
        frames, count = len(z_exp), len(canonical)
        eye = torch.eye(3, dtype=canonical.dtype, device=canonical.device)
        return PosedLandmarks(
            canonical + combine(basis[None], coefficients),
            (basis.flatten(0, 1) @ slopes).unflatten(1, (count, 3)),
            eye.expand(frames, count, 3, 3),
            canonical.new_zeros(frames, count),
        )

    def _person(self, canonical: Tensor, z_geo: Tensor) -> tuple[Tensor, Tensor]:
        """F's basis at the landmarks [l 3 r], and the identity [1 i]."""
        for held, code, basis, identity in self._known:
            if torch.equal(held, canonical) and torch.equal(code, z_geo):
                return basis, identity
        identity = self.model.compress(z_geo[None])
        neutral = self.model.neutral_codes().z_exp[None].to(z_geo)
        _, omega = self.model.backward_field(canonical[None], identity, neutral)
        basis = self.forward.basis(canonical[None], omega, identity)[0]
        known = (canonical.clone(), z_geo.clone(), basis, identity)
        self._known = [*self._known[-(KEPT - 1) :], known]
        return basis, identity


def forward_landmarks(model: HeadModel, prior: str | None) -> ForwardLandmarks:
    """What carries a head model's landmarks: the F in a file or folder, None = the shipped one.

    Raises CheckpointError for an F of another head model.
    """
    return ForwardLandmarks(load_prior(prior_file(prior), model.checksum()), model)


def track(config: TrackConfig) -> None:
    """`npga track`; F carries the surface that pictures show, and landmarks where it is given."""
    run(config, forward_landmarks)
