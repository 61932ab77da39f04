"""The files the page is made of, read once from the package."""

import hashlib
from importlib.resources import files
from typing import NamedTuple

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class PageFile(NamedTuple):
    """One file as it is sent."""

    data: bytes
    content_type: str


class PageFiles(NamedTuple):
    """Everything the page is made of."""

    by_path: dict[str, PageFile]
    """By the path it is asked for; nothing else is ever looked up, on disk or elsewhere."""
    digest: str
    """Changes with any of the files: an open page loads itself again when it sees another."""


def page_files() -> PageFiles:
    """Read them."""
    folder = files("edge_runtime.live_page") / "assets"
    found = {
        item.name: PageFile(item.read_bytes(), _TYPES[suffix])
        for item in sorted(folder.iterdir(), key=lambda item: item.name)
        if (suffix := item.name[item.name.rfind(".") :]) in _TYPES
    }
    digest = hashlib.sha256(b"".join(file.data for file in found.values())).hexdigest()[:12]
    by_path = {f"/assets/{name}": file for name, file in found.items()}
    by_path["/"] = by_path.pop("/assets/index.html")
    return PageFiles(by_path, digest)
