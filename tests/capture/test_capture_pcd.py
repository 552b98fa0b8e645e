"""Point clouds: round trip, foreign field orders, refusal of what is damaged."""

import numpy as np
import pytest
import torch
from tiny_ball import ball_cloud

from npga.capture.pcd import read_pcd, write_pcd
from npga.core.errors import CaptureError


def pcd(tmp_path, header: str, body: bytes):
    path = tmp_path / "cloud.pcd"
    path.write_bytes(header.encode() + body)
    return path


def test_round_trip(tmp_path):
    cloud = ball_cloud()
    write_pcd(tmp_path / "cloud.pcd", cloud)
    again = read_pcd(tmp_path / "cloud.pcd")
    assert torch.equal(again.points, cloud.points.float())
    assert torch.equal(again.normals, cloud.normals.float())
    assert again.points.dtype == again.normals.dtype == again.colors.dtype == torch.float32
    assert (again.colors - cloud.colors).abs().max() <= 0.5 / 255 + 1e-6
    assert (tmp_path / "cloud.pcd").stat().st_size > 28 * len(cloud)
    assert [p.name for p in tmp_path.iterdir()] == ["cloud.pcd"]


def test_rgb_is_packed_as_red_green_blue(tmp_path):
    header = "FIELDS rgb x y z\nSIZE 4 4 4 4\nTYPE U F F F\nCOUNT 1 1 1 1\nPOINTS 1\nDATA binary\n"
    body = np.array([0xFF8000], "<u4").tobytes() + np.array([1, 2, 3], "<f4").tobytes()
    cloud = read_pcd(pcd(tmp_path, header, body))
    assert cloud.points.tolist() == [[1, 2, 3]]
    assert cloud.colors[0].tolist() == pytest.approx([1, 128 / 255, 0])
    assert cloud.normals.tolist() == [[0, 0, 0]]


def test_points_that_are_not_finite_are_left_out(tmp_path):
    header = "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nPOINTS 2\nDATA binary\n"
    body = np.array([np.nan, 0, 0, 1, 2, 3], "<f4").tobytes()
    assert read_pcd(pcd(tmp_path, header, body)).points.tolist() == [[1, 2, 3]]


GOOD = "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nPOINTS 2\nDATA binary\n"


@pytest.mark.parametrize(
    "header, size, word",
    [
        (GOOD, 20, "promises"),
        (GOOD, 28, "promises"),
        (GOOD.replace("POINTS 2", "POINTS 999999999"), 24, "promises"),
        (GOOD.replace("POINTS 2", "POINTS -2"), 24, "needed"),
        (GOOD.replace("x y z", "x y w"), 24, "needed"),
        (GOOD.replace("x y z", "x y"), 24, "header"),
        (GOOD.replace("x y z", "x x z"), 24, "header"),
        (GOOD.replace("TYPE F F F", "TYPE F F Q"), 24, "header"),
        (GOOD.replace("POINTS 2", "POINTS two"), 24, "header"),
        (GOOD.replace("DATA binary", "DATA ascii"), 24, "binary"),
        ("FIELDS x y z\n", 0, "DATA"),
        ("", 0, "DATA"),
        ("", 9000, "DATA"),
    ],
)
def test_damaged_files_are_refused_in_two_lines(tmp_path, header: str, size: int, word: str):
    with pytest.raises(CaptureError) as caught:
        read_pcd(pcd(tmp_path, header, b"\1" * size))
    assert word in str(caught.value) and len(str(caught.value).splitlines()) == 2


def test_an_absent_file_is_refused(tmp_path):
    with pytest.raises(CaptureError, match="cannot be read"):
        read_pcd(tmp_path / "none.pcd")
