"""Tracking heads with a neural parametric head model (MonoNPHM, or the shipped open prior).

Head space: 1 unit = 250 mm, y up, z out of the face, mouth closed.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nphm_tracking.model.head_model import Codes, HeadModel, HeadQuery
    from nphm_tracking.model.load import load_head_model
    from nphm_tracking.result import SequenceTrack, Track, load_track, save_track

_HOMES = {
    "HeadModel": "nphm_tracking.model.head_model",
    "Codes": "nphm_tracking.model.head_model",
    "HeadQuery": "nphm_tracking.model.head_model",
    "load_head_model": "nphm_tracking.model.load",
    "Track": "nphm_tracking.result",
    "SequenceTrack": "nphm_tracking.result",
    "load_track": "nphm_tracking.result",
    "save_track": "nphm_tracking.result",
}

__all__ = [
    "Codes",
    "HeadModel",
    "HeadQuery",
    "SequenceTrack",
    "Track",
    "load_head_model",
    "load_track",
    "save_track",
]


def __getattr__(name: str) -> object:
    """Load the named type on first use, so that importing the package stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
