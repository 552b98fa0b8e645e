"""Videos with transparency: QuickTime (.mov) with a straight alpha channel.

Apple ProRes 4444 where the FFmpeg build has its encoder (10 bits a colour, 16 bits of alpha, lossy
in colour only), else PNG frames, else Animation (QuickTime RLE), both of them loss-free.
"""

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8, UInt16

from npga.core.errors import CaptureError, OutputError

if TYPE_CHECKING:
    from av import VideoStream
    from av.container import OutputContainer

AlphaImageArray = UInt8[np.ndarray, "_ _ 4"]
"""sRGB and straight alpha: the colours are not multiplied by it."""

CODECS = {"prores_ks": "yuva444p10le", "png": "rgba", "qtrle": "argb"}
"""Encoders in order of preference and the pixels that each is given."""
NAMES = {"prores_ks": "ProRes 4444", "png": "PNG", "qtrle": "Animation"}
_OPTIONS = {"prores_ks": {"profile": "4444", "alpha_bits": "16", "vendor": "apl0"}}
_BT709 = 1
"""FFmpeg's number for the primaries, the curve and the matrix of ITU-R BT.709."""


def alpha_codec() -> str:
    """The first of `CODECS` that this FFmpeg build can encode; raises OutputError for none."""
    from av.codec import Codec
    from av.codec.codec import UnknownCodecError

    for name in CODECS:
        try:
            Codec(name, "w")
        except UnknownCodecError:
            continue
        return name
    raise OutputError(
        f"This FFmpeg build has no encoder for video with alpha ({', '.join(CODECS)}).",
        "Write a folder of PNG pictures instead: give out= a name without a suffix.",
    )


class AlphaVideoWriter:
    """Writes RGBA frames to a .mov under a temporary name that is renamed when it is complete."""

    def __init__(self, path: str | Path, fps: float, codec: str | None = None) -> None:
        self.path = Path(path)
        self.codec = codec or alpha_codec()
        self._fps = Fraction(fps).limit_denominator(1000)
        self._partial = self.path.with_name("." + self.path.name + ".partial.mov")
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None

    def __enter__(self) -> "AlphaVideoWriter":
        import av

        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._container = av.open(str(self._partial), "w")
        except OSError as error:
            raise OutputError(
                f"The video {self.path} cannot be written ({error.strerror}).",
                "Give an out=... in a folder that can be written.",
            ) from None
        return self

    def write(self, image: AlphaImageArray) -> None:
        """Append one frame; all frames have the size of the first."""
        import av

        assert self._container is not None
        if self._stream is None:
            stream = self._container.add_stream(
                self.codec, rate=self._fps, options=_OPTIONS.get(self.codec, {})
            )
            assert isinstance(stream, av.VideoStream)
            self._stream = stream
            self._stream.width, self._stream.height = image.shape[1], image.shape[0]
            self._stream.pix_fmt = CODECS[self.codec]
            if self.codec == "prores_ks":
                context = self._stream.codec_context
                context.color_primaries = context.color_trc = context.colorspace = _BT709
        if self.codec == "prores_ks":
            frame = av.VideoFrame(image.shape[1], image.shape[0], CODECS[self.codec])
            for plane, values in zip(frame.planes, yuva_planes(image), strict=True):
                rows = np.zeros((plane.height, plane.line_size // 2), "<u2")
                rows[:, : plane.width] = values
                plane.update(rows.tobytes())
            frame.colorspace = _BT709
        else:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgba")
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._container is not None
        if kind is None and self._stream is not None:
            for packet in self._stream.encode():
                self._container.mux(packet)
        self._container.close()
        if kind is None and self._stream is not None:
            os.replace(self._partial, self.path)
        else:
            self._partial.unlink(missing_ok=True)


def yuva_planes(image: AlphaImageArray) -> UInt16[np.ndarray, "4 h w"]:
    """Y, Cb, Cr (BT.709, video range) and alpha in 10 bits.

    Not left to FFmpeg, whose threads overwrite each other's pixels at some widths.
    """
    rgb = image[..., :3].astype(np.float32) / 255
    luma = rgb @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    blue, red = (rgb[..., 2] - luma) / 1.8556, (rgb[..., 0] - luma) / 1.5748
    alpha = image[..., 3] * np.float32(1023 / 255)
    planes = np.stack([64 + 876 * luma, 512 + 896 * blue, 512 + 896 * red, alpha])
    return planes.round().astype(np.uint16)


def read_alpha_video(path: str | Path) -> Iterator[AlphaImageArray]:
    """All frames in order as RGBA; raises CaptureError where decoding fails."""
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(path)) as container:
            for frame in container.decode(container.streams.video[0]):
                yield frame.to_ndarray(format="rgba")
    except (FFmpegError, OSError, IndexError) as error:
        raise CaptureError(
            f"The video {path} cannot be decoded ({type(error).__name__}).", "Make it again."
        ) from None
