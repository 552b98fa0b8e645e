"""Settings of `npga prior`; the defaults made the shipped open prior (see its model card)."""

from dataclasses import dataclass

from npga.core.config import knob
from npga.core.errors import ConfigError


@dataclass(frozen=True)
class PriorSizesConfig:
    """Sizes of the open prior; what is not here is as in the published model."""

    geo_global: int = knob(96, "length of the global geometry code: so many PCA shapes")
    identity: int = knob(64, "length of the identity condition of the backward field")
    anchor_width: int = knob(128, "width of the network that places the anchors")
    backward_width: int = knob(192, "width of the backward field")
    backward_depth: int = knob(6, "hidden layers of the backward field")
    sdf_width: int = knob(48, "width of the local geometry networks")
    sdf_depth: int = knob(3, "hidden layers of the local geometry networks")
    color_width: int = knob(16, "width of the local colour networks")


@dataclass(frozen=True)
class PriorWeightsConfig:
    """Weights of the training terms, after MonoNPHM's where it has the term; 0 switches one off."""

    correspondence: float = knob(5.0, "distance to the true canonical point (head units)")
    surface: float = knob(2.0, "|SDF| of posed surface points")
    near: float = knob(2.0, "|SDF - true distance| on and by the neutral surface")
    distance: float = knob(3.0, "|SDF - true distance| around neutral heads")
    normal: float = knob(0.1, "SDF gradient against the true normal")
    color: float = knob(0.2, "L1 of the albedo")
    anchors: float = knob(7.5, "squared distance of predicted anchors")
    hyper: float = knob(0.5, "omega against its label (what jaw and lids carry along)")
    outside: float = knob(0.02, "offsets far from the head")
    eikonal: float = knob(0.05, "length of the SDF's gradient around the surface against 1")


@dataclass(frozen=True)
class PriorConfig:
    """Everything that `npga prior` can be told."""

    out: str = knob("out/prior", "folder to write: head_model.safetensors, report.json")
    overwrite: bool = knob(False, "replace an existing out folder")
    start: str | None = knob(
        None, "a head model to begin with, of the same people, seed and sizes; null = from nothing"
    )
    people: int = knob(640, "training people")
    heldout: int = knob(10, "people only used for the report")
    volume_points: int = knob(6000, "points with known distance per person")
    steps: int = knob(20000, "optimiser steps")
    heads: int = knob(48, "heads (person and expression) per step")
    correspondence_points: int = knob(64, "posed points with known canonical place per head")
    surface_points: int = knob(20, "posed, and neutral, surface points per head")
    distance_points: int = knob(32, "points with known distance per head")
    normal_points: int = knob(3, "neutral surface points with a normal term per head")
    rate: float = knob(3e-3, "peak learning rate of the networks (cosine decay)")
    seed: int = knob(0, "seed of people, batches and initial weights")
    save_every: int = knob(500, "steps between saved states")
    device: str = knob("auto", "auto, cpu or cuda")
    sizes: PriorSizesConfig = knob(PriorSizesConfig(), "sizes of the model")
    weights: PriorWeightsConfig = knob(PriorWeightsConfig(), "weights of the terms")

    def __post_init__(self) -> None:
        """Refuse counts that cannot be."""
        for name in ("people", "heldout", "steps", "heads", "correspondence_points"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} is below 1.", f"Give {name}>=1.")
        if self.sizes.geo_global >= self.people:
            raise ConfigError(
                f"sizes.geo_global={self.sizes.geo_global} shapes cannot be found from "
                f"people={self.people}.",
                "Give more people than geo_global.",
            )
