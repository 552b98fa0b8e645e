"""The avatar's side of driving: opened once, then asked for one picture at a time."""

from dataclasses import dataclass

import torch

from npga.avatar.avatar import Avatar
from npga.avatar.store import avatar_file, load_avatar
from npga.core.cameras import Cameras
from npga.core.device import resolve_device
from npga.core.images import ImageArray, to_uint8
from npga.core.similarity import Similarity
from npga.drive.config import DriveConfig
from npga.drive.driver import Equipment
from npga.drive.puppet import Driven, Puppet
from npga.reenact.driven import avatar_face, avatar_hull, retargeting_to
from npga.reenact.openings import Gaps
from npga.reenact.retarget import SHARE, Face, Hull
from npga.render.render import draw_avatar
from nphm_tracking import load_track


@dataclass(frozen=True)
class Stage:
    """An avatar ready to be driven."""

    config: DriveConfig
    equipment: Equipment
    avatar: Avatar
    hull: Hull
    face: Face
    """Hull and face on the CPU, where drivers are tracked."""

    @staticmethod
    def open(config: DriveConfig) -> "Stage":
        """Load what is needed; raises CheckpointError, or TrackError for another head model."""
        equipment = Equipment.open(config.head_model, config.prior)
        avatar = load_avatar(avatar_file(config.avatar), equipment.model.checksum())
        own = None if config.avatar_track is None else load_track(config.avatar_track)
        face = avatar_face(avatar, equipment.model, own)
        hull = avatar_hull(avatar)
        device = resolve_device(config.device)
        return Stage(config, equipment, avatar.to(device).eval(), hull, face)

    @property
    def rest(self) -> Similarity:
        """The pose that the avatar's head moves about."""
        return self.avatar.torso.rest.to("cpu")

    def puppet(self, driver: Face, driver_rest: Similarity) -> Puppet:
        """Moves the avatar by a calibrated driver."""
        config, model = self.config, self.equipment.model
        retargeting = retargeting_to(self.hull, driver, self.face, model, clamp=config.clamp)
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


def driver_face(codes: torch.Tensor, z_geo: torch.Tensor, equipment: Equipment) -> Face:
    """The driver's calibration, from all codes [t e] of the frames with a face."""
    return Face.of_codes(codes, Gaps.of(equipment.model, z_geo))
