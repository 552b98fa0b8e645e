"""The files of `npga render`: names, what they hold, all of them or none."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import npga.render.run
from npga.capture.writer import CaptureWriter
from npga.core.cameras import Cameras, look_at
from npga.core.config import compose_config
from npga.core.errors import ConfigError, OutputError
from npga.core.video import probe_video, read_video
from npga.core.video_alpha import read_alpha_video
from npga.render.config import RenderConfig
from npga.render.run import run


def render(person, *more) -> None:
    run(
        compose_config(
            RenderConfig,
            "render",
            [f"avatar={person}", f"track={person}", "width=40", "height=60", "device=cpu", *more],
        )
    )


def names(folder) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_passes_are_files_beside_the_video_and_described(person):
    out = person / "out"
    render(person, f"out={out}/a.mp4", "passes=[color,alpha,depth,normals]", "camera=front")
    assert names(out) == [
        "a.json", "a.mp4", "a_alpha.mp4", "a_depth", "a_depth.mp4", "a_normals.mp4",
    ]  # fmt: skip
    assert names(out / "a_depth") == [f"00000{n}.png" for n in range(5)]
    for name in ("a", "a_alpha", "a_depth", "a_normals"):
        assert len(list(read_video(out / f"{name}.mp4"))) == 5
    depth = np.asarray(Image.open(out / "a_depth" / "000000.png"))
    assert depth.dtype == np.uint16 and depth.shape == (60, 40)
    assert abs(np.median(depth[depth > 0]) - 1100) < 120  # 1.1 m in front of the head's centre
    facts = json.loads((out / "a.json").read_text())
    assert set(facts["outputs"]) == set(names(out)) - {"a.json"}
    assert "millimetres" in facts["outputs"]["a_depth"]["holds"]
    assert facts["frames"] == [0, 3, 6, 12, 15] and facts["fps"] == 10
    assert np.shape(facts["K"]) == (5, 3, 3) and np.shape(facts["cam_from_world"]) == (5, 4, 4)


def test_a_pass_alone_leaves_color_out(person):
    render(person, f"out={person}/out/a.mp4", "passes=[normals]")
    assert names(person / "out") == ["a.json", "a_normals.mp4"]


def test_transparent_pngs_over_white_are_the_white_pngs(person):
    out = person / "out"
    render(person, f"out={out}/clear/", "background=transparent", "passes=[color,normals]")
    render(person, f"out={out}/white")
    assert names(out) == ["clear", "clear.json", "clear_normals", "white", "white.json"]
    for n in range(5):
        clear = np.asarray(Image.open(out / "clear" / f"00000{n}.png")).astype(float)
        white = np.asarray(Image.open(out / "white" / f"00000{n}.png"))
        assert clear.shape == (60, 40, 4) and white.shape == (60, 40, 3)
        alpha = clear[..., 3:] / 255
        difference = np.abs(clear[..., :3] * alpha + 255 * (1 - alpha) - white)
        assert difference.mean() < 1 and np.quantile(difference, 0.99) <= 2
    assert np.asarray(Image.open(out / "clear_normals" / "000000.png")).shape == (60, 40, 4)


def test_a_mov_is_transparent_and_says_which_codec(person, capsys):
    render(person, f"out={person}/out/a.mov", "background=transparent", "passes=[color,alpha]")
    assert "ProRes 4444" in capsys.readouterr().out
    clear = next(iter(read_alpha_video(person / "out" / "a.mov")))
    grey = next(iter(read_alpha_video(person / "out" / "a_alpha.mov")))
    assert clear.shape == (60, 40, 4)
    assert clear[0, 0, 3] == 0 and clear[..., 3].max() > 200
    assert (grey[..., 3] == 255).all()
    assert np.abs(grey[..., 0].astype(int) - clear[..., 3]).max() <= 3
    facts = json.loads((person / "out" / "a.json").read_text())
    assert "straight alpha" in facts["outputs"]["a.mov"]["holds"]


def test_a_grey_background(person):
    render(person, f"out={person}/out/a.mp4", "background=0.25")
    assert abs(int(next(iter(read_video(person / "out" / "a.mp4")))[0, 0, 0]) - 64) < 4


def test_side_by_side_with_the_driver(person):
    eyes = torch.tensor([[0.9, 0.1, 0.5], [0.0, 0.0, 1.0]])
    up = torch.tensor([0.0, 1.0, 0.0])
    poses = torch.stack([look_at(e, torch.zeros(3), up) for e in eyes])
    k = torch.tensor([[60.0, 0, 22], [0, 60.0, 33], [0, 0, 1]]).expand(2, 3, 3).clone()
    rig = Cameras(k, poses, 44, 66, ("222200037", "222200046"))
    with CaptureWriter(person / "capture", "17", rig).sequence("FREE") as sequence:
        for n in range(16):
            picture = np.full((2, 66, 44, 3), 10 * n, np.uint8)
            picture[0] = 255
            sequence.add(picture, np.full((2, 66, 44), 255, np.uint8))
    out = person / "out"
    more = [f"capture={person}/capture", "beside=[driver,color,depth]"]
    render(person, f"out={out}/a.mp4", *more)
    assert names(out) == ["a.json", "a.mp4"]
    info = probe_video(out / "a.mp4")
    assert (info.width, info.height) == (3 * 40, 60 + 18)
    frames = list(read_video(out / "a.mp4"))
    for picture, frame in zip(frames, (0, 3, 6, 12, 15), strict=True):  # the most frontal camera's
        assert abs(int(picture[48, 20, 0]) - 10 * frame) < 8
    assert frames[0][74, 44, 0] > 245 > 10 > frames[0][74, 84, 0]
    render(person, f"out={out}/b.mp4", *more, "camera=222200037")
    assert next(iter(read_video(out / "b.mp4")))[48, 20, 0] > 245


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        (["out=a.mp4", "background=transparent"], ConfigError, "is an mp4, which has no alpha"),
        (["out=a.mov", "background=transparent", "beside=[color]"], ConfigError, "opaque"),
        (["background=blue"], ConfigError, "is no background"),
        (["out=a.gif"], OutputError, r"a name that ends in .mp4 or \.mov"),
        (["passes=[]"], ConfigError, "nothing to write"),
        (["passes=[color,color]"], ConfigError, "twice"),
        (["passes=[depth]", "beside=[color]"], ConfigError, "both given"),
        (["beside=[driver]"], ConfigError, "no capture was given"),
        (["passes=[shade]"], ConfigError, "shade"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_drawn(person, settings, kind, message):
    before = names(person)
    settings = [s.replace("out=", f"out={person}/") for s in settings]
    with pytest.raises(kind, match=message):
        render(person, f"out={person}/b.mp4", *settings)
    assert names(person) == before


def test_a_transparent_mp4_is_told_both_ways_out(person):
    with pytest.raises(ConfigError) as error:
        render(person, f"out={person}/b.mp4", "background=transparent")
    assert "b.mov" in error.value.todo and "PNGs" in error.value.todo


def test_key_frames_are_not_overwritten_by_the_description(person):
    keys = person / "a.json"
    keys.write_text(json.dumps({"keys": [{"time": 0, "eye": [0, 0, 4], "target": [0, 0, 0]}]}))
    text = keys.read_text()
    with pytest.raises(ConfigError, match="lie where the description"):
        render(person, f"out={person}/a.mp4", f"camera={keys}", "overwrite=true")
    assert keys.read_text() == text
    render(person, f"out={person}/b.mp4", f"camera={keys}")
    assert json.loads((person / "b.json").read_text())["settings"]["camera"] == str(keys)


def test_an_interruption_leaves_the_old_results_and_nothing_half_made(person, monkeypatch):
    out = person / "out"
    settings = [f"out={out}/a.mp4", "passes=[color,depth]"]
    render(person, *settings)
    old = (out / "a.mp4").read_bytes()
    with pytest.raises(OutputError, match="overwrite=true"):
        render(person, *settings)
    drawn = npga.render.run.draw_layers
    calls = []

    def interrupted(*arguments, **more):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return drawn(*arguments, **more)

    monkeypatch.setattr(npga.render.run, "draw_layers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        render(person, *settings, "overwrite=true", "background=black")
    assert names(out) == ["a.json", "a.mp4", "a_depth", "a_depth.mp4"]
    assert (out / "a.mp4").read_bytes() == old and len(names(out / "a_depth")) == 5
    monkeypatch.setattr(npga.render.run, "draw_layers", drawn)
    render(person, *settings, "overwrite=true", "every=2", "background=black")
    assert (out / "a.mp4").read_bytes() != old and len(names(out / "a_depth")) == 3
