"""A face followed through the pictures of one camera, frame by frame, as they come.

``calibrate`` finds out who it is from some frames of the take; a ``FaceFollower`` then solves one
frame at a time from where the last one ended, a few Gauss-Newton steps each (``single``). The batch
twin is ``solve.solve_frames`` on all frames at once.

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
from nphm_tracking.single import solve_single
from nphm_tracking.solve import solve_frames
from nphm_tracking.track import canonical_landmarks_of, start_solution

SCORE = 0.5
"""Weight of a detector's scores against the landmarks' mean squared distance in mm."""
KEYFRAMES = 12
"""Frames that decide who it is."""
IDENTITY = StageConfig(
    kind=StageKind.keyframe, frames=KEYFRAMES, rounds=1, iterations=8, identity_steps=8
)
FOLLOWING = StageConfig(kind=StageKind.sequential, iterations=3, score=SCORE)
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


@dataclass(frozen=True)
class Calibration:
    """Who is followed, and what a detector says of the face at rest."""

    person: Person
    rest_scores: Float[Tensor, " e"] | None = None

    def targets(self, scores: Float[Tensor, "t e"]) -> Float[Tensor, "t e"]:
        """A detector's scores as codes of this person: 0 at rest, 1 where they are 1."""
        if self.rest_scores is None:
            return scores
        room = (1 - self.rest_scores).clamp_min(0.2)
        return ((scores - self.rest_scores) / room).clamp(0, 1)


def calibrate(
    model: TrackableHead,
    motion: LandmarkMotion | None,
    observed: Observed,
    stage: StageConfig = IDENTITY,
) -> Calibration:
    """Who is seen: identity from the take's most different frames, landmark offsets from its rest.

    The scale is that of ``observed.start``. A take may smile for longer than it rests, so rest is
    not its median shape: it is where a detector's scores are least or, without scores, where the
    identity needs the least expression. Ours.
    """
    solution = start_solution(model, [observed], motion)
    person, start = solution.person, solution.states[observed.name]
    plain = replace(observed, data=replace(observed.data, scores=None))
    rows = choose_keyframes([plain], stage.frames, seed=0).rows
    data, state = plain.data[rows], start[rows]
    state = solve_frames(person, data, state, stage)
    geometry = geometry_prior(model)
    for _ in range(stage.rounds):
        person, state = fit_identity(person, data, state, solution.bias, geometry, stage)
    rows = rest_rows(observed, person, start, stage)
    resting = replace(plain.data[rows], code_weight=torch.full((len(rows),), REST_WEIGHT))
    state = start[rows]
    for _ in range(OFFSET_ROUNDS):
        state = solve_frames(person, resting, state, stage)
        bias = landmark_bias(person, resting, state)
        person = replace(person, landmarks=canonical_landmarks_of(person, bias))
    scores = observed.data.scores
    return Calibration(person, None if scores is None else scores[rows].median(0).values)


def rest_rows(
    observed: Observed, person: Person, start: FrameState, stage: StageConfig
) -> Int[Tensor, " k"]:
    """The frames of a take that show the least expression, spread over the take.

    Those in the lowest quarter of which the amount is at most `REST_SPREAD` times the least. Ours.
    """
    usable = torch.nonzero(observed.enough).flatten()
    asked = usable[torch.linspace(0, len(usable) - 1, min(ASKED, len(usable))).round().long()]
    if observed.data.scores is not None:
        scores = observed.data.scores[asked].nan_to_num(0.0)
        amount = (scores - scores.quantile(0.1, dim=0)).clamp_min(0).square().sum(1)
    else:
        state = solve_frames(person, observed.data[asked], start[asked], stage, CATCHING_UP)
        amount = ((state.z_exp - person.prior.mean) / person.prior.std).square().sum(1)
    limit = torch.minimum(amount.quantile(0.25), REST_SPREAD * amount.amin())
    rest = asked[amount <= torch.maximum(limit, amount.amin())]
    return rest[torch.linspace(0, len(rest) - 1, min(RESTING, len(rest))).round().long()]


def known_person(
    model: TrackableHead, motion: LandmarkMotion | None, observed: Observed, track: Track
) -> Calibration:
    """The person of a track, with its size and landmarks; raises TrackError where it has none."""
    if track.landmarks is None:
        raise TrackError(
            f"The track of {track.participant} holds no landmarks of its person.",
            "Run `npga track` again with landmarks, or leave driver_track out.",
        )
    scale = next(iter(track.sequences.values())).world_from_head.scale[0]
    slopes, prior = landmark_slopes(model), expression_prior(model)
    person = Person(model, track.z_geo, scale, track.landmarks, prior, slopes, motion)
    scores = observed.data.scores
    if scores is None:
        return Calibration(person)
    start = start_solution(model, [observed], motion).states[observed.name]
    rows = rest_rows(observed, person, start, IDENTITY)
    return Calibration(person, scores[rows].median(0).values)


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
        calibration: Calibration,
        camera: Cameras,
        importance: Float[Tensor, " l"],
        stage: StageConfig = FOLLOWING,
    ) -> None:
        """`camera` is one camera at the size of the pixels that come; `importance` per landmark."""
        self.calibration = calibration
        self.person = calibration.person
        self.camera = camera
        self.stage = stage
        self._importance = importance
        self._state: FrameState | None = None
        self._lost = True

    @torch.no_grad()
    def follow(
        self, pixels: Float[Tensor, "l 2"] | None, scores: Float[Tensor, " e"] | None = None
    ) -> Followed:
        """The next frame; None where no face was found. Raises nothing for a bad frame.

        `scores` are a detector's, NaN where it knows none.
        """
        if pixels is None or not bool(pixels.isfinite().all()):
            return self._missing()
        fresh = self._state is None or self._lost
        try:
            data, state = self._observed(pixels, None if fresh else self._state)
        except TrackError:  # landmarks that fix no pose
            return self._missing()
        if scores is not None:
            data = replace(data, scores=self.calibration.targets(scores[None]))
        iterations = CATCHING_UP if fresh else self.stage.iterations
        solve = solve_single if self.person.carries else solve_frames
        state = solve(self.person, data, state, self.stage, iterations)
        residual = self._residual_mm(data, state)
        if not residual <= LOST_MM:  # nor where it is not a number
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

    def _observed(
        self, pixels: Float[Tensor, "l 2"], state: FrameState | None
    ) -> tuple[FrameData, FrameState]:
        """What is seen, and where its solution starts: at `state`, or at a pose that is sought."""
        person, seen = self.person, torch.ones(1, len(pixels))
        # A head unit is the person's: landmarks are lifted at that size.
        size, known = float(person.scale), None if state is None else state.pose(person.scale)
        lifted = lift_landmarks(pixels[None], seen, self.camera, person.landmarks, size, known)
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
        if state is None:
            start, marks = lifted.start, person.landmarks[None]
            state = FrameState(person.prior.mean[None], start.rotation, start.translation, marks)
        return data, state

    def _residual_mm(self, data: FrameData, state: FrameState) -> float:
        miss = LandmarkMiss.of(data, state, state.marks, self.person.scale)
        return float(1000 * self.person.scale * miss.error.norm(dim=-1).median())
