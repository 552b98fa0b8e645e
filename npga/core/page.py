"""One HTML page in one file: a tree of elements whose every text and attribute is escaped.

A page refers to nothing outside itself: pictures are base64, there is no script and no font, and
its content security policy forbids the rest. A node is an `Element`, or a text.
"""

import base64
import html
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

VOID = ("br", "hr", "img", "input", "link", "meta")
"""Tags that have neither content nor an end."""
BLOCKS = ("html", "head", "body", "header", "main", "section", "div", "figure", "table", "tr", "dl")
"""Tags whose children stand on lines of their own."""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
JPEG_QUALITY = 85

STYLE = """
:root { color-scheme: light dark; --paper: #fcfcfb; --ink: #1d2024; --soft: #61676f;
  --line: #d5d8dc; --card: #f1f2f3; --accent: #2463a8; --bad: #c62828; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16181b; --ink: #e6e8ea; --soft: #a0a7af; --line: #3b4047; --card: #1f2226;
    --accent: #77b1f0; --bad: #ff7a70; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 78rem; padding: 1rem; background: var(--paper);
  color: var(--ink); font: 16px/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: .3rem 0 .8rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .2rem; border-top: 1px solid var(--line);
  padding-top: .9rem; }
p { margin: .2rem 0 .8rem; max-width: 46rem; color: var(--soft); }
figure { margin: 0; min-width: 0; }
figcaption { font-size: .85rem; color: var(--soft); padding: .25rem 0; }
figcaption b { color: var(--ink); }
img, svg { display: block; width: 100%; height: auto; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .5rem;
  margin: 0; }
.facts div { background: var(--card); border-radius: .4rem; padding: .5rem .7rem; }
.facts dt { font-size: .78rem; color: var(--soft); }
.facts dd { margin: 0; font-weight: 600; }
.grid { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(21rem, 100%), 1fr)); }
.bad { color: var(--bad); font-weight: 600; }
"""


@dataclass(frozen=True)
class Element:
    """A tag with attributes and children; make one with `element`."""

    tag: str
    attributes: tuple[tuple[str, str], ...]
    children: "tuple[Element | str, ...]"

    def __str__(self) -> str:
        """The markup: texts and attributes escaped, every end tag there."""
        names = "".join(f' {name}="{html.escape(value)}"' for name, value in self.attributes)
        if self.tag in VOID:
            return f"<{self.tag}{names}>"
        gap = "\n" if self.tag in BLOCKS else ""
        inner = gap.join(self._inside(child) for child in self.children)
        return f"<{self.tag}{names}>{gap}{inner}{gap}</{self.tag}>"

    def _inside(self, child: "Element | str") -> str:
        if isinstance(child, Element) or self.tag == "style":
            return str(child)
        return html.escape(child, quote=False)


Node = Element | str


def element(tag: str, *children: Node, **attributes: str | float) -> Element:
    """`<tag name="value">children</tag>`.

    An attribute's trailing underscore is dropped and the others become hyphens (`class_`,
    `stroke_width`); `viewBox` and the like keep their letters; numbers are shortened to 2 decimals.
    """
    named = tuple(
        (name.rstrip("_").replace("_", "-"), value if isinstance(value, str) else short(value))
        for name, value in attributes.items()
    )
    return Element(tag, named, children)


def short(value: float) -> str:
    """At most two decimals, no trailing zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def image_data(image: UInt8[np.ndarray, "h w k"]) -> str:
    """The picture as a `data:` address: JPEG for 3 channels, PNG for 4 (which may be clear)."""
    buffer = io.BytesIO()
    kind = "png" if image.shape[2] == 4 else "jpeg"
    options = {"optimize": True} if kind == "png" else {"quality": JPEG_QUALITY}
    Image.fromarray(image).save(buffer, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def picture(image: UInt8[np.ndarray, "h w k"], alt: str) -> Element:
    """An `img` that carries its pixels and its size, so that nothing moves while it loads."""
    height, width = image.shape[:2]
    return element("img", src=image_data(image), alt=alt, width=width, height=height)


def figure(content: Node, *caption: Node) -> Element:
    """Something to look at, and what it is."""
    return element("figure", content, element("figcaption", *caption))


def facts(rows: Sequence[tuple[str, str]]) -> Element:
    """Names and values, in boxes that wrap."""
    boxes = [element("div", element("dt", name), element("dd", value)) for name, value in rows]
    return element("dl", *boxes, class_="facts")


def section(title: str, about: str, *content: Node) -> Element:
    """A part of the page: a heading, a sentence that says what is shown, and the content."""
    return element("section", element("h2", title), element("p", about), *content)


def page(title: str, *body: Node, style: str = "") -> str:
    """The whole document; `style` is CSS after the page's own."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", (STYLE + style).replace("<", "")),
    )
    root = element("html", head, element("body", element("main", *body)), lang="en")
    return f"<!DOCTYPE html>\n{root}\n"


def write_page(path: str | Path, text: str) -> None:
    """Write the page under a temporary name, then rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name("." + path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
