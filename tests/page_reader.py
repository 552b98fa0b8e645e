"""A page taken apart by the standard parser: tags in order, texts, and whether every tag ends."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

from npga.core.page import VOID


@dataclass
class Seen:
    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def having(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        names = {key.rstrip("_"): value for key, value in wanted.items()}
        return [a for t, a in self.tags if t == tag and names.items() <= a.items()]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen, self.open = Seen(), []

    def handle_starttag(self, tag, attrs) -> None:
        self.seen.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> ends {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data) -> None:
        if self.open and self.open[-1] != "style":
            self.seen.texts.append(data)


def read_page(text: str) -> Seen:
    """What is on the page; fails where tags are unbalanced."""
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open, f"never ended: {reader.open}"
    return reader.seen


def outside_references(text: str, seen: Seen) -> list[str]:
    """Every address that is no picture inside the page."""
    named = [
        value
        for _, attributes in seen.tags
        for key, value in attributes.items()
        if key in ("src", "href", "action", "srcset", "poster", "data")
    ]
    found = [value for value in named if not value.startswith("data:image/")]
    lower = text.lower().replace("http://www.w3.org/2000/svg", "")
    found += [
        mark for mark in ("http://", "https://", "url(", "@import", "<script") if mark in lower
    ]
    return found
