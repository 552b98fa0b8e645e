"""A page is valid, escaped and alone; its charts show what they were given."""

import base64
import io

import numpy as np
import pytest
import torch
from page_reader import outside_references, read_page
from PIL import Image

from npga.core.cameras import Cameras
from npga.core.charts import CHART_STYLE, Line, heat_map, line_chart
from npga.core.mesh import Mesh
from npga.core.mesh_picture import cameras_around, lay_over, mesh_picture
from npga.core.page import element, facts, figure, image_data, page, picture, section, short

NASTY = """<script>alert("1")</script> & 'a' <b>"""


def test_every_text_and_attribute_is_escaped() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    text = page(
        NASTY,
        element("h1", NASTY),
        facts([(NASTY, NASTY)]),
        section(NASTY, NASTY, figure(picture(image, NASTY), NASTY)),
        line_chart(Line([1, 2], [1.0, 2.0], [False, False], 3.0, NASTY), 2.0, NASTY),
        heat_map(np.ones((1, 2)), np.array([False, True]), [NASTY], [1, 2], NASTY),
    )
    seen = read_page(text)
    assert not seen.having("script") and not seen.having("b")
    assert seen.having("img")[0]["alt"] == NASTY
    assert seen.texts.count(NASTY) >= 6
    assert text.startswith("<!DOCTYPE html>")


def test_a_page_refers_to_nothing_outside_itself() -> None:
    image = np.zeros((2, 3, 4), np.uint8)
    text = page("a", picture(image, "b"), style=CHART_STYLE)
    seen = read_page(text)
    assert outside_references(text, seen) == []
    policy = [a for a in seen.having("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy[0]["content"]
    assert seen.having("meta", name="viewport")
    assert "prefers-color-scheme: dark" in text


@pytest.mark.parametrize(("channels", "kind"), [(3, "JPEG"), (4, "PNG")])
def test_pictures_survive_the_page(channels: int, kind: str) -> None:
    image = np.full((16, 24, channels), 200, np.uint8)
    data = image_data(image).split(",")[1]
    with Image.open(io.BytesIO(base64.b64decode(data))) as file:
        assert file.format == kind
        assert abs(np.asarray(file).astype(int) - 200).max() < 4


def test_numbers_are_short() -> None:
    assert [short(v) for v in (1.0, 0.1234, 100.0, 2.5)] == ["1", "0.12", "100", "2.5"]


def test_a_curve_has_a_point_for_each_good_frame_and_breaks_at_failed_ones() -> None:
    values = [0.5, 1.0, float("inf"), 2.0, 9.0, 0.5]
    failed = [False, False, True, False, True, False]
    line = Line([10, 12, 14, 16, 18, 20], values, failed, 4.0, "mm")
    seen = read_page(page("a", line_chart(line, 2.0, "b")))
    runs = [a["points"].split() for a in seen.having("polyline", class_="curve")]
    assert [len(run) for run in runs] == [2, 1, 1]
    assert len(seen.having("circle", class_="point")) == 4
    assert len(seen.having("path", class_="failed")) == 2
    assert len(seen.having("path", class_="limit")) == 1
    assert "frame 14: failed" in seen.texts and "frame 18: failed, 9.00 mm" in seen.texts
    assert "frame 16: 2.00 mm" in seen.texts
    heights = [float(point.split(",")[1]) for run in runs for point in run]
    base = max(heights) + (heights[0] - heights[1])
    assert heights[2] == pytest.approx(base - 4 * (heights[0] - heights[1]), abs=0.05)


@pytest.mark.parametrize(("limit", "arrow"), [(4.0, False), (40.0, True)])
def test_a_far_limit_lies_at_the_edge_with_an_arrow(limit: float, arrow: bool) -> None:
    line = Line([0, 1], [2.0, 1.0], [False, False], limit, "mm")
    seen = read_page(page("a", line_chart(line, 2.0, "b")))
    assert (f"limit {limit:g} mm" + " ↑" * arrow) in seen.texts


def test_a_heat_map_shows_values_and_failed_frames() -> None:
    values = np.array([[0.0, 1.0, 0.5], [0.2, 0.9, 0.4]])
    text = page("a", heat_map(values, np.array([0, 1, 0]) > 0, ["x", "y"], [3, 5, 7], "b"))
    seen = read_page(text)
    data = seen.having("image")[0]["href"].split(",")[1]
    with Image.open(io.BytesIO(base64.b64decode(data))) as file:
        pixels = np.asarray(file)
    assert pixels.shape == (2, 3, 4)
    assert pixels[0, 0, 3] == 0 and pixels[0, 2, 3] == 128
    assert pixels[0, 1, 0] > pixels[0, 1, 2], "a failed frame is red"
    assert "x: at most 0.50, frame 7" in seen.texts


def square(z: float, half: float) -> Mesh:
    corners = [[-half, -half, z], [half, -half, z], [half, half, z], [-half, half, z]]
    return Mesh(torch.tensor(corners), torch.tensor([[0, 1, 2], [0, 2, 3]]))


def test_a_mesh_picture_is_clear_beside_the_mesh_and_the_same_from_both_windings() -> None:
    camera = cameras_around(torch.zeros(3), 1.0, (0.0,), 60, 80)[0]
    mesh = square(0.0, 0.4)
    image = mesh_picture(mesh, camera)
    assert image.shape == (80, 60, 4)
    assert image[40, 30, 3] == 255 and image[2, 2].tolist() == [0, 0, 0, 0]
    assert image[40, 30, :3].min() > 100
    assert np.array_equal(image, mesh_picture(Mesh(mesh.vertices, mesh.faces.flip(1)), camera))
    covered = (image[..., 3] / 255).sum() / (80 * 60)
    pixels, _ = camera.to(torch.float32).project(mesh.vertices)
    size = pixels[0].amax(0) - pixels[0].amin(0)
    assert covered == pytest.approx(float(size.prod()) / (80 * 60), rel=0.03)


def test_a_layer_lies_over_a_picture() -> None:
    below = np.full((1, 2, 3), 100, np.uint8)
    layer = np.array([[[200, 200, 200, 255], [200, 200, 200, 0]]], np.uint8)
    assert lay_over(below, layer, 0.5)[0].tolist() == [[150] * 3, [100] * 3]


def test_cameras_around_turn_to_plus_x_and_see_the_sphere() -> None:
    centre = torch.tensor([0.1, 0.2, 0.3])
    found = cameras_around(centre, 0.5, (-45.0, 0.0, 45.0), 100, 120)
    eyes = Cameras.join(found).centres_world()
    assert eyes[0, 0] < centre[0] < eyes[2, 0] and (eyes[:, 2] > centre[2]).all()
    directions = torch.nn.functional.normalize(
        torch.randn(500, 3, generator=torch.Generator().manual_seed(0)), dim=1
    )
    for camera in found:
        pixels, depth = camera.project(centre.double() + 0.5 * directions.double())
        assert (depth > 0).all()
        assert pixels.amin() >= 0 and pixels[..., 0].amax() <= 100 and pixels[..., 0].amax() > 95
