"""The loss of a fit: a dictionary of weighted scalars, whose keys are also the names in the log.

A term of weight 0 is not computed; a weight for an unknown term is refused. Which terms there are
follows NPGA (photometric, SSIM, LPIPS, Laplacian on features and on predicted dynamics, small
motion); weights, matte, scale and correction terms, and more weight on mouth and eyes, are ours.

Letters: `c` cameras, `h w` pixels, `n` Gaussians, `k` neighbours.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from npga.avatar import Avatar, Posed
from npga.core.errors import ConfigError
from npga.core.losses import l1, ssim_loss
from npga.core.lpips import Lpips
from npga.fit.batch import FitBatch
from npga.fit.corrections import MOVE_UNIT, Correction
from npga.fit.graph import CanonicalGraph
from npga.fit.regions import PixelWeights
from npga.fit.renderer import Rendered

LARGEST = 0.06
"""Largest standard deviation of a Gaussian in head units (15 mm)."""
THINNEST = 12.0
"""Largest ratio of a Gaussian's longest to its middle axis."""
PRIOR_UNIT = 0.04
"""Head units of F's offset that weigh like one unit of G's output in the Laplacian."""


@dataclass(frozen=True)
class Scene:
    """All that a term may look at."""

    rendered: Rendered
    batch: FitBatch
    avatar: Avatar
    posed: Posed
    graph: CanonicalGraph
    correction: Correction | None
    """Of this frame's track."""
    pixel_weight: Float[Tensor, "c h w"] | None = None
    """What the absolute errors of pixels are multiplied with; `Terms` sets it."""
    perceptual: Lpips | None = None
    """Set by `Terms` too."""


def raw_l1(scene: Scene) -> Tensor:
    """Mean absolute error of the unrefined picture."""
    return l1(scene.rendered.raw, scene.batch.image, scene.pixel_weight)


def raw_ssim(scene: Scene) -> Tensor:
    """1 - SSIM of the unrefined picture in the batch's window."""
    window = scene.batch.window
    return ssim_loss(window.of(scene.rendered.raw), window.of(scene.batch.image))


def refined_l1(scene: Scene) -> Tensor:
    """Mean absolute error of the refined picture in its window."""
    window, weight = scene.rendered.window, scene.pixel_weight
    weight = None if weight is None else window.of(weight)
    return l1(scene.rendered.refined, window.of(scene.batch.image), weight)


def refined_ssim(scene: Scene) -> Tensor:
    """1 - SSIM of the refined picture in its window."""
    return ssim_loss(scene.rendered.refined, scene.rendered.window.of(scene.batch.image))


def lpips(scene: Scene) -> Tensor:
    """LPIPS of the refined picture in its window."""
    assert scene.perceptual is not None
    truth = scene.rendered.window.of(scene.batch.image)
    return scene.perceptual(scene.rendered.refined, truth).mean()


def matte(scene: Scene) -> Tensor:
    """Mean absolute difference of alpha and matte."""
    return (scene.rendered.alpha - scene.batch.matte).abs().mean()


def smooth_features(scene: Scene) -> Tensor:
    """Laplacian energy of the latent features over the canonical graph."""
    return scene.graph.energy(scene.avatar.features)


def smooth_dynamics(scene: Scene) -> Tensor:
    """Laplacian energy of what F and G predict for this frame, in units of G's outputs."""
    offset = scene.posed.prior_offset / PRIOR_UNIT
    return scene.graph.energy(torch.cat([offset, scene.posed.residuals.stacked()], dim=-1))


def small_motion(scene: Scene) -> Tensor:
    """Mean square of G's outputs."""
    return scene.posed.residuals.stacked().square().mean()


def scale(scene: Scene) -> Tensor:
    """Log-scales above the largest allowed, and Gaussians that are needles."""
    logs = scene.avatar.log_scales
    ordered = logs.sort(dim=-1).values
    too_large = (ordered[:, 2] - math.log(LARGEST)).clamp(min=0)
    needle = (ordered[:, 2] - ordered[:, 1] - math.log(THINNEST)).clamp(min=0)
    return (too_large.square() + needle.square()).mean()


def small_moves(scene: Scene) -> Tensor:
    """Mean square of this frame's pose correction."""
    if scene.correction is None:
        return scene.avatar.means.new_zeros(())
    return scene.correction.move.square().mean()


def small_codes(scene: Scene) -> Tensor:
    """Mean square of this frame's code correction, in standard deviations."""
    if scene.correction is None:
        return scene.avatar.means.new_zeros(())
    return scene.correction.code.square().mean()


def smooth_corrections(scene: Scene) -> Tensor:
    """Mean squares of this frame's corrections against the mean of its neighbours in time."""
    one = scene.correction
    if one is None:
        return scene.avatar.means.new_zeros(())
    move = (one.move - one.move_beside) / MOVE_UNIT
    return move.square().mean() + (one.code - one.code_beside).square().mean()


Term = Callable[[Scene], Tensor]

TERMS: dict[str, Term] = {
    "l1": raw_l1,
    "ssim": raw_ssim,
    "refined_l1": refined_l1,
    "refined_ssim": refined_ssim,
    "lpips": lpips,
    "matte": matte,
    "smooth_features": smooth_features,
    "smooth_dynamics": smooth_dynamics,
    "small_motion": small_motion,
    "scale": scale,
    "small_moves": small_moves,
    "small_codes": small_codes,
    "smooth_corrections": smooth_corrections,
}

REFINED = ("refined_l1", "refined_ssim", "lpips")


class Terms:
    """The terms that have a weight, ready to be called on a step's scene."""

    def __init__(
        self,
        weights: dict[str, float],
        pixel_weights: PixelWeights | None = None,
        perceptual: Lpips | None = None,
        known: dict[str, Term] = TERMS,
    ) -> None:
        """`known` holds what `weights` may name.

        Raises ConfigError for a term that does not exist, a negative weight, no LPIPS net.
        """
        for name, weight in weights.items():
            if name not in known:
                raise ConfigError(
                    f"There is no loss term {name!r}.", f"Terms are {', '.join(known)}."
                )
            if weight < 0:
                raise ConfigError(
                    f"terms.{name}={weight} is negative.", "Use 0 to switch a term off."
                )
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        if "lpips" in self.weights and perceptual is None:
            raise ConfigError(
                f"terms.lpips={self.weights['lpips']} needs an LPIPS network, but none was given.",
                "Give its weights with lpips_weights=..., or terms.lpips=0.",
            )
        self.known = known
        self.pixel_weights = pixel_weights
        self.perceptual = perceptual

    @property
    def refines(self) -> bool:
        """Whether any term looks at the refined picture."""
        return any(name in self.weights for name in REFINED)

    def __call__(self, scene: Scene) -> dict[str, Float[Tensor, ""]]:
        """{name: weight * value} of every term with a weight."""
        if self.pixel_weights is not None:
            scene = replace(scene, pixel_weight=self.pixel_weights(scene.batch, scene.avatar))
        scene = replace(scene, perceptual=self.perceptual)
        return {name: weight * self.known[name](scene) for name, weight in self.weights.items()}
