"""Settings of `npga distill`."""

from dataclasses import dataclass
from pathlib import Path

from npga.core.config import knob
from npga.core.errors import ConfigError


@dataclass(frozen=True)
class NetworkConfig:
    """Size of F; it is evaluated for every Gaussian at every step of a fit."""

    width: int = knob(128, "hidden width")
    depth: int = knob(4, "hidden layers of the point basis")
    rank: int = knob(96, "basis vectors per point, combined by the expression")
    bands: int = knob(6, "octaves of positional encoding of x")


@dataclass(frozen=True)
class TermsConfig:
    """Weights; a term with weight 0 is not computed."""

    pair: float = knob(1.0, "exact pairs (x_posed -> B(x_posed))")
    cycle: float = knob(1.0, "cycle |B3(x + F(x, omega)) - x|, mm")
    fold: float = knob(0.1, "det J below 0.1")


@dataclass(frozen=True)
class ScheduleConfig:
    """How long and on how much."""

    steps: int = knob(12000, "optimiser steps")
    round_steps: int = knob(100, "steps on one pool of pairs; state is kept after each")
    pool_codes: int = knob(768, "people x expressions in a pool")
    pool_points: int = knob(128, "pairs per code")
    batch_codes: int = knob(8, "codes in a step")
    rest_points: int = knob(48, "points per code in the cycle term")
    learning_rate: float = knob(0.004, "peak rate of Adam; falls along a cosine to 1 %")


@dataclass(frozen=True)
class DistillConfig:
    """Head model -> forward prior F."""

    out: str = knob("runs/distill", "folder to make: prior.safetensors, report.json, report.png")
    overwrite: bool = knob(False, "replace out if it exists")
    head_model: str | None = knob(None, "head model file; the shipped open prior where not given")
    tracks: list[str] = knob([], "tracks whose person and expressions F must know in particular")
    people: int = knob(32, "random people of the head model to train on")
    surface_points: int = knob(4000, "canonical surface points per person")
    surface_resolution: int = knob(72, "cells along the longest side of the surface extraction")
    margin: float = knob(0.1, "how far beyond the trusted expressions to train, of their range")
    seed: int = knob(0, "decides everything random")
    device: str = knob("auto", "auto, cpu or cuda")
    network: NetworkConfig = knob(NetworkConfig(), "size of F")
    terms: TermsConfig = knob(TermsConfig(), "weights of the terms")
    schedule: ScheduleConfig = knob(ScheduleConfig(), "length and batches")
    judge_people: int = knob(4, "people F never saw, for the report")
    judge_codes: int = knob(16, "expressions F never saw, for the report")
    judge_points: int = knob(400, "points per code that Broyden solves, for the report")

    def __post_init__(self) -> None:
        object.__setattr__(self, "tracks", tuple(self.tracks))
        counts = {
            "people": self.people,
            "judge_people": self.judge_people,
            "judge_codes": self.judge_codes,
            "surface_points": self.surface_points,
            "schedule.steps": self.schedule.steps,
            "schedule.round_steps": self.schedule.round_steps,
            "schedule.batch_codes": self.schedule.batch_codes,
        }
        for name, value in counts.items():
            if value < 1:
                raise ConfigError(
                    f"{name}={value} was given, but at least 1 is needed.",
                    f"Give {name}=1 or more.",
                )
        if self.schedule.batch_codes > self.schedule.pool_codes:
            raise ConfigError(
                f"schedule.batch_codes={self.schedule.batch_codes} is more than "
                f"schedule.pool_codes={self.schedule.pool_codes}.",
                "A step draws its codes from the pool without repeats: make the pool larger.",
            )
        if not Path(self.out).name:
            raise ConfigError("out= is empty.", "Give the folder to make, e.g. out=runs/distill.")
