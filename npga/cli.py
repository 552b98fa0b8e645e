"""``npga <command> key=value ...``: finds the command, composes its settings, runs it.

Every mistake a user can make ends in two lines on stderr and an exit code other than zero; a
traceback is shown only for our own bugs, and only with ``--debug``.
"""

import errno
import importlib
import os
import signal
import sys
from dataclasses import dataclass
from types import FrameType
from typing import Any

from npga.core.errors import ConfigError, NpgaError, OutputError


@dataclass(frozen=True)
class Command:
    """One command: what it does, its settings' schema and its function, both as ``module:name``."""

    help: str
    schema: str
    function: str


COMMANDS: dict[str, Command] = {
    "demo": Command(
        "the whole path on the shipped capture", "npga.demo:DemoConfig", "npga.demo:run"
    ),
    "capture check": Command(
        "examine a capture, with an overlay picture",
        "npga.capture.config:CaptureCheckConfig",
        "npga.capture.run:run_check",
    ),
    "capture synth": Command(
        "render a capture of generated people",
        "npga.capture.synthetic.config:CaptureSynthConfig",
        "npga.capture.synthetic.run:run_synth",
    ),
    "prior": Command(
        "train the open head prior",
        "nphm_tracking.prior.config:PriorConfig",
        "nphm_tracking.prior.run:run",
    ),
    "track": Command(
        "capture -> identity, expressions and head poses",
        "nphm_tracking.config:TrackConfig",
        "npga.distill.landmarks:track",
    ),
    "distill": Command(
        "head model -> forward prior F",
        "npga.distill.config:DistillConfig",
        "npga.distill.run:run",
    ),
    "fit": Command(
        "capture + track + F -> avatar", "npga.fit.config:FitConfig", "npga.fit.run:run"
    ),
    "correct": Command(
        "a track corrected by how the person's avatar looks in the pictures",
        "npga.fit.config:CorrectConfig",
        "npga.fit.correct:run",
    ),
    "evaluate": Command(
        "an avatar on held-out cameras and sequences",
        "npga.fit.config:EvaluateConfig",
        "npga.fit.report:run_evaluate",
    ),
    "render": Command(
        "an avatar along a camera path: video, PNGs, depth, normals",
        "npga.render.config:RenderConfig",
        "npga.render.run:run",
    ),
    "submit": Command(
        "an avatar's videos for the NeRSemble benchmark, and their zip",
        "npga.render.submit:SubmitConfig",
        "npga.render.submit:run",
    ),
    "reenact": Command(
        "an avatar driven by a track, its own or another person's, or by codes",
        "npga.reenact.config:ReenactConfig",
        "npga.reenact.run:run",
    ),
    "drive": Command(
        "an avatar driven by one RGB camera: a video, or live",
        "npga.drive.config:DriveConfig",
        "npga.drive.run:run",
    ),
}


def main(argv: list[str] | None = None) -> None:
    """The console script; exits with the command's code.

    Waiting threads sleep instead of spinning: on a busy machine spinning ones take the cores that
    the raster's own threads need.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    sys.exit(execute(sys.argv[1:] if argv is None else argv))


def execute(argv: list[str]) -> int:
    """Run one command line and return its exit code."""
    debug = "--debug" in argv
    words = [a for a in argv if a != "--debug"]
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return _dispatch(words)
    except NpgaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted; nothing half-made was left behind.", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            return _bug(error, debug)
        where = error.filename or "the output"
        print(
            OutputError(
                f"Writing {where} failed: {error.strerror}.",
                "Free some space or give an out=... on another disk, then run the command again.",
            ),
            file=sys.stderr,
        )
        return 1
    except Exception as error:
        return _bug(error, debug)


def _bug(error: Exception, debug: bool) -> int:
    if debug:
        raise error
    print(f"npga failed unexpectedly: {type(error).__name__}: {error}", file=sys.stderr)
    print("This is a bug; run again with --debug for the traceback.", file=sys.stderr)
    return 70


def _terminate(number: int, frame: FrameType | None) -> None:
    """A polite kill unwinds like Ctrl-C, so that outputs are cleaned up or kept for resuming."""
    raise KeyboardInterrupt


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if words[0] == "--version":
        from npga import __version__

        print(__version__)
        return 0
    name, rest = _split(words)
    command = COMMANDS[name]
    schema = _load(command.schema)
    from npga.core.config import compose_config, describe

    if "-h" in rest or "--help" in rest:
        print(f"npga {name}: {command.help}\n")
        for key, default, text in describe(schema):
            print(f"  {key + '=' + default:<44} {text}")
        return 0
    for word in rest:
        if "=" not in word and not word.startswith("~"):
            raise ConfigError(
                f"npga {name} was given {word!r}, but settings are written key=value.",
                f"npga {name} --help lists them.",
            )
    config = compose_config(schema, name.replace(" ", "_"), rest)
    from npga.core.device import flush_denormals

    flush_denormals()
    _load(command.function)(config)
    return 0


def _split(words: list[str]) -> tuple[str, list[str]]:
    """The command's name (one or two words) and what follows."""
    import difflib

    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            return name, words[length:]
    given = words[0] if "=" in " ".join(words[1:2]) or len(words) == 1 else " ".join(words[:2])
    close = difflib.get_close_matches(given, COMMANDS, n=1, cutoff=0.4)
    hint = f"Did you mean {close[0]}? " if close else ""
    raise ConfigError(
        f"npga has no command {given!r}; it has {', '.join(COMMANDS)}.",
        f"{hint}npga --help says what they do.",
    )


def _load(place: str) -> Any:  # noqa: ANN401  a class or a function
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _overview() -> str:
    lines = ["npga <command> key=value ...    (npga <command> --help lists its settings)", ""]
    lines += [f"  {name:<14} {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(lines)
