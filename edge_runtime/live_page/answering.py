"""Which request gets which answer."""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

from edge_runtime.errors import SkyfixError
from edge_runtime.live_page.history import Snapshot
from edge_runtime.live_page.map_tiles import MapTiles
from edge_runtime.live_page.page_files import PageFiles
from edge_runtime.live_page.pictures import KINDS, Kind, Pictures
from edge_runtime.live_page.subscribers import Subscribers, TooManyListenersError
from edge_runtime.live_page.web_server import may_be_named

_BEAT_S = 2.0
"""Between signs of life to a page, which takes silence for a connection that is gone."""
_TILE = re.compile(r"/tiles/(\d{1,2})/(\d{1,8})/(\d{1,8})")
_JSON = "application/json"
_PICTURES = {f"/{kind}.jpg": kind for kind in KINDS}
_REFUSED = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
_SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What answers are made of."""

    files: PageFiles
    hello: Mapping[str, object]
    subscribers: Subscribers
    pictures: Pictures
    tiles: MapTiles
    map_version: str
    """Changes with the imagery: tiles asked for with it may be kept by the browser."""
    names: frozenset[str]
    health: Callable[[], Mapping[str, object]] | None
    report: Callable[[str], None]
    """Told what went wrong, in one line."""


def handler_for(sources: Sources) -> type[BaseHTTPRequestHandler]:
    """The class whose instances answer one connection each."""
    answers: dict[str, object] = {f"do_{method}": _Handler.refuse for method in _REFUSED}
    answers |= {f"do_{method}": _Handler.answer for method in ("GET", "HEAD")}
    return type("LivePageHandler", (_Handler,), {"sources": sources, **answers})


class _Handler(BaseHTTPRequestHandler):
    sources: Sources
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "skyfix", ""
    timeout = 20
    """Seconds a client may take to send a request or to take an answer in."""
    # An answer leaves in one packet where it can.
    wbufsize = 1 << 16

    def answer(self) -> None:
        try:
            if self._admitted():
                self._answer()
        except (BrokenPipeError, ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:  # noqa: BLE001 (a page must not cost the flight anything)
            self.sources.report(f"live page: {self.path[:60]!r} failed ({error})")
            self.close_connection = True
            with suppress(OSError):
                self._text(500, "the answer to this request failed; the flight's log says why")

    def refuse(self) -> None:
        self.close_connection = True
        self._text(405, "only GET and HEAD", {"Allow": "GET, HEAD"})

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing: the flight's output is not the page's."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what the library refuses by itself, as a request it cannot read."""
        self.close_connection = True
        with suppress(OSError):
            self._text(code, message or explain or "refused")

    def _admitted(self) -> bool:
        """Whether to answer; if not, the refusal has been sent."""
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            self._text(400, "a request here has no body")
            return False
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not may_be_named(hosts[0], self.sources.names):
            self.close_connection = True
            self._text(421, "this server is called by its address, or by localhost")
            return False
        site = self.headers.get("Sec-Fetch-Site", "none")
        opened = self.headers.get("Sec-Fetch-Mode") == "navigate"
        if site not in ("none", "same-origin") and not opened:
            self._text(403, "another web page may not use this one")
            return False
        return True

    def _answer(self) -> None:
        s, url = self.sources, urlsplit(self.path)
        file = s.files.by_path.get(url.path)
        if file is not None:
            self._send(200, file.data, file.content_type)
        elif (kind := _PICTURES.get(url.path)) is not None:
            self._picture(kind, url.query)
        elif (match := _TILE.fullmatch(url.path)) is not None:
            self._tile(int(match[1]), int(match[2]), int(match[3]), url.query)
        elif url.path == "/events":
            self._events()
        elif url.path == "/fix.json":
            fix = s.subscribers.snapshot().fix
            if fix is None:
                self._text(503, "no frame yet", {"Retry-After": "1"})
            else:
                self._send(200, fix.to_json().encode(), _JSON)
        elif url.path == "/track.geojson":
            self._send(200, s.subscribers.snapshot().geojson().encode(), "application/geo+json")
        elif url.path == "/pictures.json":
            shot = s.pictures.newest()
            if shot is None:
                self._text(503, "no frame yet", {"Retry-After": "1"})
            else:
                self._send(200, json.dumps(shot._asdict()).encode(), _JSON)
        elif url.path == "/about.json":
            self._send(200, json.dumps(s.hello).encode(), _JSON)
        elif url.path == "/health" and s.health is not None:
            self._send(200, json.dumps(s.health()).encode(), _JSON)
        else:
            self._text(404, "there is nothing here; the page is at /")

    def _picture(self, kind: Kind, query: str) -> None:
        wanted = parse_qs(query).get("seq", [""])[0]
        seq = int(wanted) if wanted.isascii() and wanted.isdigit() else None
        try:
            data = self.sources.pictures.jpeg(kind, seq)
        except SkyfixError as error:
            self.sources.report(f"live page: no {kind} picture ({error})")
            data = None
        if data is None:
            self._text(404, f"there is no {kind} of this frame, or not any more")
        else:
            self._send(200, data, "image/jpeg")

    def _tile(self, zoom: int, x: int, y: int, query: str) -> None:
        tile = self.sources.tiles.tile(zoom, x, y)
        kept = parse_qs(query).get("v") == [self.sources.map_version]
        caching = "private, max-age=86400, immutable" if kept else "no-cache"
        if tile is None:
            self._send(204, b"", None, {"Cache-Control": caching})
        else:
            self._send(200, tile.data, tile.content_type, {"Cache-Control": caching})

    def _events(self) -> None:
        """Server-sent events (WHATWG HTML, section 9.2) until either side ends them."""
        self.close_connection = True
        try:
            with self.sources.subscribers.listening(_BEAT_S) as batches:
                self._head(200, "text/event-stream", None, {})
                if self.command == "HEAD":
                    return
                self._event("hello", json.dumps(self.sources.hello))
                self.wfile.flush()
                for batch in batches:
                    for item in batch:
                        name = "history" if isinstance(item, Snapshot) else "fix"
                        self._event(name, item.json() if isinstance(item, Snapshot) else item.json)
                    if not batch:
                        self._event("beat", "{}")
                    self.wfile.flush()
        except TooManyListenersError:
            self._text(503, "as many pages are open as may be", {"Retry-After": "5"})

    def _event(self, name: str, line: str) -> None:
        self.wfile.write(f"event: {name}\ndata: {line}\n\n".encode())

    def _text(self, code: int, line: str, headers: Mapping[str, str] | None = None) -> None:
        self._send(code, f"{line}\n".encode(), "text/plain; charset=utf-8", headers)

    def _send(
        self,
        code: int,
        body: bytes,
        content_type: str | None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._head(code, content_type, None if code == 204 else len(body), headers or {})
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def _head(
        self, code: int, content_type: str | None, length: int | None, headers: Mapping[str, str]
    ) -> None:
        self.send_response(code)
        if content_type is not None:
            self.send_header("Content-Type", content_type)
        if length is not None:
            self.send_header("Content-Length", str(length))
        if self.close_connection:
            self.send_header("Connection", "close")
        for name, value in ({"Cache-Control": "no-store"} | _SECURITY | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()
