"""The driver's frames made the avatar's, one at a time: filtered, never jumping, retargeted.

d = e + 6 numbers of a frame: the code, and the head's motion from its rest (rotation vector,
translation in head units). The same object serves a video and a live camera.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from npga.core.rotations import matrix_from_rotvec, rotvec_from_matrix
from npga.core.similarity import Similarity
from npga.drive.config import FilterConfig
from npga.drive.filters import OneEuro, Presence
from npga.reenact.retarget import Retargeting
from nphm_tracking.follow import Followed

NECK = (0.0, -0.6, -0.25)
"""Where the neck stands on the torso, head units: the torso goes along with this point of the head,
since a driver's whole body moves before the camera, but it does not turn."""


@dataclass(frozen=True)
class Driven:
    """One frame for an avatar."""

    z_exp: Float[Tensor, " e"]
    world_from_head: Similarity
    """Unbatched, in the avatar's world."""
    world_from_torso: Similarity
    hull_distance: float
    """Before clamping; see `reenact.retarget.Hull.distance`."""
    found: bool
    """Whether the driver's face was in the picture."""


class Puppet:
    """Moves an avatar by one driver's frames."""

    def __init__(
        self,
        retargeting: Retargeting,
        driver_rest: Similarity,
        avatar_rest: Similarity,
        share: float,
        filters: FilterConfig,
    ) -> None:
        """Rests are single poses; `share` of the driver's head motion is taken (0..1)."""
        self.retargeting, self.share = retargeting, share
        self._from_rest = driver_rest.inverse()
        self._avatar_rest = avatar_rest
        self._codes = OneEuro(filters.cutoff_hz, filters.beta)
        self._pose = OneEuro(filters.pose_cutoff_hz, filters.pose_beta)
        neutral = retargeting.driver.neutral
        self._presence = Presence(torch.cat([neutral, neutral.new_zeros(6)]), filters.timing)
        self._lost = True

    @torch.no_grad()
    def __call__(self, followed: Followed, seconds: float) -> Driven:
        """What the avatar does at this time, whether a face was found or not."""
        signal = None
        if followed.found:
            if self._lost:  # what was before the gap must not smooth what comes after
                self._codes.reset()
                self._pose.reset()
            moved = self._from_rest.compose(followed.world_from_head)
            motion = torch.cat([rotvec_from_matrix(moved.rotation), moved.translation])
            signal = torch.cat([self._codes(followed.z_exp, seconds), self._pose(motion, seconds)])
        self._lost = not followed.found
        shown = self._presence(signal, seconds)
        codes, distance = self.retargeting(shown[None, :-6])
        head, torso = self._poses(self.share * shown[-6:])
        return Driven(codes[0], head, torso, float(distance[0]), followed.found)

    def _poses(self, motion: Float[Tensor, "6"]) -> tuple[Similarity, Similarity]:
        one, still = motion.new_ones(()), torch.eye(3).to(motion)
        turn = matrix_from_rotvec(motion[:3])
        neck = motion.new_tensor(NECK)
        carried = turn @ neck + motion[3:] - neck
        head = self._avatar_rest.compose(Similarity(one, turn, motion[3:]))
        return head, self._avatar_rest.compose(Similarity(one, still, carried))
