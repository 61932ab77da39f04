"""The flight page in a real browser, opened from a file as it would be from a mail."""

import importlib.util
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.fix import Fix, Status
from edge_runtime.flight_log import read_log, settings_path
from edge_runtime.flight_page import PageOptions, make_page

HOSTILE = "</script><script>document.title='run'</script><img src=x onerror=alert(2)>.png"
FRAMES = 12
WITHHELD: dict[int, Status] = {4: "ABSTAIN", 5: "ABSTAIN", 8: "LOST"}


def browser_class() -> Any:
    """The live page's tests have one; tests are no package that could be imported from."""
    path = Path(__file__).parent.parent / "test_live_page_browser.py"
    spec = importlib.util.spec_from_file_location("live_page_browser", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if module.CHROMIUM is None:
        pytest.skip("no Chromium here: looked for chromium, chromium-browser and google-chrome")
    return module.Browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    opened = browser_class()(tmp_path_factory.mktemp("browser"))
    opened.resize(1600, 900)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def page(flown: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photographs, three without an answer, one with a bad name in its events."""
    root = tmp_path_factory.mktemp("page")
    log: Path = root / "fixes.jsonl"
    settings_path(log).write_bytes(settings_path(flown.log).read_bytes())
    fixes = list(read_log(flown.log))
    assert all(fix.status == "OK" for fix in fixes)
    for row, status in WITHHELD.items():
        fix = replace(fixes[row], status=status, reason="believed only 91.0%")
        fixes[row] = replace(fix, lat_deg=None, lon_deg=None, eph_m=None)
    fixes[9] = replace(fixes[9], events=(HOSTILE,), reset_counter=1)
    log.write_text("".join(fix.to_json() + "\n" for fix in fixes))
    make_page(PageOptions(log=log, out=root / "page.html"))
    return root / "page.html"


def opened(browser: Any, page: Path) -> None:
    browser.complaints.clear()
    browser.call("Page.navigate", url="about:blank")
    browser.wait("location.href == 'about:blank'")
    browser.call("Page.navigate", url=page.as_uri())
    browser.wait(f"location.protocol == 'file:' && {data('ready')} == 'yes'")


@pytest.fixture
def shown(browser: Any, page: Path) -> Iterator[Any]:
    opened(browser, page)
    yield browser
    assert browser.complaints == []


def data(name: str) -> str:
    return f"document.documentElement.dataset.{name}"


def text(name: str) -> str:
    return f"document.getElementById('{name}').textContent"


def click(browser: Any, x: float, y: float) -> None:
    for kind in ("mousePressed", "mouseReleased"):
        browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


def place_of(browser: Any, name: str) -> tuple[float, float, float, float]:
    box = browser.value(
        f"(() => {{ const b = document.getElementById('{name}').getBoundingClientRect(); "
        "return [b.x, b.y, b.width, b.height]; })()"
    )
    return box[0], box[1], box[2], box[3]


def test_counts_and_first_frame_are_the_logs(shown: Any) -> None:
    counts = shown.value(
        "[...document.querySelectorAll('#counts b')].map((b) => Number(b.textContent))"
    )
    assert counts == [9, 0, 2, 1]
    assert shown.value(data("frames")) == str(FRAMES)
    assert shown.value(text("status-word")) == "OK"
    assert shown.value(text("frame-name")) == "000.png"
    assert shown.value(text("frame-number")) == "1 of 12"
    assert shown.value("document.title").startswith("fixes.jsonl: 12 frames: 9 OK")
    assert shown.value(data("tiles")) == "1"
    assert int(shown.value(data("marks"))) >= 3
    assert shown.value(data("ends")) == "2"
    listed = shown.value("[...document.querySelectorAll('#rows [data-row]')].length")
    assert listed == FRAMES
    shown.wait(f"{data('pictures')} == '0:111'")


def test_keys_go_from_frame_to_frame_and_say_why_one_has_no_position(shown: Any) -> None:
    for row in (1, 2, 3, 4):
        shown.press("ArrowRight")
        shown.wait(f"{data('selected')} == '{row}'")
    assert shown.value(text("status-word")) == "ABSTAIN"
    assert shown.value(text("position")) == "no position given"
    assert shown.value(text("reason")) == "believed only 91.0%"
    assert "a wrong one is worse than none" in shown.value(text("explained"))
    shown.wait(f"{data('pictures')} == '4:111'")
    assert shown.value(text("tag-imagery")) == "imagery, best guess"
    assert shown.value(text("spoken")) == "004.png ABSTAIN believed only 91.0%"
    shown.press("ArrowLeft")
    shown.wait(f"{data('selected')} == '3'")
    shown.press("n")
    shown.wait(f"{data('selected')} == '4'")
    shown.press("n")
    shown.wait(f"{data('selected')} == '6'")
    # Also where the map has the focus.
    shown.value("document.getElementById('map').focus()")
    shown.press("ArrowRight")
    shown.wait(f"{data('selected')} == '7'")


def test_a_filter_shows_and_steps_through_its_frames_alone(shown: Any) -> None:
    shown.value("document.querySelector('#counts [data-status=ABSTAIN]').click()")
    shown.wait(f"{data('listed')} == '2' && {data('selected')} == '4'")
    rows = "[...document.querySelectorAll('#rows [data-row]')].map((r) => r.dataset.row).join()"
    assert shown.value(rows) == "4,5"
    shown.press("ArrowRight")
    shown.press("ArrowRight")
    assert shown.value(data("selected")) == "5"
    shown.value("document.querySelector('#counts [data-status=LOST]').click()")
    shown.wait(f"{data('listed')} == '3'")
    shown.press("ArrowRight")
    assert shown.value(data("selected")) == "8"
    for status in ("ABSTAIN", "LOST"):
        shown.value(f"document.querySelector('#counts [data-status={status}]').click()")
    shown.wait(f"{data('listed')} == '{FRAMES}'")


def pointed_at(browser: Any, x: float, y: float) -> tuple[float, float]:
    """Latitude and longitude that the map tells for a place on the screen."""
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    lat_deg, _, lon_deg = browser.value(text("place")).partition(", ")
    return float(lat_deg), float(lon_deg)


def test_each_frame_is_drawn_where_it_was_and_found_by_a_click(shown: Any, page: Path) -> None:
    left, top, width, height = place_of(shown, "map")
    # A map this small is linear in both.
    south, west = pointed_at(shown, left + 100, top + height - 100)
    north, east = pointed_at(shown, left + width - 100, top + 100)
    assert north > south
    assert east > west
    for fix in read_log(page.with_name("fixes.jsonl")):
        if fix.lat_deg is None or fix.lon_deg is None:
            continue
        x = 100 + (fix.lon_deg - west) / (east - west) * (width - 200)
        y = height - 100 - (fix.lat_deg - south) / (north - south) * (height - 200)
        click(shown, left + x, top + y)
        shown.wait(f"{data('selected')} == '{fix.seq}'")
        # Drawn by the next frame of the screen.
        shown.wait(
            "(() => { const c = document.getElementById('map'), r = c.width / c.clientWidth;"
            f"const d = c.getContext('2d').getImageData({x} * r, {y} * r, 1, 1).data;"
            "return Math.abs(d[0] - 39) + Math.abs(d[1] - 224) + Math.abs(d[2] - 160) < 12; })()"
        )


def test_a_click_on_list_or_timeline_selects_the_frame_there(shown: Any) -> None:
    left, top, width, height = place_of(shown, "timeline")
    click(shown, left + 66 + (width - 72) * 8.5 / FRAMES, top + height / 2)
    shown.wait(f"{data('selected')} == '8' && {text('status-word')} == 'LOST'")
    left, top, _, _ = place_of(shown, "row-2")
    click(shown, left + 90, top + 20)
    shown.wait(f"{data('selected')} == '2'")
    assert shown.value("document.getElementById('row-2').getAttribute('aria-selected')") == "true"


def test_what_is_pointed_at_on_the_timeline_is_told(shown: Any) -> None:
    left, top, width, _ = place_of(shown, "timeline")
    x = left + 66 + (width - 72) * 9.5 / FRAMES
    shown.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=top + 6)
    shown.wait(f"{text('pointed')}.startsWith('009.png')")
    said = shown.value(text("pointed"))
    assert HOSTILE in said
    assert "jumped to another track" in said
    assert shown.value("document.title").startswith("fixes.jsonl")


def test_the_pictures_show_the_same_ground_and_blink(shown: Any) -> None:
    shown.press("ArrowRight")
    shown.wait(f"{data('pictures')} == '1:111'")
    alike = shown.value("""(() => {
      const grey = (id) => {
        const c = document.createElement("canvas"), x = c.getContext("2d");
        c.width = c.height = 100;
        x.drawImage(document.getElementById(id), 0, 0, 100, 100);
        const d = x.getImageData(0, 0, 100, 100).data;
        return Array.from({ length: 10000 }, (_, k) => d[4 * k] + d[4 * k + 1] + d[4 * k + 2]);
      };
      const all = grey("view"), other = grey("imagery");
      const seen = all.map((v, k) => k).filter((k) => all[k] > 0);
      const a = seen.map((k) => all[k]), b = seen.map((k) => other[k]);
      const mean = (v) => v.reduce((s, x) => s + x, 0) / v.length, ma = mean(a), mb = mean(b);
      let ab = 0, aa = 0, bb = 0;
      a.forEach((v, k) => { ab += (v - ma) * (b[k] - mb); aa += (v - ma) ** 2; bb += (b[k] - mb) ** 2; });
      return ab / Math.sqrt(aa * bb);
    })()""")  # noqa: E501 (JavaScript)
    assert alike > 0.8
    clip = "document.getElementById('view').style.clipPath"
    assert shown.value(clip) == "inset(0px 50% 0px 0px)"
    shown.press("b")
    shown.wait(f"{clip} == 'inset(0px)' || {clip} == 'inset(0px 0% 0px 0px)'")
    shown.wait(f"{clip} == 'inset(0px 100% 0px 0px)'")
    shown.press("b")
    shown.wait(f"{clip} == 'inset(0px 50% 0px 0px)'")


def test_the_page_asks_for_nothing(shown: Any) -> None:
    shown.press("ArrowRight")
    shown.wait(f"{data('pictures')} == '1:111'")
    asked = shown.value("performance.getEntriesByType('resource').map((e) => e.name.slice(0, 30))")
    assert [url for url in asked if not url.startswith("data:image/")] == []


@pytest.mark.parametrize(
    ("width", "height"), [(1600, 900), (1280, 720), (1024, 768), (700, 900), (400, 800)]
)
def test_nothing_is_wider_than_the_screen(shown: Any, width: int, height: int) -> None:
    shown.resize(width, height)
    try:
        for _ in range(4):
            shown.press("ArrowRight")
        shown.wait(f"{data('selected')} == '4'")
        shown.value("document.getElementById('about').click()")
        assert shown.value("document.documentElement.scrollWidth") <= width
        parts = "[...document.querySelectorAll('main > section, header, #run')]"
        assert max(shown.value(f"{parts}.map((s) => s.scrollWidth - s.clientWidth)")) <= 0
        shown.value("document.getElementById('about').click()")
        if width > 1180:
            assert shown.value("document.documentElement.scrollHeight") <= height
    finally:
        shown.resize(1600, 900)


def test_names_that_are_markup_stay_text(
    browser: Any, flown: Any, tmp_path: Path, write_log: Callable[..., Path]
) -> None:
    fixes = [replace(fix, frame=HOSTILE, reason=HOSTILE) for fix in read_log(flown.log)]
    log = write_log(tmp_path / "<b>bold.jsonl", fixes)
    settings = json.loads(settings_path(flown.log).read_text())
    settings["options"][HOSTILE] = HOSTILE
    settings_path(log).write_text(json.dumps(settings))
    make_page(PageOptions(log=log, out=tmp_path / "page.html"))
    opened(browser, tmp_path / "page.html")
    browser.value("document.getElementById('about').click()")
    assert browser.value(text("frame-name")) == HOSTILE
    assert browser.value(text("log")) == "<b>bold.jsonl"
    assert HOSTILE in browser.value(text("run-facts")).replace('\\"', '"')
    assert browser.value("document.title").startswith("<b>bold.jsonl: 12 frames")
    assert browser.value("document.querySelectorAll('body img').length") == 3
    assert browser.value("document.querySelectorAll('b b, img[onerror]').length") == 0
    assert browser.complaints == []


def test_a_long_flight_without_pictures_or_positions_is_shown(
    browser: Any,
    tmp_path: Path,
    record: Callable[..., Fix],
    unplaced: Callable[..., Fix],
    write_log: Callable[..., Path],
) -> None:
    long = [record(k) if k % 700 else unplaced(k, "LOST") for k in range(20_000)]
    for name, fixes in (("long", long), ("nowhere", [unplaced(k, "ABSTAIN") for k in range(3)])):
        log = write_log(tmp_path / f"{name}.jsonl", fixes)
        make_page(PageOptions(log=log, out=tmp_path / f"{name}.html"))
        opened(browser, tmp_path / f"{name}.html")
        assert browser.value(data("frames")) == str(len(fixes))
        browser.value("document.getElementById('list').focus()")
        browser.press("End")
        browser.wait(f"{data('selected')} == '{len(fixes) - 1}'")
        rows = browser.value("document.querySelectorAll('#rows [data-row]').length")
        assert 0 < rows < 60
        assert browser.value(f"document.getElementById('row-{len(fixes) - 1}') !== null")
        assert browser.value(text("match-none")) == ""
        assert browser.complaints == []
