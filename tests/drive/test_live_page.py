"""The live page: pictures and orders for this machine's own pages, for nobody else."""

import http.client
import io
import json

import numpy as np
import pytest
from PIL import Image

from npga.core.errors import OutputError
from npga.drive.outputs import Controls
from npga.drive.page import Newsstand, Page

PICTURE = np.full((30, 40, 3), 200, np.uint8)


@pytest.fixture
def page():
    controls = Controls(driver=True)
    with Page(0, controls) as one:
        yield one, controls


def ask(page: Page, method: str, path: str, **headers: str) -> tuple[int, bytes]:
    port = int(page.url.rstrip("/").rsplit(":", 1)[1])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_it_serves_the_newest_picture_and_what_is_told(page):
    one, _ = page
    one.show(np.zeros_like(PICTURE), 0.0, "old")
    one.show(PICTURE, 0.1, "<12 fps>")
    status, data = ask(one, "GET", "/frame.jpg")
    assert status == 200
    seen = np.asarray(Image.open(io.BytesIO(data)))
    assert seen.shape == PICTURE.shape
    assert abs(float(seen.mean()) - 200) < 3
    assert json.loads(ask(one, "GET", "/status")[1]) == {"text": "<12 fps>", "driver": True}
    status, html = ask(one, "GET", "/")
    assert status == 200
    assert b"http" not in html.replace(b"http://127", b""), "nothing comes from elsewhere"
    for name in (b"calibrate again", b"show driver", b"stop"):
        assert name in html
    assert ask(one, "GET", "/other")[0] == 404


def test_the_stream_goes_on_with_newer_pictures(page):
    one, _ = page
    one.show(PICTURE, 0.0, "")
    port = int(one.url.rstrip("/").rsplit(":", 1)[1])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/stream")
    answer = connection.getresponse()
    assert answer.headers["Content-Type"].startswith("multipart/x-mixed-replace")
    for level in (200, 90):
        lines = {}
        while (line := answer.readline().strip()) or not lines:
            name, _, value = line.partition(b": ")
            lines[name] = value
        data = answer.read(int(lines[b"Content-Length"]))
        assert abs(float(np.asarray(Image.open(io.BytesIO(data))).mean()) - level) < 3
        assert answer.readline() == b"\r\n"
        one.show(np.full_like(PICTURE, 90), 0.1, "")
    answer.close()
    connection.close()


def test_orders_reach_the_controls(page):
    one, controls = page
    assert ask(one, "POST", "/driver?show=0")[0] == 200
    assert not controls.driver
    assert ask(one, "POST", "/calibrate", Origin=one.url.rstrip("/"))[0] == 200
    assert controls.calibrate.is_set()
    assert ask(one, "POST", "/everything")[0] == 404
    assert not controls.stop.is_set()
    assert ask(one, "POST", "/stop")[0] == 200
    assert controls.stop.is_set()


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1:1", "localhost"])
def test_another_host_name_is_refused(page, host):
    one, controls = page
    one.show(PICTURE, 0.0, "")
    assert ask(one, "GET", "/frame.jpg", Host=host)[0] == 403
    assert ask(one, "POST", "/stop", Host=host)[0] == 403
    assert not controls.stop.is_set()


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_orders_of_another_origin_are_refused(page, origin):
    one, controls = page
    assert ask(one, "POST", "/stop", Origin=origin)[0] == 403
    assert not controls.stop.is_set()


def test_only_this_machine_is_served(page):
    assert page[0].url.startswith("http://127.0.0.1:")
    assert page[0]._server.server_address[0] == "127.0.0.1"


def test_a_port_in_use_is_told_in_words(page):
    port = int(page[0].url.rstrip("/").rsplit(":", 1)[1])
    with pytest.raises(OutputError, match=f"port={port} .* another program") as error:
        Page(port, Controls(driver=True))
    assert "port=0" in str(error.value)


def test_a_slow_client_gets_the_newest():
    stand = Newsstand()
    for level in (10, 60, 200):
        stand.publish(np.full_like(PICTURE, level), "")
    number, data = stand.after(0)
    assert number == 3
    assert abs(float(np.asarray(Image.open(io.BytesIO(data))).mean()) - 200) < 3
    assert stand.after(number, timeout=0.01) is None
    stand.close()
    assert stand.after(0) is None
