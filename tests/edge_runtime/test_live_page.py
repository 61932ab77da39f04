"""The live page's server, as a client without a browser sees it, and what lies below it."""

import gc
import http.client
import json
import math
import socket
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.errors import ImageryError, InputError
from edge_runtime.fix import Fix, fix_from_json
from edge_runtime.imagery import ImageryStore
from edge_runtime.live_page import About, LivePage
from edge_runtime.live_page.history import MOST_POINTS, History, Snapshot, Update
from edge_runtime.live_page.map_tiles import MapTiles
from edge_runtime.live_page.page import MOST_PAGES
from edge_runtime.live_page.pictures import SHORTEST_S, Pictures
from edge_runtime.live_page.subscribers import QUEUE, Subscribers
from edge_runtime.live_page.web_server import may_be_named, own_names
from edge_runtime.sight import Sight

U8 = npt.NDArray[np.uint8]
LAT_DEG, LON_DEG = 47.5, 8.3
WAIT_S = 30.0
NOWHERE: dict[str, Any] = {"lat_deg": None, "lon_deg": None, "eph_m": None}


def seen_as(view: U8, mask: U8, size_m: float, **changes: Any) -> Sight:
    """A frame that fits right in the middle of the map, unless it is said otherwise."""
    values: dict[str, Any] = {
        "centre_lat_deg": LAT_DEG,
        "centre_lon_deg": LON_DEG,
        "yaw_correction_deg": 0.0,
        "scale_correction": 1.0,
    }
    return Sight(view, mask, size_m, **(values | changes))


def fix(seq: int, **changes: Any) -> Fix:
    """Frame `seq` of a flight to the north, 1.1 m a frame."""
    values: dict[str, Any] = {
        "seq": seq,
        "frame": f"{seq:06d}",
        "t_exposure_s": seq / 10,
        "t_fix_s": seq / 10,
        "status": "OK",
        "mode": "TRACK",
        "reason": "",
        "lat_deg": LAT_DEG + 1e-5 * seq,
        "lon_deg": LON_DEG,
        "eph_m": 2.0,
        "latency_ms": {"encode": 20.0, "total": 42.0},
    }
    return Fix(**values | changes)


@pytest.fixture(scope="module")
def imagery(
    tmp_path_factory: pytest.TempPathFactory,
    make_mbtiles: Callable[..., Path],
    coloured_noise: Callable[[tuple[int, int], int], U8],
) -> Path:
    path: Path = make_mbtiles(
        tmp_path_factory.mktemp("map") / "imagery.mbtiles",
        lambda x, _: coloured_noise((x.shape[0], x.shape[1]), 3),
    )
    return path


@pytest.fixture
def page(imagery: Path) -> Iterator[LivePage]:
    with LivePage(imagery, port=0, health=lambda: {"camera": "well"}) as served:
        yield served
    assert not served.events()


def port_of(page: LivePage) -> int:
    return int(page.url.rstrip("/").rpartition(":")[2])


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


def ask(page: LivePage, path: str, method: str = "GET", **headers: str) -> Answer:
    with closing(http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=WAIT_S)) as to:
        to.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        answer = to.getresponse()
        return Answer(answer.status, answer.headers, answer.read())


class Stream:
    """A listener to /events."""

    def __init__(self, page: LivePage) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port_of(page)), WAIT_S)
        self.socket.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self._file = self.socket.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        while self._file.readline().strip():
            pass

    def next(self, *, beats: bool = False) -> tuple[str, Any]:
        """The next event; without the signs of life unless asked for."""
        while True:
            line = self._file.readline()
            assert line, "the stream has ended"
            if line.startswith(b"event: "):
                name = line[7:].decode().strip()
                data = json.loads(self._file.readline()[6:])
                if beats or name != "beat":
                    return name, data

    def ends(self) -> bool:
        return not self._file.read().strip()

    def close(self) -> None:
        self._file.close()
        self.socket.close()


# --- history ---------------------------------------------------------------------------------


def track_of(fixes: list[Fix]) -> Snapshot:
    history = History()
    for one in fixes:
        history.add(one)
    return history.snapshot()


def test_a_day_of_flight_takes_a_bounded_history_that_still_spans_it() -> None:
    history = History()
    frames = 60_000
    for seq in range(frames):
        history.add(fix(seq, lat_deg=LAT_DEG + 1e-5 * (seq % 40_000)))
    kept = history.snapshot()
    assert MOST_POINTS / 8 < len(kept.points) <= MOST_POINTS
    assert kept.points[0].seq == 0
    assert kept.totals == {"frames": frames, "OK": frames, "missed": 0, "shed": 0, "dropped": 0}
    assert kept.times[0][0] >= frames / 10 - 60.2
    steps = np.diff([p.seq for p in kept.points])
    assert steps.max() <= 4 * np.median(steps), "some part of the flight is thinned more"


def test_thinning_keeps_every_change_of_status() -> None:
    def status(seq: int) -> dict[str, Any]:
        return {"status": "LOST", **NOWHERE} if seq % 500 >= 490 else {}

    kept = track_of([fix(seq, **status(seq)) for seq in range(20_000)])
    gaps = [p for p in kept.points if p.lat_deg is None]
    assert [p.seq for p in gaps] == list(range(490, 20_000, 500))


def test_a_status_that_changes_with_every_frame_does_not_grow_the_history() -> None:
    fixes = [fix(seq, status=("OK", "DEGRADED")[seq % 2]) for seq in range(MOST_POINTS * 3)]
    kept = track_of(fixes)
    assert len(kept.points) <= MOST_POINTS
    assert kept.points[-1].seq == fixes[-1].seq
    assert len(kept.news) == 200


def test_hovering_adds_no_points() -> None:
    assert len(track_of([fix(k, lat_deg=LAT_DEG, lon_deg=LON_DEG) for k in range(500)]).points) == 1


def test_the_track_is_cut_where_there_is_no_position_and_where_it_jumps() -> None:
    kept = track_of(
        [fix(k) for k in range(4)]
        + [fix(k, status="ABSTAIN", **NOWHERE) for k in range(4, 6)]
        + [fix(k) for k in range(6, 9)]
        + [fix(k, status="DEGRADED") for k in range(9, 12)]
        + [fix(k, reset_counter=1) for k in range(12, 14)]
    )
    features = json.loads(kept.geojson())["features"]
    spans = [
        (f["properties"]["status"], f["properties"]["first_seq"], f["properties"]["last_seq"])
        for f in features
    ]
    assert spans == [("OK", 0, 3), ("OK", 6, 8), ("DEGRADED", 8, 11), ("OK", 12, 13)]
    assert features[0]["geometry"]["type"] == "LineString"
    assert features[0]["geometry"]["coordinates"][0] == [LON_DEG, LAT_DEG]


def test_positions_that_are_not_finite_are_gaps() -> None:
    kept = track_of([fix(0), fix(1, lat_deg=math.nan), fix(2, eph_m=math.inf)])
    assert [p.lat_deg is None for p in kept.points] == [False, True, False]
    assert json.loads(kept.json())["points"][2][4] is None


def test_changes_and_events_are_told_with_their_times() -> None:
    kept = track_of(
        [
            fix(0, status="ABSTAIN", mode="GLOBAL", reason="no match yet", **NOWHERE),
            fix(1),
            fix(2, events=("camera reopened",), deadline_missed=True, shed=("refine",)),
            fix(3, deadline_missed=True, shed=("refine",)),
            fix(4, reset_counter=1),
        ]
    )
    assert [tuple(n) for n in kept.news] == [
        (0.0, 0, "status", "ABSTAIN: no match yet"),
        (0.1, 1, "status", "ABSTAIN → OK"),
        (0.1, 1, "mode", "GLOBAL → TRACK"),
        (0.2, 2, "event", "camera reopened"),
        (0.2, 2, "deadline", "missed, 42 ms"),
        (0.2, 2, "shed", "left out: refine"),
        (0.4, 4, "reset", "the position jumps to a new track"),
    ]


# --- listeners -------------------------------------------------------------------------------


def test_a_listener_gets_the_history_and_then_every_update() -> None:
    subscribers = Subscribers(1)
    for seq in range(3):
        subscribers.add(fix(seq))
    with subscribers.listening(WAIT_S) as batches:
        (first,) = next(batches)
        assert isinstance(first, Snapshot)
        assert first.totals["frames"] == 3
        subscribers.add(fix(3))
        subscribers.add(fix(4))
        updates = next(batches)
        assert [u.fix.seq for u in updates if isinstance(u, Update) and u.fix] == [3, 4]


def test_a_slow_listener_costs_a_short_queue_and_is_sent_the_history_again() -> None:
    subscribers = Subscribers(1)
    with subscribers.listening(WAIT_S) as batches:
        next(batches)
        old = fix(0)
        gone = weakref.ref(old)
        subscribers.add(old)
        del old
        for seq in range(1, 10 * QUEUE):
            subscribers.add(fix(seq))
        gc.collect()
        assert gone() is None, "a fix of long ago is still held for the listener"
        (again,) = next(batches)
        assert isinstance(again, Snapshot)
        assert again.fix is not None
        assert again.fix.seq == 10 * QUEUE - 1


def test_silence_is_told_as_an_empty_batch() -> None:
    with Subscribers(1).listening(0.01) as batches:
        next(batches)
        assert list(next(batches)) == []


# --- pictures --------------------------------------------------------------------------------


def decoded(data: bytes | None) -> U8:
    assert data is not None
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None
    return np.asarray(bgr[..., ::-1], np.uint8)


def test_nothing_is_kept_of_a_frame_nobody_asked_for(imagery: Path) -> None:
    pictures = Pictures(imagery)
    frame = np.zeros((90, 120, 3), np.uint8)
    gone = weakref.ref(frame)
    pictures.offer(fix(0), frame, None)
    del frame
    assert gone() is None
    pictures.close()


def test_frames_are_let_go_when_nobody_asks_any_more(imagery: Path) -> None:
    now = [100.0]
    pictures = Pictures(imagery, clock=lambda: now[0])
    waiting = threading.Thread(target=pictures.newest)
    waiting.start()
    frame = np.zeros((90, 120, 3), np.uint8)
    gone = weakref.ref(frame)
    while waiting.is_alive():
        pictures.offer(fix(0), frame, None)
        waiting.join(0.01)
    del frame
    assert gone() is not None
    now[0] += 6.0
    pictures.offer(fix(1), np.zeros((90, 120, 3), np.uint8), None)
    assert gone() is None
    pictures.close()


def test_no_more_than_five_frames_a_second_are_encoded(imagery: Path) -> None:
    now = [0.0]
    pictures = Pictures(imagery, clock=lambda: now[0])
    waiting = threading.Thread(target=pictures.newest)
    waiting.start()
    while waiting.is_alive():
        pictures.offer(fix(0), np.zeros((9, 12, 3), np.uint8), None)
        waiting.join(0.01)
    shown = set()
    for seq in range(1, 101):
        now[0] += 0.01
        pictures.offer(fix(seq), np.zeros((9, 12, 3), np.uint8), None)
        info = pictures.newest()
        assert info is not None
        shown.add(info.seq)
    assert len(shown) <= 1 + 1.0 / SHORTEST_S
    pictures.close()


@pytest.mark.parametrize(("yaw_deg", "scale"), [(0.0, 1.0), (9.0, 1.0), (-14.0, 0.93), (5.0, 1.08)])
def test_view_and_imagery_show_the_same_ground(imagery: Path, yaw_deg: float, scale: float) -> None:
    """A view made with a heading too small by `yaw_deg` is turned that much anticlockwise."""
    store = ImageryStore(imagery)
    ground = store.patch(LAT_DEG, LON_DEG, size_m=80.0, size_px=160)
    store.close()
    undo = cv2.getRotationMatrix2D((79.5, 79.5), yaw_deg, 1 / scale)
    view = np.asarray(cv2.warpAffine(ground.image, undo, (160, 160)), np.uint8)
    seen = seen_as(view, ground.mask, 80.0, yaw_correction_deg=yaw_deg, scale_correction=scale)
    pictures = Pictures(imagery)
    with_frame = threading.Thread(target=pictures.newest)
    with_frame.start()
    while with_frame.is_alive():
        pictures.offer(fix(0), view, seen)
        with_frame.join(0.01)
    middle = np.s_[40:120, 40:120]
    shown = decoded(pictures.jpeg("view", 0))[middle].astype(np.float64)
    expected = decoded(pictures.jpeg("imagery", 0))[middle].astype(np.float64)
    pictures.close()
    assert np.corrcoef(shown.ravel(), expected.ravel())[0, 1] > 0.97


def test_what_the_camera_did_not_see_is_black(imagery: Path) -> None:
    mask = np.full((64, 64), 255, np.uint8)
    mask[:, :32] = 0
    with LivePage(imagery, port=0) as page:
        shot = shown(page, seen_as(np.full((64, 64, 3), 200, np.uint8), mask, 60.0))
        view = decoded(ask(page, f"/view.jpg?seq={shot['seq']}").body)
    assert view[:, :28].max() < 20
    assert view[:, 36:].min() > 180


def shown(page: LivePage, sight: Sight | None, frame: U8 | None = None) -> Any:
    """Publish until pictures can be had, and what there is of them."""
    found: list[Answer] = []
    asking = threading.Thread(target=lambda: found.append(ask(page, "/pictures.json")))
    asking.start()
    seq = 0
    while asking.is_alive():
        page.publish(fix(seq), frame, sight)
        seq += 1
        asking.join(0.02)
    assert found[0].status == 200
    return json.loads(found[0].body)


# --- the server ------------------------------------------------------------------------------


def test_the_newest_fix_is_answered_as_the_log_writes_it(page: LivePage) -> None:
    assert ask(page, "/fix.json").status == 503
    page.publish(fix(0))
    page.publish(fix(1, reason="for once", eph_m=math.nan))
    answer = ask(page, "/fix.json")
    assert answer.headers["Content-Type"] == "application/json"
    assert fix_from_json(answer.body.decode()) == fix(1, reason="for once", eph_m=None)


def test_events_tell_the_history_and_each_fix(page: LivePage) -> None:
    page.publish(fix(0))
    stream = Stream(page)
    name, hello = stream.next()
    assert (name, hello["map"]["max_zoom"], hello["about"]["title"]) == ("hello", 17, "skyfix")
    name, history = stream.next()
    assert (name, len(history["points"]), history["fix"]["seq"]) == ("history", 1, 0)
    page.publish(fix(1, events=("camera reopened",)))
    name, update = stream.next()
    assert (name, update["fix"]["seq"], update["point"][0]) == ("fix", 1, 1)
    assert update["news"] == [[0.1, 1, "event", "camera reopened"]]
    assert update["totals"]["frames"] == 2
    assert stream.next(beats=True)[0] == "beat"
    stream.close()


def test_tiles_are_the_files_own_bytes(page: LivePage, imagery: Path) -> None:
    with closing(sqlite3.connect(imagery)) as db:
        z, x, tms_y, data = db.execute("SELECT * FROM tiles LIMIT 1").fetchone()
    y = 2**z - 1 - tms_y
    answer = ask(page, f"/tiles/{z}/{x}/{y}")
    assert answer.body == data
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Cache-Control"] == "no-cache"
    version = json.loads(ask(page, "/about.json").body)["map"]["version"]
    kept = ask(page, f"/tiles/{z}/{x}/{y}?v={version}")
    assert "immutable" in kept.headers["Cache-Control"]


@pytest.mark.parametrize("path", ["/tiles/17/0/0", "/tiles/3/1/1", "/tiles/99/1/1"])
def test_a_tile_that_is_not_there_is_an_empty_answer(page: LivePage, path: str) -> None:
    answer = ask(page, path)
    assert (answer.status, answer.body) == (204, b"")


def test_tiles_are_read_by_many_threads_at_once(imagery: Path) -> None:
    tiles = MapTiles(imagery)
    with closing(sqlite3.connect(imagery)) as db:
        rows = db.execute("SELECT * FROM tiles").fetchall()
    wrong: list[object] = []

    def read() -> None:
        for z, x, tms_y, data in rows * 10:
            tile = tiles.tile(z, x, 2**z - 1 - tms_y)
            if tile is None or tile.data != data:
                wrong.append((z, x))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tiles.close()
    assert not wrong


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/assets/../page.py",
        "/assets/..%2fpage.py",
        "//etc/passwd",
        "/assets/",
        "/../../etc/passwd",
        "/tiles/17/1/../1",
        "/tiles/1e1/1/1",
        "/nothing",
    ],
)
def test_no_file_can_be_reached(page: LivePage, path: str) -> None:
    answer = ask(page, path)
    assert answer.status == 404
    assert answer.body == b"there is nothing here; the page is at /\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_nothing_can_be_sent(page: LivePage, method: str) -> None:
    answer = ask(page, "/fix.json", method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_a_head_request_has_the_length_and_no_body(page: LivePage) -> None:
    whole, head = ask(page, "/"), ask(page, "/", "HEAD")
    assert head.status == 200
    assert head.headers["Content-Length"] == str(len(whole.body))
    assert head.body == b""


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "localhost.evil.example", ""]
)
def test_a_strangers_name_for_the_server_is_refused(page: LivePage, host: str) -> None:
    page.publish(fix(0))
    answer = ask(page, "/fix.json", Host=host)
    assert answer.status == 421
    assert b"47.5" not in answer.body


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("localhost:8080", True),
        ("127.0.0.1", True),
        ("192.168.4.1:8080", True),
        ("[::1]:8080", True),
        ("Drone.Local:80", True),
        ("localhost.", True),
        ("[::1", False),
        ("[::1]evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("evil.example", False),
    ],
)
def test_addresses_and_own_names_are_good_hosts(host: str, good: bool) -> None:
    assert may_be_named(host, own_names("127.0.0.1") | {"drone.local"}) is good


def test_another_web_page_may_link_here_and_nothing_else(page: LivePage) -> None:
    assert ask(page, "/events", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="cors").status == 403
    assert (
        ask(page, "/frame.jpg", Sec_Fetch_Site="same-site", Sec_Fetch_Mode="no-cors").status == 403
    )
    assert ask(page, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate").status == 200


def test_every_answer_forbids_what_is_not_from_here(page: LivePage) -> None:
    for path in ("/", "/assets/page.js", "/nothing", "/about.json"):
        policy = ask(page, path).headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'")
        assert "unsafe" not in policy
        assert "http" not in policy


def test_the_page_names_no_other_machine(page: LivePage) -> None:
    html = ask(page, "/").body.decode()
    assets = [part.split('"')[0] for part in html.split('="/assets/')[1:]]
    assert {"page.js", "page.css", "icon.svg"} <= set(assets)
    folder = Path(__file__).parents[2] / "edge_runtime" / "live_page" / "assets"
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else assets
    for name in names:
        path = "/" if name == "index.html" else f"/assets/{name}"
        body = ask(page, path).body.decode()
        assert body.replace("http://www.w3.org/2000/svg", "").count("://") == 0, name


def test_health_is_what_the_run_says(page: LivePage, imagery: Path) -> None:
    assert json.loads(ask(page, "/health").body) == {"camera": "well"}
    with LivePage(imagery, port=0) as without:
        assert ask(without, "/health").status == 404


def test_a_failure_is_answered_told_once_and_survived(imagery: Path) -> None:
    def broken() -> dict[str, object]:
        raise RuntimeError("no camera")

    with LivePage(imagery, port=0, health=broken) as page:
        assert ask(page, "/health").status == 500
        assert ask(page, "/health").status == 500
        assert ask(page, "/about.json").status == 200
        assert page.events() == ["live page: '/health' failed (no camera)"]
        assert page.events() == []


def test_one_page_more_than_allowed_is_refused_until_another_closes(page: LivePage) -> None:
    streams = [Stream(page) for _ in range(MOST_PAGES)]
    for stream in streams:
        assert stream.next()[0] == "hello"
    refused = ask(page, "/events")
    assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
    streams.pop().close()
    until = time.monotonic() + WAIT_S
    while ask_status(page) == 503:
        assert time.monotonic() < until, "the place of the closed page is not given back"
        page.publish(fix(0))
        time.sleep(0.05)
    for stream in streams:
        stream.close()


def ask_status(page: LivePage) -> int:
    stream = Stream(page)
    stream.close()
    return stream.status


def test_publishing_waits_for_no_client_that_does_not_read(page: LivePage) -> None:
    streams = [Stream(page) for _ in range(4)]
    long = fix(0, reason="x" * 20_000)
    started = time.monotonic()
    for _ in range(3000):
        page.publish(long)
    # 240 MB were for nobody: a server that waits for its clients would still be at it.
    assert time.monotonic() - started < 20.0
    for stream in streams:
        stream.close()


def test_publishing_costs_next_to_nothing(page: LivePage) -> None:
    frame = np.zeros((90, 120, 3), np.uint8)
    times = []
    for seq in range(1000):
        one = fix(seq)
        started = time.perf_counter()
        page.publish(one, frame, None)
        times.append(time.perf_counter() - started)
    assert float(np.median(times)) < 0.2e-3


def test_closing_ends_every_stream_and_frees_the_port(imagery: Path) -> None:
    page = LivePage(imagery, port=0)
    page.start()
    stream = Stream(page)
    assert [stream.next()[0] for _ in range(2)] == ["hello", "history"]
    idle = http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=WAIT_S)
    idle.request("GET", "/about.json")
    assert idle.getresponse().read()
    page.close()
    page.close()
    page.publish(fix(0))
    assert stream.ends()
    assert idle.sock is not None, "the connection was not kept open"
    assert idle.sock.recv(1) == b""
    idle.close()
    stream.close()
    LivePage(imagery, port=port_of(page)).close()
    left = [t.name for t in threading.enumerate() if t.name.startswith("skyfix-live-page")]
    assert left == []


def test_a_taken_port_names_a_free_one(imagery: Path) -> None:
    with LivePage(imagery, port=0) as page:
        with pytest.raises(
            InputError, match=r"is taken; expected a free one: use port \d+, which is free"
        ) as told:
            LivePage(imagery, port=port_of(page))
        free = int(str(told.value).rpartition("port ")[2].partition(",")[0])
        LivePage(imagery, port=free).close()


@pytest.mark.parametrize(
    ("host", "port", "match"),
    [
        ("127.0.0.1", 70_000, r"the port is 70000; expected a number from 0 to 65535"),
        ("192.0.2.7", 0, r"cannot listen on 192\.0\.2\.7 .* use 127\.0\.0\.1 for this machine"),
        ("no such host", 0, r"cannot listen on no such host"),
    ],
)
def test_an_address_that_is_none_of_ours_is_refused(
    imagery: Path, host: str, port: int, match: str
) -> None:
    with pytest.raises(InputError, match=match):
        LivePage(imagery, host=host, port=port)


def test_imagery_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageryError, match="is not an MBTiles file"):
        LivePage(tmp_path / "missing.mbtiles", port=0)


def test_only_a_page_for_everyone_says_so(imagery: Path, page: LivePage) -> None:
    assert page.notice == ""
    assert page.url.startswith("http://127.0.0.1:")
    with LivePage(imagery, host="0.0.0.0", port=0) as open_page:
        assert "anyone on the network can see the live page at http://" in open_page.notice
        assert "\n" not in open_page.notice
        assert ask(open_page, "/about.json").status == 200


def test_pictures_of_one_frame_belong_together(page: LivePage, imagery: Path) -> None:
    store = ImageryStore(imagery)
    patch = store.patch(LAT_DEG, LON_DEG, size_m=60.0, size_px=120)
    store.close()
    large = np.random.default_rng(2).integers(0, 255, (1200, 1600, 3), np.uint8)
    shot = shown(page, seen_as(patch.image, patch.mask, 60.0), large)
    assert shot["kinds"] == ["frame", "view", "imagery"]
    assert shot["size_m"] == 60.0
    assert decoded(ask(page, f"/frame.jpg?seq={shot['seq']}").body).shape == (720, 960, 3)
    assert decoded(ask(page, f"/view.jpg?seq={shot['seq']}").body).shape == (120, 120, 3)
    assert ask(page, "/imagery.jpg?seq=987654").status == 404
    assert ask(page, "/frame.jpg").headers["Content-Type"] == "image/jpeg"


def test_a_frame_without_a_match_has_no_imagery(page: LivePage) -> None:
    view = np.full((32, 32, 3), 90, np.uint8)
    seen = seen_as(
        view, np.full((32, 32), 255, np.uint8), 60.0, centre_lat_deg=None, centre_lon_deg=None
    )
    assert shown(page, seen)["kinds"] == ["view"]
    assert ask(page, "/imagery.jpg").status == 404


def test_about_the_run_is_told(imagery: Path) -> None:
    about = About(title="drone 7", index_id="cfe3eb510582", deadline_ms=120.0)
    with LivePage(imagery, port=0, about=about) as page:
        told = json.loads(ask(page, "/about.json").body)
    assert told["about"]["title"] == "drone 7"
    assert told["about"]["deadline_ms"] == 120.0
    assert told["map"]["bounds"]["south_deg"] < LAT_DEG < told["map"]["bounds"]["north_deg"]
