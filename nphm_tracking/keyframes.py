"""Which frames decide the identity: some at rest, the others as different as possible.

A frame's shape is its landmarks in head space (world_from_head of the first alignment removed).
Rest frames are nearest to the median shape (a face is at rest most of the time, eyes open, mouth
closed); the others follow by farthest-point sampling. Without landmarks: the first frame of every
sequence is taken to be at rest (as in NeRSemble), the others are evenly spaced.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nphm_tracking.frames import FrameData, FrameState
from nphm_tracking.observe import Observed

REST_WEIGHT = 30.0
"""Factor on the code prior of frames at rest."""
REST_SHARE = 3
"""One keyframe in so many is a rest frame."""


@dataclass(frozen=True)
class Keyframes:
    """Chosen frames."""

    sequence: Int[Tensor, "k"]
    """Place in the list of sequences."""
    rows: Int[Tensor, "k"]
    """Row within the sequence."""
    rest: Bool[Tensor, "k"]


def choose_keyframes(observed: list[Observed], count: int, seed: int) -> Keyframes:
    """`count` frames with enough data (all of them where there are fewer)."""
    sequence = torch.cat([torch.full((len(o.frames),), i) for i, o in enumerate(observed)])
    rows = torch.cat([torch.arange(len(o.frames)) for o in observed])
    shapes = frame_shapes(observed)
    usable = torch.cat([o.enough for o in observed])
    if shapes.shape[1]:
        seen = torch.cat([(o.data.landmark_weight > 0).float().mean(1) for o in observed])
        usable = usable & (seen > 0.5)
    places = torch.nonzero(usable).flatten()
    count = min(count, len(places))
    rest_count = max(1, count // REST_SHARE)
    if shapes.shape[1]:
        shape = shapes[places]
        distance = (shape - shape.median(0).values).norm(dim=-1).mean(1)
        rest = distance.argsort(stable=True)[:rest_count]
        picked = farthest_points(shape.flatten(1), rest, count)
    else:
        rest = torch.nonzero(rows[places] == rows[places].amin()).flatten()[:rest_count]
        spaced = torch.linspace(0, len(places) - 1, count).round().long()
        spaced = spaced[~torch.isin(spaced, rest)]
        picked = torch.cat([rest, spaced])[:count]
    index = places[picked]
    return Keyframes(sequence[index], rows[index], torch.arange(len(index)) < len(rest))


def frame_shapes(observed: list[Observed]) -> Float[Tensor, "t l 3"]:
    """Landmarks of all frames in head units; unseen ones at the median of their kind."""
    local = torch.cat([o.start.inverse().apply(o.data.landmarks) for o in observed])
    seen = torch.cat([o.data.landmark_weight > 0 for o in observed])
    middle = torch.where(seen[..., None], local, torch.nan).nanmedian(0).values.nan_to_num(0.0)
    return torch.where(seen[..., None], local, middle)


def farthest_points(
    values: Float[Tensor, "n d"], start: Int[Tensor, "s"], count: int
) -> Int[Tensor, "k"]:
    """`start`, then repeatedly the row farthest from all chosen so far."""
    chosen = start.tolist()
    distance = torch.cdist(values, values[start]).amin(1)
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (values - values[chosen[-1]]).norm(dim=1))
    return torch.tensor(chosen)


def gather(
    observed: list[Observed], states: dict[str, FrameState], chosen: Keyframes
) -> tuple[FrameData, FrameState]:
    """The chosen frames as one batch without links."""
    datas, found = [], []
    for sequence, row in zip(chosen.sequence.tolist(), chosen.rows.tolist(), strict=True):
        one = observed[sequence]
        datas.append(one.data[row : row + 1])
        found.append(states[one.name][row : row + 1])
    joined = FrameData(
        points=torch.cat([d.points for d in datas]),
        normals=torch.cat([d.normals for d in datas]),
        point_weight=torch.cat([d.point_weight for d in datas]),
        landmarks=torch.cat([d.landmarks for d in datas]),
        landmark_weight=torch.cat([d.landmark_weight for d in datas]),
        linked=torch.zeros(len(datas) - 1),
        code_weight=torch.cat([d.code_weight for d in datas]),
        landmark_ray=_joined_rays(datas),
    )
    state = FrameState(*(torch.cat(parts) for parts in zip(*map(_parts, found), strict=True)))
    return joined, state


def _joined_rays(datas: list[FrameData]) -> Tensor | None:
    rays = [d.landmark_ray for d in datas if d.landmark_ray is not None]
    return torch.cat(rays) if len(rays) == len(datas) else None


def scatter(
    states: dict[str, FrameState], observed: list[Observed], chosen: Keyframes, state: FrameState
) -> dict[str, FrameState]:
    """The states with the chosen frames' new ones put back."""
    result = {name: FrameState(*(part.clone() for part in _parts(s))) for name, s in states.items()}
    for place, (sequence, row) in enumerate(
        zip(chosen.sequence.tolist(), chosen.rows.tolist(), strict=True)
    ):
        target = result[observed[sequence].name]
        target.z_exp[row] = state.z_exp[place]
        target.rotation[row] = state.rotation[place]
        target.translation[row] = state.translation[place]
        target.marks[row] = state.marks[place]
    return result


def _parts(one: FrameState) -> list[Tensor]:
    return [getattr(one, name) for name in one.__dataclass_fields__]
