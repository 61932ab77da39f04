"""The live page in a real browser, driven over the DevTools protocol through a pipe.

(Chrome DevTools Protocol 1.3; --remote-debugging-pipe: one JSON message per NUL byte.)
"""

import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.fix import Fix
from edge_runtime.imagery import ImageryStore
from edge_runtime.live_page import About, LivePage
from edge_runtime.sight import Sight

U8 = npt.NDArray[np.uint8]

CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)
WAIT_S = 60.0
"""Longest wait for anything: a loaded machine is slow, and a right page is not."""


class Browser:
    """One headless browser with one tab."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # The browser reads from descriptor 3 and writes to 4, so neither may be one of these.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (to_browser, from_browser)]
        for fd in (to_browser, from_browser):
            os.close(fd)
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--mute-audio",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
            "about:blank",
        ]
        start = "import os, sys; a = sys.argv; os.dup2(int(a[1]), 3); os.dup2(int(a[2]), 4); "
        start += "os.execv(a[3], a[3:])"
        with (profile / "stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-c", start, *map(str, high), CHROMIUM, *flags],
                pass_fds=high,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )
        for fd in high:
            os.close(fd)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """One command, and its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + WAIT_S
        while True:
            answer = self._message(until)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer}"
                return answer["result"]
            self._note(answer)

    def value(self, expression: str) -> Any:
        """What an expression is in the page; promises are awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until an expression is true."""
        until = time.monotonic() + WAIT_S
        # While a page is exchanged for another there is no document for a moment.
        guarded = f"document.documentElement && document.body && ({expression})"
        while not self.value(guarded):
            data = self.value("JSON.stringify(document.documentElement?.dataset)")
            assert time.monotonic() < until, f"{expression}; {data}; {self.complaints}"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """Press and let go of a key."""
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def resize(self, width: int, height: int, *, ratio: float = 1.0, touch: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=ratio,
            mobile=touch,
        )

    def close(self) -> None:
        """End the browser and all of its processes."""
        os.close(self._write)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._read)

    def _message(self, until: float) -> Any:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, until - time.monotonic()))
            assert ready, "the browser does not answer"
            data = os.read(self._read, 1 << 20)
            assert data, "the browser has ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)

    def _note(self, event: Any) -> None:
        params = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"])[:500])
        elif event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")


LAT_DEG, LON_DEG = 47.5, 8.3
TRACK_PIXELS = """(() => {
  const c = document.getElementById("map"), d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
  let n = 0;
  for (let k = 0; k < d.length; k += 4)
    if (Math.abs(d[k] - 39) + Math.abs(d[k + 1] - 224) + Math.abs(d[k + 2] - 160) < 12) n++;
  return n;
})()"""  # noqa: E501 (JavaScript)
"""How much of the map has the colour of an OK track, #27e0a0."""


def fix(seq: int, **changes: Any) -> Fix:
    """Frame `seq` of a flight to the north-east, 10 m a frame."""
    values: dict[str, Any] = {
        "seq": seq,
        "frame": f"{seq:06d}",
        "t_exposure_s": seq / 2,
        "t_fix_s": seq / 2 + 0.1,
        "status": "OK",
        "mode": "TRACK",
        "reason": "",
        "lat_deg": LAT_DEG + 6e-5 * (seq % 20),
        "lon_deg": LON_DEG + 9e-5 * (seq % 20),
        "eph_m": 4.0,
        "yaw_deg": 45.0,
        "probability": 0.999,
        "latency_ms": {"encode": 20.0, "refine": 60.0, "total": 82.0},
    }
    return Fix(**values | changes)


def lost(seq: int) -> Fix:
    return fix(
        seq,
        status="LOST",
        mode="GLOBAL",
        reason="no agreeing match for 5.2 s",
        lat_deg=None,
        lon_deg=None,
        eph_m=None,
        yaw_deg=None,
        probability=0.0,
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here: looked for chromium, chromium-browser and google-chrome")
    opened = Browser(tmp_path_factory.mktemp("browser"))
    opened.resize(1300, 850)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def imagery(
    tmp_path_factory: pytest.TempPathFactory,
    make_mbtiles: Callable[..., Path],
    coloured_noise: Callable[[tuple[int, int], int], U8],
) -> Path:
    path: Path = make_mbtiles(
        tmp_path_factory.mktemp("map") / "imagery.mbtiles",
        # Grey, so that nothing on it has a colour of the track.
        lambda x, _: coloured_noise((x.shape[0], x.shape[1]), 11)[..., :1].repeat(3, axis=2),
    )
    return path


@pytest.fixture
def page(imagery: Path, browser: Browser) -> Iterator[LivePage]:
    """A page that is open in the browser."""
    browser.complaints.clear()
    with LivePage(imagery, port=0, about=About(title="drone 7", deadline_ms=120.0)) as served:
        browser.call("Page.navigate", url=served.url)
        browser.wait(f"location.href == '{served.url}' && {data('connection')} == 'live'")
        yield served
        browser.call("Page.navigate", url="about:blank")
        browser.wait("location.href == 'about:blank'")


def data(name: str) -> str:
    return f"document.documentElement.dataset.{name}"


def text(name: str) -> str:
    return f"document.getElementById('{name}').textContent"


def fly(page: LivePage, first: int, last: int) -> None:
    for seq in range(first, last):
        page.publish(fix(seq))


def test_the_track_is_drawn_over_the_imagery(page: LivePage, browser: Browser) -> None:
    browser.wait(f"Number({data('tiles')}) > 0 && {data('points')} == '0'")
    assert browser.value(TRACK_PIXELS) == 0
    fly(page, 0, 20)
    browser.wait(f"{data('seq')} == '19' && {data('points')} == '21'")
    browser.wait(f"{TRACK_PIXELS} > 300")
    assert (
        browser.value(text("position")) == f"{LAT_DEG + 6e-5 * 19:.6f}, {LON_DEG + 9e-5 * 19:.6f}"
    )
    assert browser.value(text("reason")) == "68 % within 6.0 m, 95 % within 9.8 m"
    assert browser.value("document.title") == "drone 7"
    assert browser.complaints == []


def test_a_page_that_opens_late_shows_the_track_so_far(imagery: Path, browser: Browser) -> None:
    with LivePage(imagery, port=0) as served:
        fly(served, 0, 15)
        browser.call("Page.navigate", url=served.url)
        browser.wait(f"location.href == '{served.url}' && {data('points')} == '16'")
        assert browser.value("document.querySelectorAll('#news li').length") == 1
        browser.call("Page.navigate", url="about:blank")


def test_the_status_turns_lost_and_the_line_ends(page: LivePage, browser: Browser) -> None:
    fly(page, 0, 8)
    browser.wait(f"{text('status-word')} == 'OK'")
    page.publish(lost(8))
    browser.wait(f"{text('status-word')} == 'LOST'")
    assert browser.value(text("mode")) == "GLOBAL"
    assert browser.value(text("reason")) == "no agreeing match for 5.2 s"
    assert browser.value(text("position")).startswith("last known 47.5004")
    news = browser.value("document.getElementById('news').innerText").split("\n")
    assert "OK → LOST: no agreeing match for 5.2 s" in news
    assert browser.value(text("spoken")) == "LOST no agreeing match for 5.2 s"
    browser.wait(f"{data('points')} == '8'")
    page.publish(fix(12))
    browser.wait(f"{text('status-word')} == 'OK' && {data('points')} == '10'")
    assert browser.complaints == []


def test_frames_that_stop_are_told(page: LivePage, browser: Browser) -> None:
    fly(page, 0, 3)
    browser.wait(f"{data('fresh')} == 'yes'")
    browser.wait(f"{data('fresh')} == 'no' && {text('notice')}.startsWith('No frame for')")
    assert browser.value(text("status-word")) == "was OK"
    assert browser.value(data("connection")) == "live"


def test_it_reconnects_after_the_server_restarts(imagery: Path, browser: Browser) -> None:
    first = LivePage(imagery, port=0)
    port = int(first.start().rstrip("/").rpartition(":")[2])
    fly(first, 0, 10)
    browser.call("Page.navigate", url=first.url)
    browser.wait(f"location.href == '{first.url}' && {data('seq')} == '9'")
    run = browser.value(data("run"))
    browser.value("window.sameDocument = true")
    first.close()
    browser.wait(f"{data('connection')} == 'lost'")
    browser.wait(f"{text('notice')}.startsWith('No connection to the drone')")
    with LivePage(imagery, port=port) as second:
        fly(second, 0, 3)
        browser.wait(f"{data('connection')} == 'live' && {data('seq')} == '2'")
        assert browser.value("window.sameDocument"), "the page was loaded again"
        assert browser.value(data("run")) != run
        browser.wait(f"{data('points')} == '4' && document.getElementById('notice').hidden")
        browser.call("Page.navigate", url="about:blank")


def test_camera_and_imagery_are_compared_by_keyboard(
    page: LivePage, browser: Browser, imagery: Path
) -> None:
    store = ImageryStore(imagery)
    seen = store.patch(LAT_DEG, LON_DEG, size_m=60.0, size_px=120)
    store.close()
    frame = np.random.default_rng(1).integers(0, 255, (90, 120, 3), np.uint8)
    sight = Sight(seen.image, seen.mask, 60.0, LAT_DEG, LON_DEG, 0.0, 1.0)
    deadline = time.monotonic() + WAIT_S
    seq = 0
    while browser.value(data("pictures")) is None:
        assert time.monotonic() < deadline
        page.publish(fix(seq), frame, sight)
        seq += 1
        time.sleep(0.1)
    for last in range(seq, seq + 5):
        page.publish(fix(last), frame, sight)
    browser.wait(f"{data('pictures')} == '{seq + 4}:111'")
    clip = "document.getElementById('view').style.clipPath"
    assert browser.value(clip) == "inset(0px 50% 0px 0px)"
    browser.value("document.getElementById('swipe').focus()")
    browser.call(
        "Input.dispatchKeyEvent", type="keyDown", key="Home", code="Home", windowsVirtualKeyCode=36
    )
    browser.wait(f"{clip} == 'inset(0px 100% 0px 0px)'")
    browser.press("b")
    browser.wait(f"{clip} == 'inset(0px)' || {clip} == 'inset(0px 0% 0px 0px)'")
    browser.wait(f"{clip} == 'inset(0px 100% 0px 0px)'")
    browser.press("b")
    # Both are the same ground: the browser must show the same picture on both sides.
    difference = browser.value("""(() => {
      const pixels = (id) => {
        const c = document.createElement("canvas"), x = c.getContext("2d");
        c.width = c.height = 60;
        x.drawImage(document.getElementById(id), 0, 0, 60, 60);
        return x.getImageData(0, 0, 60, 60).data;
      };
      const a = pixels("view"), b = pixels("imagery");
      return a.reduce((sum, v, k) => sum + Math.abs(v - b[k]), 0) / a.length;
    })()""")
    assert difference < 2.0
    assert browser.complaints == []


def test_the_map_moves_and_zooms_by_keyboard(page: LivePage, browser: Browser) -> None:
    fly(page, 0, 5)
    browser.wait(f"{data('points')} == '6'")
    follow = "document.getElementById('follow').getAttribute('aria-pressed')"
    assert browser.value(follow) == "true"
    before = browser.value(TRACK_PIXELS)
    browser.press("+")
    browser.wait(f"{TRACK_PIXELS} > {1.4 * before}")
    browser.value("document.getElementById('map').focus()")
    for _ in range(40):
        browser.press("ArrowLeft")
    browser.wait(f"{follow} == 'false' && {TRACK_PIXELS} == 0")
    browser.press("f")
    browser.wait(f"{follow} == 'true' && {TRACK_PIXELS} > {1.2 * before}")


def test_the_page_asks_nobody_but_its_server(page: LivePage, browser: Browser) -> None:
    fly(page, 0, 3)
    browser.wait(f"Number({data('tiles')}) > 0")
    # What is still on its way is not among them yet.
    browser.wait("performance.getEntriesByType('resource').length > 8")
    asked = browser.value("performance.getEntriesByType('resource').map((e) => e.name)")
    assert all(url.startswith(page.url) for url in asked), asked


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1024, 768), (768, 1024), (390, 844)])
def test_nothing_is_wider_than_the_screen(
    page: LivePage, browser: Browser, width: int, height: int
) -> None:
    browser.resize(width, height)
    try:
        fly(page, 0, 3)
        browser.wait(f"{data('seq')} == '2'")
        assert browser.value("document.documentElement.scrollWidth") <= width
        sections = "[...document.querySelectorAll('main > section')]"
        wider = f"{sections}.map((s) => s.scrollWidth - s.clientWidth)"
        assert max(browser.value(wider)) <= 0
        if width > 900:
            assert browser.value("document.documentElement.scrollHeight") <= height
    finally:
        browser.resize(1300, 850)
