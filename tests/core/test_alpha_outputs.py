"""Videos with alpha, folders of PNGs, and results that appear together or not at all."""

import numpy as np
import pytest
from PIL import Image

import npga.core.output
from npga.core.errors import CaptureError, OutputError
from npga.core.output import output_group
from npga.core.png_sequence import PngSequence
from npga.core.video import probe_video
from npga.core.video_alpha import CODECS, AlphaVideoWriter, alpha_codec, read_alpha_video


def pictures(count=3, width=101, height=75):
    y, x = np.mgrid[:height, :width]
    return [
        np.stack([2 * x, 3 * y, (x + y + 9 * n) % 200, np.clip(6 * (x - 20), 0, 255)], -1)
        .astype(np.uint8) for n in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("codec", CODECS)
def test_a_mov_reads_back_with_its_alpha(tmp_path, codec):
    with AlphaVideoWriter(tmp_path / "a.mov", 12.5, codec) as video:
        for picture in pictures():
            video.write(picture)
    found = np.stack(list(read_alpha_video(tmp_path / "a.mov")))
    assert np.abs(found.astype(int) - np.stack(pictures())).max() <= (
        2 if codec == "prores_ks" else 0
    )
    info = probe_video(tmp_path / "a.mov")
    assert (info.width, info.height, info.fps) == (101, 75, 12.5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mov"]


def test_prores_is_preferred_and_the_same_every_time(tmp_path):
    assert alpha_codec() == "prores_ks"
    files = []
    for name in ("a", "b"):
        with AlphaVideoWriter(tmp_path / f"{name}.mov", 25) as video:
            for picture in pictures(width=104):
                video.write(picture)
        files.append(np.stack(list(read_alpha_video(tmp_path / f"{name}.mov"))))
    assert (files[0] == files[1]).all()


def test_an_interrupted_mov_or_folder_leaves_nothing(tmp_path):
    for writer in (AlphaVideoWriter(tmp_path / "a.mov", 25), PngSequence(tmp_path / "frames")):
        with pytest.raises(KeyboardInterrupt), writer as out:
            out.write(pictures()[0])
            raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    (tmp_path / "no.mov").write_bytes(b"no")
    with pytest.raises(CaptureError, match="cannot be decoded"):
        list(read_alpha_video(tmp_path / "no.mov"))
    with (
        pytest.raises(OutputError, match="cannot be written"),
        PngSequence(tmp_path / "no.mov" / "frames"),
    ):
        pass


def test_pngs_keep_rgba_and_sixteen_bits(tmp_path):
    rgba, depth = pictures()[0], np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    with PngSequence(tmp_path / "frames") as out:
        out.write(rgba)
        out.write(depth)
    first, second = (tmp_path / "frames" / f"00000{n}.png" for n in range(2))
    assert (np.asarray(Image.open(first)) == rgba).all()
    assert (np.asarray(Image.open(second)) == depth).all()


def make(stage, text):
    (stage / "a.txt").write_text(text)
    (stage / "b").mkdir()
    (stage / "b" / "c.txt").write_text(text)


def test_a_group_appears_together_and_is_not_replaced(tmp_path):
    paths = [tmp_path / "a.txt", tmp_path / "b"]
    with pytest.raises(KeyboardInterrupt), output_group(paths, overwrite=False) as stage:
        make(stage, "1")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    with output_group(paths, overwrite=False) as stage:
        make(stage, "1")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b"]
    with pytest.raises(OutputError, match="overwrite=true"), output_group(paths, overwrite=False):
        pass
    with output_group(paths, overwrite=True) as stage:
        make(stage, "2")
    assert (tmp_path / "a.txt").read_text() == (tmp_path / "b" / "c.txt").read_text() == "2"


def test_a_group_that_cannot_move_leaves_the_old_one(tmp_path, monkeypatch):
    paths = [tmp_path / "a.txt", tmp_path / "b"]
    with output_group(paths, overwrite=False) as stage:
        make(stage, "1")
    real = npga.core.output.os.replace

    def failing(source, target):
        if target == paths[1] and ".old" not in str(source):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(npga.core.output.os, "replace", failing)
    with pytest.raises(OSError), output_group(paths, overwrite=True) as stage:
        make(stage, "2")
    assert (tmp_path / "a.txt").read_text() == (tmp_path / "b" / "c.txt").read_text() == "1"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b"]
