"""What goes wrong in users' hands, always told in two lines.

The first line says what was given, what was expected and where; the second says what to do.
"""


class NpgaError(Exception):
    """An error that a user can act on; ``str()`` gives its two lines."""

    exit_code = 1

    def __init__(self, what: str, todo: str) -> None:
        super().__init__(what, todo)
        self.what = " ".join(what.split())
        self.todo = " ".join(todo.split())

    def __str__(self) -> str:
        return f"{self.what}\n{self.todo}"


class ConfigError(NpgaError):
    """A command, key or value that does not exist or is out of range."""

    exit_code = 2


class CaptureError(NpgaError):
    """A capture folder, video, calibration or matte that cannot be used."""


class TrackError(NpgaError):
    """A track that cannot be made or does not hold what was asked of it."""


class CheckpointError(NpgaError):
    """A weights file of another format, version, size or partner."""


class DeviceError(NpgaError):
    """A device or back-end that this machine lacks."""


class OutputError(NpgaError):
    """A result that exists already, or that cannot be written."""
