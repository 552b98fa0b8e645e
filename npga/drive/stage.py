"""The avatar's side of driving: opened once, then asked for one picture at a time."""

from dataclasses import dataclass

import torch

from npga.avatar.avatar import Avatar
from npga.avatar.store import load_avatar
from npga.core.cameras import Cameras
from npga.core.device import resolve_device
from npga.core.images import ImageArray, to_uint8
from npga.core.similarity import Similarity
from npga.drive.config import DriveConfig
from npga.drive.driver import Equipment
from npga.drive.puppet import Driven, Puppet
from npga.reenact.nearest import likeness
from npga.reenact.openings import Gaps, Openings
from npga.reenact.retarget import SHARE, Face, Hull, Retargeting
from npga.reenact.source import face_of
from npga.render.render import avatar_file, draw_avatar
from nphm_tracking import load_track


@dataclass(frozen=True)
class Stage:
    """An avatar ready to be driven."""

    config: DriveConfig
    equipment: Equipment
    avatar: Avatar
    face: Face

    @staticmethod
    def open(config: DriveConfig) -> "Stage":
        """Load what is needed; raises CheckpointError, or TrackError for another head model."""
        equipment = Equipment.open(config.head_model, config.prior)
        avatar = load_avatar(avatar_file(config.avatar), equipment.model.checksum())
        face = avatar_face(avatar, equipment, config.avatar_track)
        return Stage(config, equipment, avatar.to(resolve_device(config.device)).eval(), face)

    @property
    def rest(self) -> Similarity:
        """The pose that the avatar's head moves about."""
        return self.avatar.torso.rest.to("cpu")

    def puppet(self, driver: Face, driver_rest: Similarity) -> Puppet:
        """Moves the avatar by a calibrated driver."""
        known, model, config = self.avatar.expressions, self.equipment.model, self.config
        retargeting = Retargeting(
            driver,
            self.face,
            model.exp_lower,
            model.exp_upper,
            Hull(known.lower.cpu(), known.upper.cpu()),
            config.clamp,
            likeness(model),
        )
        share = SHARE[config.head_motion]
        return Puppet(retargeting, driver_rest, self.rest, share, config.filter)

    def picture(self, driven: Driven, camera: Cameras) -> ImageArray:
        """The avatar from one camera."""
        config = self.config
        drawn = draw_avatar(
            self.avatar,
            driven.z_exp,
            driven.world_from_head,
            driven.world_from_torso,
            camera,
            refine=config.refine,
            backend=config.backend,
        )
        return to_uint8(drawn[0])


def avatar_face(avatar: Avatar, equipment: Equipment, track: str | None) -> Face:
    """The avatar's calibration: of its own track, else of what it remembers of its training."""
    if track is not None:
        own = load_track(track)
        own.require_model(equipment.model.checksum())
        return face_of(own, equipment.model)
    known = avatar.expressions
    gaps = Gaps.of(equipment.model)
    if gaps is None:
        return Face(known.neutral)
    closed = gaps.by_strongest(known.upper)
    return Face(known.neutral, Openings.calibrated(gaps, known.neutral, None, closed))


def driver_face(codes: torch.Tensor, z_geo: torch.Tensor, equipment: Equipment) -> Face:
    """The driver's calibration, from all codes [t e] of the frames with a face."""
    return Face.of_codes(codes, Gaps.of(equipment.model, z_geo))
