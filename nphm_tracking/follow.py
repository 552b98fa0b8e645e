"""A face followed through the pictures of one camera, frame by frame, as they come.

``calibrate`` finds out who it is from some frames of the take; a ``FaceFollower`` then solves one
frame at a time from where the last one ended, a few Gauss-Newton steps each. The batch twin is
``solve.solve_frames`` on all frames at once.

t frames, l landmarks that are used (``landmarks.used_landmarks``), e expression size. A follower
knows no smoothness: filtering is for who uses it.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from npga.core.cameras import Cameras
from npga.core.errors import TrackError
from npga.core.similarity import Similarity
from nphm_tracking.config import StageConfig, StageKind
from nphm_tracking.frames import FrameData, FrameState, LandmarkMiss, LandmarkMotion, Person
from nphm_tracking.head import (
    TrackableHead,
    expression_prior,
    geometry_prior,
    landmark_slopes,
)
from nphm_tracking.identity import fit_identity, landmark_bias
from nphm_tracking.keyframes import REST_WEIGHT, choose_keyframes
from nphm_tracking.monocular import lift_landmarks
from nphm_tracking.observe import Observed
from nphm_tracking.result import Track
from nphm_tracking.solve import solve_frames
from nphm_tracking.track import canonical_landmarks_of, start_solution

KEYFRAMES = 12
"""Frames that decide who it is."""
IDENTITY = StageConfig(
    kind=StageKind.keyframe, frames=KEYFRAMES, rounds=1, iterations=8, identity_steps=8
)
FOLLOWING = StageConfig(kind=StageKind.sequential, iterations=3)
ASKED = 60
"""Frames among which those at rest are sought."""
REST_SPREAD = 2.0
RESTING = 6
"""Frames at rest that decide the landmark offsets."""
OFFSET_ROUNDS = 3
CATCHING_UP = 10
"""Iterations of the first frame, and of the first after a gap."""
LOST_MM = 12.0
"""Median distance of the landmarks to their rays above which a frame is not the face."""


def calibrate(
    model: TrackableHead,
    motion: LandmarkMotion | None,
    observed: Observed,
    stage: StageConfig = IDENTITY,
) -> Person:
    """Who is seen: identity from the take's most different frames, landmark offsets from its rest.

    The scale is that of ``observed.start``. A take may smile for longer than it rests, so rest is
    not its median shape but where the identity needs the least expression. Ours.
    """
    solution = start_solution(model, [observed], motion)
    person, start = solution.person, solution.states[observed.name]
    rows = choose_keyframes([observed], stage.frames, seed=0).rows
    data, state = observed.data[rows], start[rows]
    state = solve_frames(person, data, state, stage)
    geometry = geometry_prior(model)
    for _ in range(stage.rounds):
        person, state = fit_identity(person, data, state, solution.bias, geometry, stage)
    rows = rest_rows(observed, person, start, stage)
    resting = replace(observed.data[rows], code_weight=torch.full((len(rows),), REST_WEIGHT))
    state = start[rows]
    for _ in range(OFFSET_ROUNDS):
        state = solve_frames(person, resting, state, stage)
        bias = landmark_bias(person, resting, state)
        person = replace(person, landmarks=canonical_landmarks_of(person, bias))
    return person


def rest_rows(
    observed: Observed, person: Person, start: FrameState, stage: StageConfig
) -> Int[Tensor, " k"]:
    """The frames of a take that need the least expression of this identity, spread over the take.

    Those in the lowest quarter whose codes are at most `REST_SPREAD` times the least. Ours.
    """
    usable = torch.nonzero(observed.enough).flatten()
    asked = usable[torch.linspace(0, len(usable) - 1, min(ASKED, len(usable))).round().long()]
    state = solve_frames(person, observed.data[asked], start[asked], stage, CATCHING_UP)
    amount = ((state.z_exp - person.prior.mean) / person.prior.std).square().sum(1)
    limit = torch.minimum(amount.quantile(0.25), REST_SPREAD * amount.amin())
    rest = asked[amount <= torch.maximum(limit, amount.amin())]
    return rest[torch.linspace(0, len(rest) - 1, min(RESTING, len(rest))).round().long()]


def known_person(model: TrackableHead, motion: LandmarkMotion | None, track: Track) -> Person:
    """The person of a track, with its size and landmarks; raises TrackError where it has none."""
    if track.landmarks is None:
        raise TrackError(
            f"The track of {track.participant} holds no landmarks of its person.",
            "Run `npga track` again with landmarks, or leave driver_track out.",
        )
    scale = next(iter(track.sequences.values())).world_from_head.scale[0]
    slopes = landmark_slopes(model)
    prior = expression_prior(model)
    return Person(model, track.z_geo, scale, track.landmarks, prior, slopes, motion)


@dataclass(frozen=True)
class Followed:
    """One frame."""

    z_exp: Float[Tensor, " e"]
    world_from_head: Similarity
    """Unbatched; the world is the camera's unless the camera stands elsewhere."""
    residual_mm: float
    """Median distance of the landmarks to their rays."""
    found: bool
    """False: no face here; code and pose are those of the last frame that had one."""


class FaceFollower:
    """Codes and poses of a calibrated face, one frame after the other."""

    def __init__(
        self,
        person: Person,
        camera: Cameras,
        importance: Float[Tensor, " l"],
        stage: StageConfig = FOLLOWING,
    ) -> None:
        """`camera` is one camera at the size of the pixels that come; `importance` per landmark."""
        self.person = person
        self.camera = camera
        self.stage = stage
        self._importance = importance
        self._state: FrameState | None = None
        self._lost = True

    @torch.no_grad()
    def follow(self, pixels: Float[Tensor, "l 2"] | None) -> Followed:
        """The next frame; None where no face was found. Raises nothing for a bad frame."""
        if pixels is None:
            return self._missing()
        data, start = self._observed(pixels)
        fresh = self._state is None or self._lost
        state = start if self._state is None or self._lost else self._state
        iterations = CATCHING_UP if fresh else self.stage.iterations
        state = solve_frames(self.person, data, state, self.stage, iterations)
        residual = self._residual_mm(data, state)
        if residual > LOST_MM:
            return self._missing()
        self._state, self._lost = state, False
        return Followed(state.z_exp[0], state.pose(self.person.scale)[0], residual, True)

    def _missing(self) -> Followed:
        self._lost = True
        state = self._state
        if state is None:
            prior = self.person.prior
            pose = Similarity(self.person.scale, torch.eye(3), torch.zeros(3))
            return Followed(prior.mean, pose, float("inf"), False)
        return Followed(state.z_exp[0], state.pose(self.person.scale)[0], float("inf"), False)

    def _observed(self, pixels: Float[Tensor, "l 2"]) -> tuple[FrameData, FrameState]:
        person, count = self.person, len(pixels)
        # A head unit is the person's: landmarks are lifted at that size.
        lifted = lift_landmarks(
            pixels[None], torch.ones(1, count), self.camera, person.landmarks, float(person.scale)
        )
        empty = torch.zeros(1, 0)
        data = FrameData(
            torch.zeros(1, 0, 3),
            torch.zeros(1, 0, 3),
            empty,
            lifted.points,
            lifted.weight * self._importance,
            torch.zeros(0),
            torch.ones(1),
            lifted.ray,
        )
        start = FrameState(
            person.prior.mean[None],
            lifted.start.rotation,
            lifted.start.translation,
            person.landmarks[None],
        )
        return data, start

    def _residual_mm(self, data: FrameData, state: FrameState) -> float:
        marks = self.person.posed_landmarks(state).marks
        miss = LandmarkMiss.of(data, state, marks, self.person.scale)
        return float(1000 * self.person.scale * miss.error.norm(dim=-1).median())
