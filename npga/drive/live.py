from npga.drive.config import DriveConfig


def drive_live(config: DriveConfig) -> None:
    raise NotImplementedError
