"""Every variant that `bench_quality` fits, told by how it differs from the full avatar."""

from dataclasses import dataclass, replace

import torch

from benchmarks.baselines.default_density import DefaultDensity
from benchmarks.baselines.mesh_bound import BOUND_TERMS, BOUND_WEIGHTS, MeshBound
from npga.avatar import ForwardPrior
from npga.core.device import seed_everything
from npga.fit.batch import FitData
from npga.fit.config import FitConfig
from npga.fit.densify import Densifier
from npga.fit.run import Session, build_terms, open_session
from npga.fit.setup import Inputs, canonical_surface, start_avatar
from npga.fit.terms import TERMS, Terms

NO_FEATURES = ("network.features=0", "network.screen_features=0")
NO_LAPLACIAN = ("terms.smooth_features=0", "terms.smooth_dynamics=0")
NO_REFINED = ("terms.refined_l1=0", "terms.refined_ssim=0")
NO_CNN = (*NO_REFINED, "terms.lpips=0")
NO_MOTION_COST = ("terms.small_motion=0",)
NO_SHARES = ("network.shares=false",)
NO_LIGHT = ("optim.light=0",)


@dataclass(frozen=True)
class Variant:
    """How one fit differs from the full avatar's."""

    settings: tuple[str, ...] = ()
    """Of `npga fit`."""
    bound: bool = False
    """A mesh carries the Gaussians."""
    random_prior: bool = False
    """F starts random and learns from the first step."""
    density: type[Densifier] = Densifier


BOUND = (*NO_FEATURES, *NO_LAPLACIAN, *NO_CNN, *NO_MOTION_COST)
"""What a mesh-bound avatar as published lacks, but for the light."""

VARIANTS = {
    "full": Variant(),
    "mesh_bound": Variant((*BOUND, *NO_LIGHT), bound=True),
    "vanilla": Variant((*NO_FEATURES, *NO_LAPLACIAN, *NO_CNN)),
    "no_features": Variant(NO_FEATURES),
    "no_laplacian": Variant(NO_LAPLACIAN),
    "no_cnn": Variant(NO_CNN),
    "no_prior": Variant(("prior_mode=finetune", "optim.prior=0.001"), random_prior=True),
    "no_shares": Variant(NO_SHARES),
    "no_light": Variant(NO_LIGHT),
    "default_density": Variant(density=DefaultDensity),
    "unregularised": Variant((*NO_LAPLACIAN, *NO_MOTION_COST)),
    "mesh_bound_lpips": Variant(
        (*NO_FEATURES, *NO_LAPLACIAN, *NO_REFINED, *NO_MOTION_COST, *NO_LIGHT), bound=True
    ),
    "mesh_bound_light": Variant(BOUND, bound=True),
    "mesh_bound_detail": Variant(bound=True),
}
"""In the order of their worth; the last three only on request: mesh_bound with LPIPS among its
losses, lit by our light, and with that, G and the CNN on top."""
ON_REQUEST = ("mesh_bound_lpips", "mesh_bound_light", "mesh_bound_detail")
CORRECTED = ("full", "mesh_bound")
"""These are asked once more with the track of FREE that they correct themselves."""
ABLATIONS = (
    "no_features",
    "no_laplacian",
    "no_cnn",
    "no_prior",
    "no_shares",
    "no_light",
    "default_density",
)
STANDARD = tuple(name for name in VARIANTS if name not in ON_REQUEST)


def random_like(prior: ForwardPrior) -> ForwardPrior:
    """F as it was before distillation: random weights, the same size and the same units."""
    fresh = ForwardPrior(**prior.sizes, head_model_checksum=prior.head_model_checksum)
    for name, value in prior.named_buffers():
        fresh.get_buffer(name).copy_(value)
    return fresh


def open_variant(
    variant: Variant, config: FitConfig, inputs: Inputs, data: FitData, device: torch.device
) -> Session:
    """The variant at step 0; `config` holds its settings already."""
    seed_everything(config.seed)
    prior = random_like(inputs.prior) if variant.random_prior else inputs.prior
    avatar = start_avatar(config, inputs.capture, inputs.track, inputs.model, prior, data)
    terms = build_terms(config, inputs, device)
    if variant.bound:
        neutral = inputs.model.neutral_codes().z_exp.float()
        surface, omega = canonical_surface(inputs.model, inputs.track, neutral)
        avatar = MeshBound(avatar, surface, omega, detail=terms.refines)
        terms = Terms(
            terms.weights | BOUND_WEIGHTS,
            terms.pixel_weights,
            terms.perceptual,
            TERMS | BOUND_TERMS,
        )
    known = inputs.model.exp_stats
    session = open_session(config, avatar, data, terms, device, variant.density, known)
    if variant.random_prior:
        session = replace(session, schedule=replace(session.schedule, finetune_from=0.0))
    return session
