"""A page of this machine that shows a live avatar: pictures as MJPEG, buttons, a read-out.

Only 127.0.0.1 is served. A page of another site cannot use it: requests under another host's name
are refused (DNS rebinding), and so are orders that come from another origin. The page loads nothing
from anywhere else.
"""

import errno
import io
import json
import socketserver
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from npga.core.errors import OutputError
from npga.core.images import ImageArray
from npga.core.page import STYLE
from npga.drive.outputs import Controls

ADDRESS = "127.0.0.1"
QUALITY = 85
BOUNDARY = "npga-picture"
STALLED_S = 2.0
"""A client that takes nothing for so long is let go."""
POLICY = (
    "default-src 'none'; img-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>npga drive</title><style>{style}
#picture {{ max-width: 100%; background: var(--card); }}
button {{ font: inherit; padding: .3rem .9rem; margin-right: .6rem; }}</style></head><body>
<h1>npga drive</h1>
<p id="text" role="status">starting</p>
<img id="picture" src="stream" alt="the avatar, live">
<p><button id="calibrate">calibrate again</button><button id="stop">stop</button>
<label><input type="checkbox" id="driver"{checked}> show driver</label></p>
<script>
const at = name => document.getElementById(name);
const order = path => fetch(path, {{method: "POST"}}).catch(() => 0);
at("calibrate").onclick = () => order("calibrate");
at("stop").onclick = () => order("stop");
at("driver").onchange = event => order("driver?show=" + (event.target.checked ? 1 : 0));
at("picture").onerror = () => setTimeout(() => at("picture").src = "stream?" + Date.now(), 1000);
setInterval(() => fetch("status").then(answer => answer.json())
  .then(status => {{ at("text").textContent = status.text; at("driver").checked = status.driver; }})
  .catch(() => at("text").textContent = "stopped"), 500);
</script></body></html>
"""


class Newsstand:
    """The newest picture, for any number of clients, each as fast as it can take them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._encoding = threading.Lock()
        self._picture: ImageArray | None = None
        self._number = 0
        self._encoded: tuple[int, bytes] = (0, b"")
        self._closed = False
        self.text = ""

    def publish(self, picture: ImageArray, text: str) -> None:
        """The next picture; nothing is encoded before somebody asks."""
        with self._changed:
            self._picture, self.text = picture, text
            self._number += 1
            self._changed.notify_all()

    def close(self) -> None:
        """No more pictures."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def after(self, number: int, timeout: float = STALLED_S) -> tuple[int, bytes] | None:
        """A picture newer than that of this number, as JPEG, and its number; None for none."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > number or self._closed, timeout)
            if self._closed or self._number <= number or self._picture is None:
                return None
            newest, picture = self._number, self._picture
        with self._encoding:  # clients that ask for the same one share it
            if self._encoded[0] < newest:
                self._encoded = newest, jpeg(picture)
            return self._encoded

    @property
    def closed(self) -> bool:
        """Whether there will be no more."""
        return self._closed


def jpeg(picture: ImageArray) -> bytes:
    """A picture as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


class Page:
    """The output that is a web page; its server runs while it is entered."""

    def __init__(self, port: int, controls: Controls) -> None:
        """`port` 0 is any free one; raises OutputError for one that is in use."""
        self.stand = Newsstand()
        try:
            self._server = _Server(port, self.stand, controls)
        except (OSError, OverflowError) as error:
            taken = getattr(error, "errno", None) == errno.EADDRINUSE
            why = "is used by another program" if taken else f"cannot be opened ({error})"
            raise OutputError(
                f"port={port} of {ADDRESS} {why}.", "Give another port=, or port=0 for a free one."
            ) from None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{ADDRESS}:{self._server.port}/"

    def __enter__(self) -> "Page":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stand.close()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def show(self, picture: ImageArray, seconds: float, text: str) -> None:
        """The newest picture."""
        self.stand.publish(picture, text)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = False  # closing waits for the answers in progress

    def __init__(self, port: int, stand: Newsstand, controls: Controls) -> None:
        super().__init__((ADDRESS, port), _Handler)
        self.stand, self.controls = stand, controls
        self.port = int(self.server_address[1])
        names = (ADDRESS, "localhost")
        self.hosts = {f"{name}:{self.port}" for name in names}
        if self.port == 80:
            self.hosts |= set(names)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Clients come and go: nothing is told of one that broke off."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]
    timeout = STALLED_S
    server_version, sys_version = "npga", ""

    def do_GET(self) -> None:
        if not self._welcome():
            return
        path = urlsplit(self.path).path
        if path == "/":
            checked = " checked" if self.server.controls.driver else ""
            page = PAGE.format(style=STYLE, checked=checked)
            self._answer("text/html; charset=utf-8", page.encode())
        elif path == "/status":
            status = {"text": self.server.stand.text, "driver": self.server.controls.driver}
            self._answer("application/json", json.dumps(status).encode())
        elif path == "/frame.jpg":
            newest = self.server.stand.after(0)
            if newest is None:
                self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "There is no picture yet.")
            else:
                self._answer("image/jpeg", newest[1])
        elif path == "/stream":
            self._stream()
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is no such page.")

    def do_POST(self) -> None:
        if not self._welcome():
            return
        controls, parts = self.server.controls, urlsplit(self.path)
        if parts.path == "/calibrate":
            controls.calibrate.set()
        elif parts.path == "/stop":
            controls.stop.set()
        elif parts.path == "/driver" and parts.query in ("show=0", "show=1"):
            controls.driver = parts.query == "show=1"
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is no such order.")
            return
        self._answer("text/plain", b"ok")

    def _welcome(self) -> bool:
        """Whether the request was meant for this page and comes from it."""
        hosts = self.server.hosts
        origin = self.headers.get("Origin")
        own = origin is None or origin in {f"http://{host}" for host in hosts}
        if self.headers.get("Host") in hosts and own:
            return True
        self._refuse(HTTPStatus.FORBIDDEN, "Only pages of this machine may ask.")
        return False

    def _stream(self) -> None:
        self._head("multipart/x-mixed-replace; boundary=" + BOUNDARY, None)
        number = 0
        while not self.server.stand.closed:
            newest = self.server.stand.after(number)
            if newest is None:
                continue
            number, data = newest
            head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n"
            self.wfile.write(head.encode() + b"\r\n" + data + b"\r\n")

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        self._answer("text/plain", text.encode(), status)

    def _answer(self, kind: str, data: bytes, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._head(kind, len(data), status)
        self.wfile.write(data)

    def _head(self, kind: str, length: int | None, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "same-origin")
        self.end_headers()

    def log_message(self, format: str, *values: Any) -> None:  # noqa: ANN401
        """Nothing: the log is the driver's."""
