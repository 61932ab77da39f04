"""The live page as the flight loop sees it: start, publish, close."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_runtime.artefact import made_by
from edge_runtime.fix import Fix
from edge_runtime.live_page.answering import Sources, handler_for
from edge_runtime.live_page.map_tiles import MapTiles
from edge_runtime.live_page.page_files import page_files
from edge_runtime.live_page.pictures import Pictures
from edge_runtime.live_page.subscribers import Subscribers
from edge_runtime.live_page.web_server import PageServer, is_loopback, own_names, reachable_at
from edge_runtime.sight import U8, Sight

MOST_PAGES = 8
"""Pages that may be open at a time."""


@dataclass(frozen=True, kw_only=True)
class About:
    """What the page says of the run. None and empty texts are left out."""

    title: str = "skyfix"
    """The browser tab's name: of the drone, where there are several."""
    source: str = ""
    """Where frames come from."""
    index_id: str = ""
    bundle_id: str = ""
    deadline_ms: float | None = None
    """Drawn across the latencies."""


class LivePage:
    """Serves one run's page. `publish` belongs to one thread; everything else is thread-safe."""

    def __init__(
        self,
        imagery: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        about: About | None = None,
        health: Callable[[], Mapping[str, object]] | None = None,
    ) -> None:
        """Check everything and take the port; nothing is served before `start`.

        Args:
            imagery: the index's `imagery.mbtiles`, the page's map.
            host: address to listen on; by default only this machine can connect.
            port: 0 for any that is free.
            about: of the run.
            health: answers `/health`, as JSON; called on the server's threads.

        Raises:
            ImageryError: the imagery cannot be used.
            InputError: the port is taken, or the address is not this machine's.
        """
        about = about or About()
        tiles = MapTiles(imagery)
        self._events: list[str] = []
        self._problems: set[str] = set()
        self._lock = threading.Lock()
        self._subscribers = Subscribers(MOST_PAGES)
        self._pictures = Pictures(imagery)
        self._tiles = tiles
        files = page_files()
        stat = imagery.stat()
        version = hashlib.sha256(
            json.dumps([about.index_id, stat.st_size, stat.st_mtime_ns]).encode()
        ).hexdigest()[:12]
        hello = {
            "run": f"{time.time_ns():x}",
            "page": files.digest,
            "made_by": made_by(),
            "about": asdict(about),
            "map": {
                "version": version,
                "min_zoom": tiles.min_zoom,
                "max_zoom": tiles.max_zoom,
                "bounds": tiles.bounds._asdict(),
                "attribution": tiles.attribution,
            },
        }
        sources = Sources(
            files=files,
            hello=hello,
            subscribers=self._subscribers,
            pictures=self._pictures,
            tiles=tiles,
            map_version=version,
            names=own_names(host),
            health=health,
            report=self._report,
        )
        self._server = PageServer(host, port, handler_for(sources))
        self._thread: threading.Thread | None = None
        self._closed = False
        shown = reachable_at(host)
        self.url = f"http://{f'[{shown}]' if ':' in shown else shown}:{self._server.server_port}/"
        self.notice = (
            ""
            if is_loopback(host)
            else f"anyone on the network can see the live page at {self.url}, without a password"
        )
        """One line to tell the user; empty where only this machine can connect."""

    def start(self) -> str:
        """Serve from now on, on threads of its own.

        Returns:
            The address to open in a browser.
        """
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(
                target=self._server.serve_forever,
                kwargs={"poll_interval": 0.2},
                name="skyfix-live-page",
                daemon=True,
            )
            self._thread.start()
        return self.url

    def publish(self, fix: Fix, frame_rgb: U8 | None = None, sight: Sight | None = None) -> None:
        """Show one frame. Takes microseconds, waits for nobody and never raises.

        Args:
            fix: the frame's answer.
            frame_rgb: (H, W, 3) uint8 RGB. Kept without a copy while somebody looks, until the next
                one: it must not be written to again.
            sight: how it was compared with the imagery; None where it was not.
        """
        if self._closed:
            return
        try:
            self._subscribers.add(fix)
            self._pictures.offer(fix, frame_rgb, sight)
        except Exception as error:  # noqa: BLE001 (a page must not cost the flight anything)
            self._report(f"live page: frame {fix.seq} is not shown ({error})")

    def events(self) -> list[str]:
        """What went wrong since the last call, one line each; each kind of it is told once."""
        with self._lock:
            told, self._events = self._events, []
        return told

    @property
    def pages_open(self) -> int:
        """How many pages listen."""
        return len(self._subscribers)

    def close(self) -> None:
        """End every connection and give the port back. Calling it twice is harmless."""
        if self._closed:
            return
        self._closed = True
        self._subscribers.close()
        if self._thread is not None:
            self._server.hang_up()
            self._thread.join()
        else:
            self._server.server_close()
        self._pictures.close()
        self._tiles.close()

    def __enter__(self) -> "LivePage":
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _report(self, line: str) -> None:
        with self._lock:
            if line not in self._problems and len(self._problems) < 50:
                self._problems.add(line)
                self._events.append(line)
