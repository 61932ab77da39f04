"""A flight as one HTML file: everything of the log is on it, and nothing of it can run."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.fix import Fix
from edge_runtime.flight_log import read_log, settings_path
from edge_runtime.flight_page import PageOptions, make_page
from edge_runtime.flight_page import flight_table as flight_table_module
from edge_runtime.flight_page.flight_table import NO_PLACE, STATUSES
from edge_runtime.live_page.page_files import page_files

FRAMES = 12
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{<!--data-->.png"


def test_every_frame_of_the_log_is_on_the_page_once(own: Any) -> None:
    page, summary = own.page()
    fixes = list(read_log(own.log))
    assert summary.frames == page.data["flight"]["frames"] == len(fixes) == FRAMES
    assert page.data["flight"]["names"] == [fix.frame for fix in fixes]
    assert page.column("seq") == [fix.seq for fix in fixes]
    assert [STATUSES[k] for k in page.column("status")] == [fix.status for fix in fixes]


def test_columns_hold_what_the_records_say(
    tmp_path: Path,
    record: Callable[..., Fix],
    unplaced: Callable[..., Fix],
    write_log: Callable[..., Path],
    read_page: Callable[[Path], Any],
) -> None:
    fixes = [
        record(0, shed=("refine",), events=("camera reopened",), tile_id=7, reprojection_px=0.75),
        unplaced(1, "LOST", yaw_deg=None, deadline_missed=True, windows=3),
        record(2, lat_deg=-89.123456789, lon_deg=-179.987654321, t_exposure_s=1730282715.123456),
    ]
    log = write_log(tmp_path / "fixes.jsonl", fixes)
    make_page(PageOptions(log=log, out=tmp_path / "page.html"))
    page = read_page(tmp_path / "page.html")
    flight = page.data["flight"]
    assert page.column("lat_deg") == [475000000, NO_PLACE, -891234568]
    assert page.column("lon_deg") == [83000000, NO_PLACE, -1799876543]
    assert page.column("t_exposure_s") == [0.0, 0.5, 1730282715.123456]
    assert page.column("total_ms") == [82.0] * 3
    assert page.column("eph_m")[0] == 4.0
    assert np.isnan(page.column("eph_m")[1])
    assert page.column("tile_id") == [7, -1, -1]
    assert page.column("deadline_missed") == [0, 1, 0]
    assert [flight["sheds"][k] for k in page.column("shed")] == [["refine"], [], []]
    assert [flight["reasons"][k] for k in page.column("reason")] == ["", "several places fit", ""]
    assert flight["events"] == [[0, "camera reopened"]]


def test_the_same_log_gives_the_same_bytes(own: Any) -> None:
    own.page(out=own.root / "one.html")
    own.page(out=own.root / "other.html")
    assert (own.root / "one.html").read_bytes() == (own.root / "other.html").read_bytes()


def test_a_recording_gives_the_pictures_that_its_log_gives(flown: Any, tmp_path: Path) -> None:
    of_log, _ = flown.page(out=tmp_path / "log.html")
    of_recording, summary = flown.page(flown.root / "recording", out=tmp_path / "recording.html")
    of_both, _ = flown.page(recording=flown.root / "recording", out=tmp_path / "both.html")
    assert summary.pictures == FRAMES
    names = [name for name in of_log.blocks if name.startswith("picture-")]
    assert len(names) == 1 + 3 * FRAMES
    for other in (of_recording, of_both):
        assert {n: other.blocks[n] for n in names} == {n: of_log.blocks[n] for n in names}
        assert other.data["flight"] == of_log.data["flight"]


def test_what_is_matched_shows_the_same_ground(flown: Any, tmp_path: Path) -> None:
    page, _ = flown.page(out=tmp_path / "page.html")
    fixes = list(read_log(flown.log))
    for row in page.pictured:
        if fixes[row].status != "OK":
            continue
        view, imagery = (page.picture(f"picture-{row}-{kind}") for kind in ("view", "imagery"))
        seen = view.any(axis=-1) & imagery.any(axis=-1)
        alike = np.corrcoef(view[seen].ravel(), imagery[seen].ravel())[0, 1]
        assert alike > 0.8, row
        # A frame of other ground is nothing like it.
        other = page.picture(f"picture-{(row + 6) % FRAMES}-imagery")
        assert np.corrcoef(view[seen].ravel(), other[seen].ravel())[0, 1] < alike - 0.3


def test_nothing_on_the_page_leads_out_of_it(own: Any) -> None:
    page, _ = own.page()
    assert re.findall(rb"\b(?:https?|ftp|wss?|file):|//[a-z]+\.", page.raw) == []
    leading = {"src", "href", "action", "srcset", "poster", "data", "formaction", "ping"}
    assert [e for e in page.elements if leading & set(e[1])] == []


def test_the_policy_lets_only_the_pages_own_script_and_style_run(own: Any) -> None:
    page, _ = own.page()

    def named(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    (policy,) = (
        a["content"]
        for tag, a in page.elements
        if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    (script,), (style,) = page.scripts, page.styles
    assert policy == (
        f"default-src 'none'; script-src {named(script)}; style-src {named(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    handlers = [e for e in page.elements if any(n.startswith("on") or n == "style" for n in e[1])]
    assert handlers == []


def test_names_of_files_are_text_whatever_they_hold(
    own: Any, tmp_path: Path, write_log: Callable[..., Path]
) -> None:
    clean, _ = own.page()
    fixes = list(read_log(own.log))
    log = tmp_path / HOSTILE.replace("/", "\u2215")
    write_log(
        log,
        [
            replace(fix, frame=HOSTILE, reason=HOSTILE, events=(HOSTILE,), backend=HOSTILE)
            for fix in fixes
        ],
    )
    settings = replace(own.settings, options={"threads": 1, HOSTILE: HOSTILE})
    settings_path(log).write_text(json.dumps(vars(settings)))
    page, _ = own.page(log)
    assert page.data["flight"]["names"] == [HOSTILE] * FRAMES
    assert page.data["flight"]["events"][0] == [0, HOSTILE]
    assert page.data["settings"]["options"][HOSTILE] == HOSTILE
    assert page.title.startswith(log.name)
    plain = [e for e in clean.elements if not (e[1].get("id") or "").startswith("picture-")]
    found = [e for e in page.elements if not (e[1].get("id") or "").startswith("picture-")]
    assert found == plain
    assert page.scripts == clean.scripts


def test_ten_thousand_frames_without_pictures_stay_below_five_megabytes(
    own: Any, index_dir: Path, record: Callable[..., Fix], write_log: Callable[..., Path]
) -> None:
    fixes = [record(k, reason=f"believed only {k / 1e4:.2%}") for k in range(10_000)]
    log = write_log(own.root / "long.jsonl", fixes)
    _, summary = own.page(log, index=index_dir)
    assert summary.frames == 10_000
    assert summary.size_bytes < 5_000_000


def test_no_more_frames_have_pictures_than_were_asked_for(own: Any) -> None:
    page, summary = own.page(pictures=5)
    assert summary.pictures == len(page.pictured) == 5
    for row in page.pictured:
        assert {f"picture-{row}-{kind}" for kind in ("frame", "view", "imagery")} <= set(
            page.blocks
        )


def test_both_runs_of_a_log_that_was_gone_on_with_are_shown(own: Any) -> None:
    lines = own.log.read_text()
    own.log.write_text(lines + lines)
    page, summary = own.page()
    assert summary.frames == 2 * FRAMES
    assert page.data["flight"]["first_rows"] == [0, FRAMES]
    assert page.pictured == list(range(2 * FRAMES))
    assert page.blocks["picture-3-frame"] == page.blocks[f"picture-{3 + FRAMES}-frame"]
    assert summary.notes == ()


def test_a_part_of_a_log_has_that_parts_pictures(own: Any) -> None:
    whole, _ = own.page()
    page, summary = own.page(first=4, after=7)
    assert summary.frames == 3
    assert page.column("seq") == [4, 5, 6]
    for row in range(3):
        for kind in ("frame", "view", "imagery"):
            name = f"picture-{row}-{kind}"
            assert page.blocks[name] == whole.blocks[f"picture-{row + 4}-{kind}"]


def test_statuses_look_as_on_the_live_page() -> None:
    live = {name: file.data.decode() for name, file in page_files().by_path.items()}
    folder = Path(flight_table_module.__file__).parent / "assets"
    own = {path.name: path.read_text() for path in folder.iterdir()}
    for name, pattern in (
        ("overlay.js", r"const COLOURS = .*"),
        ("overlay.js", r"const WITHIN_68.*"),
        ("page.css", r"--ok: .*"),
        ("page.css", r"--ground: .*"),
    ):
        assert re.findall(pattern, own[name]) == re.findall(pattern, live[f"/assets/{name}"]) != []
    glyphs = re.findall(r"(\w+): \"([●◐○✕])\"", live["/assets/page.js"])
    found = re.search(r"GLYPHS = \[(.*)\]", own["words.js"])
    assert found is not None
    assert dict(zip(STATUSES, re.findall(r"\"(.)\"", found[1]), strict=True)) == dict(glyphs)
