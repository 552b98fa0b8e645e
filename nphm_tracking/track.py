"""The tracker: observations -> keyframe -> sequential -> joint -> pictures -> Track, by units.

A unit is a stage, or one sequence of a stage; its result is written to `state/` in the working
folder the moment it is done, and a rerun takes it from there. All random draws are seeded per unit,
so that an interrupted run ends with the same numbers as one that was left alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from npga.core.errors import TrackError
from npga.core.progress import bar, say
from npga.core.similarity import Similarity
from npga.core.store import load_tensors, save_tensors
from nphm_tracking.align import nearest_true
from nphm_tracking.config import StageConfig, StageKind, TrackConfig
from nphm_tracking.frames import FrameData, FrameState, LandmarkMiss, LandmarkMotion, Person
from nphm_tracking.head import (
    TrackableHead,
    canonical_landmarks,
    expression_prior,
    geometry_prior,
    landmark_slopes,
)
from nphm_tracking.identity import fit_identity, landmark_bias
from nphm_tracking.keyframes import REST_WEIGHT, Keyframes, choose_keyframes, gather, scatter
from nphm_tracking.observe import Observed
from nphm_tracking.photometric import CapturePictures, Photometry
from nphm_tracking.pictures import PictureWeights, face_surface
from nphm_tracking.result import SequenceTrack
from nphm_tracking.solve import normal_equations, solve_frames

UNIT_FORMAT = "npga.track.unit"


@dataclass(frozen=True)
class Solution:
    """Everything the tracker has found so far."""

    person: Person
    bias: Float[Tensor, "l 3"]
    """Personal landmark offsets, head units."""
    states: dict[str, FrameState]
    """By sequence."""


def start_solution(
    model: TrackableHead, observed: list[Observed], motion: LandmarkMotion | None = None
) -> Solution:
    """The mean head at the first poses, every code neutral."""
    prior, geometry = expression_prior(model), geometry_prior(model)
    scale = observed[0].start.scale[0]
    with torch.no_grad():
        landmarks = canonical_landmarks(model, geometry.mean)
    if observed[0].data.landmarks.shape[1] == 0:
        landmarks = landmarks[:0]
    states = {
        o.name: FrameState(
            prior.mean.expand(len(o.frames), -1).clone(),
            o.start.rotation,
            o.start.translation,
            landmarks.expand(len(o.frames), -1, -1).clone(),
        )
        for o in observed
    }
    slopes = landmark_slopes(model) if len(landmarks) else None
    motion = motion if len(landmarks) else None
    person = Person(model, geometry.mean.clone(), scale.clone(), landmarks, prior, slopes, motion)
    return Solution(person, torch.zeros_like(landmarks), states)


def solve_stages(
    observed: list[Observed],
    solution: Solution,
    config: TrackConfig,
    folder: Path,
    pictures: CapturePictures | None = None,
) -> Solution:
    """Run the ordered stages; each prints what it found. `pictures` None: without their stage."""
    for number, stage in enumerate(config.stages):
        label = f"{number + 1}-{stage.kind.value}"
        if stage.kind is StageKind.pictures:
            if pictures is not None:
                solution = solve_pictures(observed, solution, stage, folder, label, pictures)
            continue
        if stage.kind is not StageKind.sequential:
            path = folder / "state" / f"{label}.safetensors"
            chosen = choose_keyframes(observed, stage.frames, config.seed)
            solution = _once(
                path,
                solution,
                lambda now, s=stage, c=chosen: solve_identity(observed, now, s, c),
            )
            say(f"track {label}: identity from {len(chosen.rows)} frames, {_state_of(solution)}")
        if stage.kind is not StageKind.keyframe:
            solution = _all_frames(observed, solution, stage, folder, label)
            _tell_distance(observed, solution, stage, label)
    return solution


def solve_pictures(
    observed: list[Observed],
    solution: Solution,
    stage: StageConfig,
    folder: Path,
    label: str,
    pictures: CapturePictures,
) -> Solution:
    """The stage `pictures`: looks are learned and every frame is solved with them, by rounds."""
    weights = PictureWeights(stage.brightness, stage.brightness_scale, matte=0.0)
    person = solution.person
    surface = face_surface(person.model, person)
    for turn in range(stage.rounds):
        looks = Photometry(pictures, observed, person, surface, solution.states, weights)
        solution = _all_frames(observed, solution, stage, folder, f"{label}-{turn}", looks)
    _tell_distance(observed, solution, stage, label)
    return solution


def _tell_distance(
    observed: list[Observed], solution: Solution, stage: StageConfig, label: str
) -> None:
    errors = torch.cat([frame_residual_mm(o, solution, stage)[o.enough] for o in observed])
    say(f"track {label}: {len(errors)} frames, median distance {errors.median():.2f} mm")


def _state_of(solution: Solution) -> str:
    size = float(solution.person.z_geo.norm())
    return f"|z_geo| {size:.2f}, 1 unit = {1000 * float(solution.person.scale):.1f} mm"


def _all_frames(
    observed: list[Observed],
    solution: Solution,
    stage: StageConfig,
    folder: Path,
    label: str,
    looks: Photometry | None = None,
) -> Solution:
    """Codes and poses of every frame; sequences are independent and kept one by one."""
    with bar(f"track {label}", len(observed)) as shown:
        for index, one in enumerate(observed):
            path = folder / "state" / f"{label}-{index}.safetensors"
            solution = _once(path, solution, lambda now, o=one: _sequence(o, now, stage, looks))
            shown.update()
    return solution


def _sequence(
    one: Observed, solution: Solution, stage: StageConfig, looks: Photometry | None
) -> Solution:
    state = solution.states[one.name]
    data = thinned(one.data, stage.points)
    if bool(one.enough.any()):
        state = spread_poses(state, one.enough)
        more = None if looks is None else looks.terms(one)
        state = solve_frames(solution.person, data, state, stage, more=more)
    return replace(solution, states={**solution.states, one.name: state})


def spread_poses(state: FrameState, enough: Tensor) -> FrameState:
    """Frames without data start where their nearest good neighbour stands."""
    rows = torch.tensor([nearest_true(enough, t) for t in range(len(enough))])
    return replace(state, rotation=state.rotation[rows], translation=state.translation[rows])


def thinned(data: FrameData, count: int) -> FrameData:
    """The first `count` points of every frame (their order is random already)."""
    return replace(
        data,
        points=data.points[:, :count],
        normals=data.normals[:, :count],
        point_weight=data.point_weight[:, :count],
    )


def solve_identity(
    observed: list[Observed], solution: Solution, stage: StageConfig, chosen: Keyframes
) -> Solution:
    """Identity, scale and landmark offsets from the chosen frames, whose codes move too.

    Frames at rest hold their codes near neutral (weight REST_WEIGHT): they anchor the identity and
    the landmark offsets. The first stage begins with them alone.
    """
    data, state = gather(observed, solution.states, chosen)
    data = thinned(data, stage.points)
    rest = chosen.rest
    data = replace(data, code_weight=torch.where(rest, REST_WEIGHT, 1.0))
    person, bias = solution.person, solution.bias
    geometry = geometry_prior(person.model)
    first = stage.kind is StageKind.keyframe
    with bar(f"track {stage.kind.value}: identity", stage.rounds) as shown:
        for number in range(stage.rounds):
            use = rest if first and number == 0 and bool(rest.any()) else torch.ones_like(rest)
            part = solve_frames(person, data[use], state[use], stage)
            person, part = fit_identity(person, data[use], part, bias, geometry, stage)
            state = _merged(state, part, use)
            if first and bool(rest.any()):
                bias = landmark_bias(person, data[rest], state[rest])
            person = replace(person, landmarks=canonical_landmarks_of(person, bias))
            shown.update()
    _, before = gather(observed, solution.states, chosen)
    change = common_change(before.pose(solution.person.scale), state.pose(person.scale))
    states = {k: carried_along(s, change, person.scale) for k, s in solution.states.items()}
    return Solution(person, bias, scatter(states, observed, chosen, state))


def common_change(before: Similarity, after: Similarity) -> Similarity:
    """The motion in head space that keyframes share: where the identity moved its own origin."""
    moved = before.inverse().compose(after)
    middle = moved.mean()
    return Similarity(middle.scale, middle.rotation, moved.translation.median(0).values)


def carried_along(state: FrameState, change: Similarity, scale: Tensor) -> FrameState:
    """All frames after the common change, with the keyframes' new scale."""
    frames = len(state.z_exp)
    pose = state.pose(scale / change.scale).compose(
        Similarity(
            change.scale.expand(frames),
            change.rotation.expand(frames, -1, -1),
            change.translation.expand(frames, -1),
        )
    )
    return replace(state, rotation=pose.rotation, translation=pose.translation)


def canonical_landmarks_of(person: Person, bias: Float[Tensor, "l 3"]) -> Float[Tensor, "l 3"]:
    """The person's canonical landmarks with the personal offsets; empty where none are observed."""
    if not len(bias):
        return bias
    with torch.no_grad():
        return canonical_landmarks(person.model, person.z_geo) + bias


def _merged(state: FrameState, part: FrameState, use: Tensor) -> FrameState:
    merged = FrameState(
        state.z_exp.clone(), state.rotation.clone(), state.translation.clone(), state.marks.clone()
    )
    merged.z_exp[use], merged.rotation[use] = part.z_exp, part.rotation
    merged.translation[use], merged.marks[use] = part.translation, part.marks
    return merged


def frame_residual_mm(one: Observed, solution: Solution, stage: StageConfig) -> Float[Tensor, "t"]:
    """Median distance of each frame's face points to the tracked surface; inf without points.

    Of one camera, which gives no points: the landmarks' median distance to their rays.
    """
    state = solution.states[one.name]
    if one.data.landmark_ray is not None:
        marks = solution.person.posed_landmarks(state).marks
        miss = LandmarkMiss.of(one.data, state, marks, solution.person.scale)
        apart = 1000 * solution.person.scale * miss.error.norm(dim=-1)
        apart = torch.where(one.data.landmark_weight > 0, apart, torch.nan)
        return apart.nanmedian(1).values.nan_to_num(torch.inf)
    data = replace(
        one.data,
        landmarks=one.data.landmarks[:, :0],
        landmark_weight=one.data.landmark_weight[:, :0],
    )
    state = replace(state, marks=state.marks[:, :0])
    with torch.no_grad():
        found = normal_equations(solution.person, data, state, stage)
    face = torch.where(data.point_weight >= 0.99, found.residual_mm.abs(), torch.nan)
    return face.nanmedian(1).values.nan_to_num(torch.inf)


def finish_sequence(one: Observed, solution: Solution, config: TrackConfig) -> SequenceTrack:
    """The sequence's track; a failed frame is marked, neutral, and where its neighbour is."""
    residual = frame_residual_mm(one, solution, config.stages[-1])
    state, prior = solution.states[one.name], solution.person.prior
    ok = one.enough & (residual <= config.residual_max_mm)
    z_exp = torch.where(ok[:, None], state.z_exp, prior.mean)
    if bool(ok.any()):
        state = spread_poses(state, ok)
    pose = state.pose(solution.person.scale)
    return SequenceTrack(one.frames, z_exp, pose, residual, ok, one.fps)


def require_points(observed: list[Observed], points_min: int, alignment: Path | None) -> None:
    """Refuse a capture of which no frame shows enough of the face.

    `alignment`: the picture of the first poses, where there is one.
    """
    if not any(bool(one.enough.any()) for one in observed):
        raise TrackError(
            f"No frame has {points_min} surface points or more on the face (points_min).",
            _advice(alignment, "check the calibration and the point clouds, or lower points_min."),
        )


def require_frames(
    sequences: dict[str, SequenceTrack], limit_mm: float, alignment: Path | None
) -> None:
    """Refuse a result in which no frame was tracked; `alignment` as in `require_points`."""
    if not any(bool(s.ok.any()) for s in sequences.values()):
        least = min(float(s.residual_mm.min()) for s in sequences.values())
        raise TrackError(
            f"No frame was tracked: the best median surface distance is {least:.1f} mm, "
            f"the limit {limit_mm} mm.",
            _advice(alignment, "check the calibration, or raise residual_max_mm."),
        )


def _advice(alignment: Path | None, todo: str) -> str:
    if alignment is None:
        return todo[0].upper() + todo[1:]
    return f"See in {alignment} whether the mean head stands on the face; {todo}"


def _once(path: Path, solution: Solution, work: Callable[[Solution], Solution]) -> Solution:
    """The unit's kept result, or its result now, kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        return _load_unit(path, solution)
    done = work(solution)
    names = list(done.states)
    tensors = {
        "z_geo": done.person.z_geo,
        "scale": done.person.scale,
        "landmarks": done.person.landmarks,
        "bias": done.bias,
    }
    for index, name in enumerate(names):
        state = done.states[name]
        tensors[f"{index}.z_exp"] = state.z_exp
        tensors[f"{index}.rotation"] = state.rotation
        tensors[f"{index}.translation"] = state.translation
        tensors[f"{index}.marks"] = state.marks
    save_tensors(path, tensors, format=UNIT_FORMAT, version=1, meta={"sequences": names})
    return done


def _load_unit(path: Path, solution: Solution) -> Solution:
    tensors, meta = load_tensors(path, format=UNIT_FORMAT, version=1)
    states = {
        name: FrameState(
            *(tensors[f"{i}.{key}"] for key in ("z_exp", "rotation", "translation", "marks"))
        )
        for i, name in enumerate(meta["sequences"])
    }
    person = replace(
        solution.person,
        z_geo=tensors["z_geo"],
        scale=tensors["scale"],
        landmarks=tensors["landmarks"],
    )
    return Solution(person, tensors["bias"], states)
