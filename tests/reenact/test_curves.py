"""Codes from files: what is read, what is left out with a word, what is refused."""

import math

import pytest
import torch
from safetensors.torch import save_file

from npga.core.errors import ConfigError
from npga.core.rotations import rotvec_from_matrix
from npga.reenact.curves import read_codes, turn
from nphm_tracking import load_head_model

ANGLES = ("HeadYaw", "HeadPitch", "HeadRoll", "LeftEyeYaw", "LeftEyePitch", "LeftEyeRoll",
          "RightEyeYaw", "RightEyePitch", "RightEyeRoll")  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return load_head_model()


def pascal(name: str) -> str:
    return name[0].upper() + name[1:]


def live_link(path, model, rows, *, names=None, end="\n", stamp=None):
    """A recording of `rows` = [{control or angle: value}], two timecode frames apart at 60 fps."""
    names = [pascal(n) for n in model.expression_names] if names is None else names
    header = ["Timecode", "BlendshapeCount", *names, *ANGLES]
    stamp = stamp or (lambda n: f"10:00:{2 * n // 60 + 58:02d}:{2 * n % 60:02d}.000")
    lines = [",".join(header)]
    lines += [
        ",".join([stamp(n), "61", *(f"{row.get(c, 0.0):.6f}" for c in header[2:])])
        for n, row in enumerate(rows)
    ]
    path.write_bytes((end.join(lines) + end).encode())
    return path


def take(count=61):
    """Two seconds: a smile over a resting jaw, a nod."""
    return [{"MouthSmileLeft": n / 100, "JawOpen": 0.2, "HeadPitch": 0.1 + 0.01 * n,
             "EyeBlinkLeft": 0.9 if 20 <= n < 24 else 0.05}
            for n in range(count)]  # fmt: skip


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_live_link(tmp_path, model, end, capsys):
    rows = take()
    rows[59]["HeadYaw"] = 0.0
    found = read_codes(live_link(tmp_path / "a.csv", model, rows, end=end), model, 52)
    names = list(model.expression_names)
    assert found.fps == 60.0 and len(found) == 121 and bool(found.ok.all())
    smile = found.z_exp[:, names.index("mouthSmileLeft")]
    assert torch.allclose(smile, torch.arange(121) / 200, atol=1e-5)
    assert found.z_exp[:, names.index("jawOpen")].sub(0.2).abs().max() < 1e-6
    assert found.face.neutral[names.index("jawOpen")] == pytest.approx(0.2, abs=1e-5)
    motion = rotvec_from_matrix(found.rest.rotation.T @ found.world_from_head.rotation)
    assert torch.allclose(motion[:, 0], torch.linspace(-0.3, 0.3, 121), atol=1e-3)
    assert motion[:, 1:].abs().max() < 1e-3
    assert "left out" not in (said := capsys.readouterr().out) and "no column" not in said
    assert found.face.openings is not None
    lids = found.face.openings.of(found.z_exp)[:, 1]
    assert lids[42:46].abs().max() < 0.05 and lids[:38].min() > 0.9


def test_columns_are_named_where_they_are_missing_or_unknown(tmp_path, model, capsys):
    names = [pascal(n) for n in model.expression_names if n != "tongueOut"] + ["JawWiggle"]
    found = read_codes(live_link(tmp_path / "a.csv", model, take(9), names=names), model, 52)
    said = capsys.readouterr().out
    assert "no column for tongueOut" in said and "no control is called JawWiggle" in said
    assert float(found.z_exp[:, list(model.expression_names).index("tongueOut")].abs().max()) == 0


def test_rows_without_a_face_are_unknown_frames(tmp_path, model, capsys):
    path = live_link(tmp_path / "a.csv", model, take(61))
    lines = path.read_text().splitlines()
    for n in range(21, 41):
        lines[n] = ",".join(lines[n].split(",")[:1] + ["0"])
    path.write_text("\n".join(lines))
    found = read_codes(path, model, 52)
    assert "20 rows hold no face" in capsys.readouterr().out
    assert len(found) == 121 and 8 <= int((~found.ok).sum()) <= 12
    assert bool(found.ok[:50].all()) and not bool(found.ok[60]) and bool(found.ok[72:].all())


def test_timecodes(tmp_path, model):
    def stamped(stamps):
        path = live_link(tmp_path / "a.csv", model, take(len(stamps)), stamp=stamps.__getitem__)
        return read_codes(path, model, 52)

    over = stamped(["23:59:59:28", "23:59:59:29.500", "00:00:00:01"])
    assert over.fps == 30.0 and len(over) == 4
    assert len(stamped(["1:00:00:00", "1:00:00:00", "1:00:00:24"])) == 25
    with pytest.raises(ConfigError, match=r"Line 3 .* timecode '12:30'"):
        stamped(["1:00:00:00", "12:30", "1:00:00:24"])
    with pytest.raises(ConfigError, match="backwards in line 3"):
        stamped(["1:00:00:10", "1:00:00:09"])


def test_curves_written_by_hand(tmp_path, model):
    path = tmp_path / "a.csv"
    path.write_text("﻿time, jawopen ,z3\n0,0,1\n0.5,1,0\n\n1.0,0,0\n", encoding="utf-8")
    found = read_codes(path, model, 52)
    names = list(model.expression_names)
    assert found.fps == 30.0 and len(found) == 31
    assert found.z_exp[15, names.index("jawOpen")] == pytest.approx(1.0, abs=1e-5)
    assert found.z_exp[0, 3] == 1 and torch.equal(found.face.neutral, torch.zeros(52))
    path.write_text("z1\n0\n1\n")
    found = read_codes(path, None, 4, fps=10.0)
    assert found.z_exp.tolist() == [[0, 0, 0, 0], [0, 1, 0, 0]] and found.fps == 10.0
    assert torch.allclose(found.world_from_head.matrix(), torch.eye(4).expand(2, 4, 4))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "No column"),
        ("mouth,eyes\n1,2\n", "No column"),
        ("jawOpen\n", "no row with codes"),
        ("jawOpen\n0.1\nwide\n", "Line 3 .* 'wide' for jawOpen"),
        ("jawOpen\nnan\n", "Line 2"),
        ("jawOpen,JAWOPEN\n1,1\n", "twice"),
        ("jawOpen,z24\n1,1\n", "twice"),
        ("time,jawOpen\n1,0\n0,0\n", "backwards in line 3"),
    ],
)
def test_csv_refusals(tmp_path, model, text, words):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_codes(tmp_path / "a.csv", model, 52)


def test_tensors(tmp_path):
    path = tmp_path / "a.safetensors"
    codes = torch.rand(7, 4)
    save_file({"z_exp": codes}, path)
    found = read_codes(path, None, 4, fps=12.0)
    assert torch.allclose(found.z_exp, codes) and found.fps == 12.0
    with pytest.raises(ConfigError, match=r"shape \(7, 4\)"):
        read_codes(path, None, 5)
    save_file({"codes": codes}, path)
    with pytest.raises(ConfigError, match="no z_exp"):
        read_codes(path, None, 4)
    path.write_bytes(b"text")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_codes(path, None, 4)
    with pytest.raises(ConfigError, match="There is no file"):
        read_codes(tmp_path / "b.csv", None, 4)
    (tmp_path / "a.txt").write_text("z0\n1\n")
    with pytest.raises(ConfigError, match="neither"):
        read_codes(tmp_path / "a.txt", None, 4)


def test_head_angles_turn_as_documented():
    nose, ear, crown = torch.eye(3)[2], torch.eye(3)[0], torch.eye(3)[1]
    yaw, pitch, roll = turn(torch.eye(3) * math.radians(20))
    assert (yaw @ nose)[0] > 0.3  # to the person's own left, +x
    assert (pitch @ nose)[1] < -0.3  # down
    assert (roll @ crown)[0] < -0.3 and (roll @ ear)[1] > 0.3  # to the own right shoulder
    both = turn(torch.tensor([[0.3, 0.2, 0.0]]))[0]
    one = turn(torch.tensor([[0.3, 0.0, 0.0], [0.0, 0.2, 0.0]]))
    assert torch.allclose(both, one[0] @ one[1])


def test_signs_mirror_the_head(tmp_path):
    (tmp_path / "a.csv").write_text("z0,HeadYaw,HeadRoll\n0,0.3,0\n0,0,0.3\n")
    plain = read_codes(tmp_path / "a.csv", None, 1).world_from_head.rotation
    mirrored = read_codes(
        tmp_path / "a.csv", None, 1, head_signs=(-1.0, 1.0, -1.0)
    ).world_from_head.rotation
    assert torch.allclose(mirrored, plain.transpose(1, 2), atol=1e-6)
