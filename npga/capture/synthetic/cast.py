"""From settings to people: figures, looks and motions of one capture."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from npga.capture.synthetic.actor import Actor, Look
from npga.capture.synthetic.config import CaptureSynthConfig, Haircut, PersonConfig
from npga.capture.synthetic.figure import anny_figure
from npga.capture.synthetic.hair import HairLook
from npga.capture.synthetic.light import studio
from npga.capture.synthetic.motion import Motion, make_motion
from npga.capture.synthetic.people import EXPRESSIONS, Identity, People
from npga.capture.synthetic.skin import SkinLook
from npga.core.errors import ConfigError

HOME_M = np.array([0.0, 0.0, 0.03])
"""Where heads rest in the world, before a few millimetres of chance."""

HAIRCUTS = {
    Haircut.short: HairLook(locks=5200, length=0.15, lift=0.026, gravity=0.25, forward=0.35),
    Haircut.bob: HairLook(
        locks=4600, length=0.62, segments=13, width=0.010, lift=0.042, gravity=0.85,
        parting=-0.05, forward=-0.35, wave=0.12, hairline=0.415,
    ),
}  # fmt: skip


def stream(config: CaptureSynthConfig, *words: object) -> np.random.Generator:
    """Random numbers for one purpose, independent of the order in which things are made."""
    text = "/".join(str(w) for w in (config.seed, *words))
    return np.random.default_rng(list(text.encode()))


def person_identity(person: PersonConfig, people: People) -> Identity:
    """The drawn member of the population, with what the settings fix."""
    identity = people.sample_identity(np.random.default_rng(person.identity_seed))
    phenotypes = identity.phenotypes.copy()
    phenotypes[1] = min(phenotypes[1], 0.72)
    for place, value in ((0, person.gender), (1, person.age)):
        if value is not None:
            phenotypes[place] = value
    shares = identity.ethnicity if person.ethnicity is None else np.array(person.ethnicity)
    return dataclasses.replace(identity, phenotypes=phenotypes, ethnicity=shares / shares.sum())


def person_look(person: PersonConfig) -> Look:
    """Colours and haircut."""
    hair = _rgb(person.hair)
    skin = SkinLook(
        tone=_rgb(person.skin),
        lip=_rgb(person.lip),
        brow=_rgb([0.75 * c for c in hair]),
        freckles=person.freckles,
        stubble=person.stubble,
        seed=100 + person.identity_seed,
    )
    cut = dataclasses.replace(HAIRCUTS[person.haircut], color=hair, seed=person.identity_seed)
    return Look(skin, cut, _rgb(person.iris), _rgb(person.cloth))


def _rgb(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) != 3 or not all(0 <= v <= 1 for v in values):
        raise ConfigError(
            f"the colour {list(values)} was given; three numbers in 0..1 were expected.",
            "Give colours as [r, g, b], for instance [0.8, 0.6, 0.5].",
        )
    return float(values[0]), float(values[1]), float(values[2])


def make_actor(person: PersonConfig, people: People) -> Actor:
    """The person, painted and combed."""
    figure = anny_figure(people, person_identity(person, people))
    return Actor(figure, person_look(person), studio())


def person_motion(config: CaptureSynthConfig, person: PersonConfig, sequence: str) -> Motion:
    """What the person does in a sequence."""
    settings = config.of(person)
    home = HOME_M + stream(config, person.participant, "home").normal(0, 0.004, 3)
    return make_motion(
        sequence,
        settings.frames_of(sequence),
        EXPRESSIONS,
        stream(config, person.participant, sequence, "motion"),
        home,
        person.strength,
    )
