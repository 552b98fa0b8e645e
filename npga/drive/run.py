"""`npga drive`: a recording or a live camera."""

from npga.drive.config import DriveConfig
from npga.drive.live import drive_live
from npga.drive.video import drive_video


def run(config: DriveConfig) -> None:
    """Drive an avatar; raises NpgaError subclasses in two lines."""
    if config.video is not None:
        drive_video(config)
    else:
        drive_live(config)
