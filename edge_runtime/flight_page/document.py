"""One HTML file that needs nothing else: scripts, styles, data and pictures inside.

A content security policy allows the page its own script and style, by their hashes, and pictures
that lie in it, and nothing more: whatever a file name holds, it cannot run, and the page cannot
reach any other place.
"""

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from html import escape
from importlib.resources import files
from typing import Any, NamedTuple

from edge_runtime.flight_page.picture_files import PictureFile

_SCRIPTS = (
    # The map moves as the live page's does.
    ("edge_runtime.live_page", "geo.js"),
    ("edge_runtime.flight_page", "tiles.js"),
    ("edge_runtime.live_page", "map.js"),
    ("edge_runtime.flight_page", "flight.js"),
    ("edge_runtime.flight_page", "words.js"),
    ("edge_runtime.flight_page", "overlay.js"),
    ("edge_runtime.flight_page", "compare.js"),
    ("edge_runtime.flight_page", "timeline.js"),
    ("edge_runtime.flight_page", "list.js"),
    ("edge_runtime.flight_page", "page.js"),
)
"""In this order: each uses only what is above it."""
_IMPORT = re.compile(r"^import [^;]*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)
_PLACE = re.compile(r"<!--(\w+)-->")


class Embedded(NamedTuple):
    """One picture by the name that the script asks for it."""

    name: str
    picture: PictureFile


def document(title: str, flight: Mapping[str, Any], pictures: Iterable[Embedded]) -> bytes:
    """Put the page together.

    Args:
        title: of the page, and all that it says where scripts do not run; nothing in it is taken
            for markup.
        flight: what the script draws, as JSON values.
        pictures: kept apart from the data, so that the browser reads each only when it is shown.

    Returns:
        UTF-8.
    """
    script, style = _script(), _asset("edge_runtime.flight_page", "page.css")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "title": escape(title),
        "policy": f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        "style": f"<style>{style}</style>",
        "data": f'<script type="application/json" id="data">{_json(flight)}</script>',
        "pictures": "\n".join(map(_picture, pictures)),
        "script": f'<script type="module">{script}</script>',
    }
    template = _asset("edge_runtime.flight_page", "page.html")
    # One pass: what is put in is not looked at again.
    return _PLACE.sub(lambda place: parts[place[1]], template).encode(errors="replace")


def _script() -> str:
    """The scripts as one module: their imports are above them already."""
    sources = (_asset(package, name) for package, name in _SCRIPTS)
    return "\n".join(_EXPORT.sub("", _IMPORT.sub("", source)) for source in sources)


def _asset(package: str, name: str) -> str:
    return (files(package) / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As a content security policy names an inline script or style (CSP level 3, section 2.3.1)."""
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _json(value: Any) -> str:
    """JSON that may stand in a script element: it cannot end it, nor begin a comment."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _picture(embedded: Embedded) -> str:
    kind, data = embedded.picture
    return (
        f'<script type="text/plain" id="{escape(embedded.name)}" data-kind="{kind}">'
        f"{b64encode(data).decode()}</script>"
    )
