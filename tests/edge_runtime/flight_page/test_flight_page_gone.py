"""What a flight page does without when things are gone, and what it refuses."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.flight_log import read_log, settings_path
from edge_runtime.flight_page import PageOptions, make_page
from edge_runtime.flight_page import flight_table as flight_table_module

FRAMES = 12


# --- what is gone --------------------------------------------------------------------------------


def test_without_its_index_there_is_a_page_that_says_where_it_was(own: Any) -> None:
    settings = replace(own.settings, index="/nowhere/index")
    settings_path(own.log).write_text(json.dumps(vars(settings)))
    page, summary = own.page()
    assert page.data["map"] is None
    assert page.pictured == []
    assert any(n.startswith("no map: /nowhere/index is not an index") for n in summary.notes)
    assert page.data["notes"] == list(summary.notes)
    assert summary.frames == FRAMES


def test_an_index_that_was_moved_is_found_where_it_is_said_to_be(own: Any) -> None:
    index = Path(own.settings.index)
    settings = replace(own.settings, index="/nowhere/index")
    settings_path(own.log).write_text(json.dumps(vars(settings)))
    page, summary = own.page(index=index)
    assert page.data["map"] is not None
    assert summary.pictures == FRAMES
    assert summary.notes == ()


def test_a_map_of_another_index_is_told(own: Any, write_log: Callable[..., Path]) -> None:
    lines = [replace(fix, index_id="cafecafecafe") for fix in read_log(own.log)]
    write_log(own.log, lines)
    _, summary = own.page(pictures=0)
    assert any("the flight was matched with cafecafecafe" in note for note in summary.notes)


@pytest.mark.parametrize("gone", ["source", "telemetry", "camera", "bundle"])
def test_without_frames_or_encoder_there_is_a_page_with_a_map(own: Any, gone: str) -> None:
    settings = vars(own.settings) | {gone: "/nowhere/it"}
    settings_path(own.log).write_text(json.dumps(settings))
    page, summary = own.page()
    assert page.data["map"] is not None
    assert page.pictured == []
    (note,) = summary.notes
    assert note.startswith("no pictures: ")
    assert "/nowhere/it" in note


def test_without_its_settings_there_is_a_page_of_the_log_alone(own: Any) -> None:
    settings_path(own.log).unlink()
    page, summary = own.page()
    assert page.data["settings"] is None
    assert summary.notes == (
        "fixes.run.json, which says what the run was made of, is not there",
        "no map: nothing says where the index is; give --index",
        "no pictures: nothing says where the frames are",
    )


def test_a_live_source_needs_its_recording_for_pictures(own: Any, flown: Any) -> None:
    settings = replace(own.settings, source="v4l2:///dev/video0")
    settings_path(own.log).write_text(json.dumps(vars(settings)))
    _, summary = own.page()
    assert summary.notes == (
        "no pictures: the source v4l2:///dev/video0 was live and its frames are gone; give the "
        "folder that skyfix run --record wrote, as --recording",
    )
    _, summary = own.page(recording=flown.root / "recording")
    assert summary.pictures == FRAMES


def test_frames_of_another_name_are_not_shown_for_those_of_the_log(
    own: Any, write_log: Callable[..., Path]
) -> None:
    fixes = list(read_log(own.log))
    write_log(own.log, [*fixes[:5], replace(fixes[5], frame="gone.png"), *fixes[6:]])
    page, summary = own.page()
    assert page.pictured == [0, 1, 2, 3, 4]
    assert any("gives '005.png' where the log has 'gone.png'" in note for note in summary.notes)


def test_an_answer_that_comes_out_otherwise_is_told(
    own: Any, write_log: Callable[..., Path]
) -> None:
    fixes = list(read_log(own.log))
    assert fixes[8].lat_deg is not None
    fixes[8] = replace(fixes[8], lat_deg=fixes[8].lat_deg + 1e-4)
    write_log(own.log, fixes)
    page, summary = own.page()
    assert any(note.startswith("1 of 12 frames came out otherwise") for note in summary.notes)
    assert [r for r, p in page.data["pictures"].items() if p["otherwise"]] == ["8"]


def test_an_interrupt_ends_the_pictures_and_not_the_page(
    own: Any, read_page: Callable[[Path], Any]
) -> None:
    def interrupted(done: int, total: int, pictures: int) -> None:
        assert total == FRAMES
        if done == 4:
            raise KeyboardInterrupt

    out = own.root / "page.html"
    summary = make_page(PageOptions(log=own.log, out=out), progress=interrupted)
    assert summary.stopped
    assert read_page(out).pictured == [0, 1, 2, 3]
    assert summary.notes == ("some pictures are missing: making them was stopped",)


# --- refusals ------------------------------------------------------------------------------------


def refusals(
    folder: Path, record: Callable[..., Fix], write_log: Callable[..., Path]
) -> Iterator[tuple[str, dict[str, Any], str]]:
    good = [record(k) for k in range(3)]
    write_log(folder / "good.jsonl", good)
    (folder / "empty.jsonl").touch()
    older = json.loads(good[0].to_json())
    del older["events"]
    (folder / "older.jsonl").write_text(json.dumps(older) + "\n")
    odd = json.loads(good[0].to_json()) | {"lat_deg": "north"}
    (folder / "odd.jsonl").write_text(json.dumps(odd) + "\n")
    write_log(folder / "far.jsonl", [record(0, lat_deg=1234.0)])
    (folder / "folder.html").mkdir()
    (folder / "file").touch()
    yield "none.jsonl", {}, r"none\.jsonl cannot be read .* written by skyfix run"
    yield "empty.jsonl", {}, "has no records; expected a log of a flight"
    yield "older.jsonl", {}, "'events'.* by the version that wrote it"
    yield "odd.jsonl", {}, "record 0 is not as skyfix run writes it .*copy the log again"
    yield "far.jsonl", {}, r"record 0 is not as skyfix run writes it \(lat_deg is 1234"
    yield "good.jsonl", {"out": folder / "folder.html"}, "cannot be written .* another --out"
    yield "good.jsonl", {"out": folder / "file" / "p.html"}, "cannot be written .* another --out"
    yield "good.jsonl", {"out": folder / "good.jsonl"}, "does not end in .html"
    yield "good.jsonl", {"first": 3}, "has no records from 3 on"
    yield "good.jsonl", {"first": 2, "after": 2}, "2:2 are none; expected the first"
    yield "good.jsonl", {"pictures": -1}, "pictures is -1; expected 0 or more"
    yield ".", {}, "has no segments"


def test_what_cannot_be_shown_is_refused_and_nothing_is_written(
    tmp_path: Path, record: Callable[..., Fix], write_log: Callable[..., Path]
) -> None:
    for log, changes, words in list(refusals(tmp_path, record, write_log)):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(InputError, match=words):
            make_page(PageOptions(log=tmp_path / log, **{"out": tmp_path / "p.html"} | changes))
        assert sorted(tmp_path.rglob("*")) == before, log


def test_an_older_page_stays_when_there_is_no_new_one(tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    out.write_text("older")
    with pytest.raises(InputError, match="cannot be read"):
        make_page(PageOptions(log=tmp_path / "none.jsonl", out=out))
    assert out.read_text() == "older"


def test_a_log_too_long_for_a_browser_is_shown_in_parts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record: Callable[..., Fix],
    write_log: Callable[..., Path],
) -> None:
    monkeypatch.setattr(flight_table_module, "MOST_FRAMES", 5)
    log = write_log(tmp_path / "fixes.jsonl", [record(k) for k in range(8)])
    options = PageOptions(log=log, out=tmp_path / "p.html")
    with pytest.raises(InputError, match=r"more than 5 records.* --records 0:5"):
        make_page(options)
    assert make_page(replace(options, after=5)).frames == 5
    assert make_page(replace(options, first=5)).frames == 3


# --- the command ---------------------------------------------------------------------------------


def test_the_command_says_what_it_made(own: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from edge_runtime.cli import main

    assert main(["page", str(own.log), "--pictures", "4", "--records", ":9"]) == 0
    said = capsys.readouterr()
    out = own.root / "fixes.html"
    size = len(out.read_bytes()) / 1e6
    assert said.out == (
        f"9 frames, 4 with pictures, {size:.1f} MB, written to {out}. Next: open it in a browser\n"
    )
    assert "frames gone through" in said.err
    assert main(["page", str(own.log), "--records", "9"]) == 2
    assert "expected FIRST:AFTER, as 0:5000" in capsys.readouterr().err


def test_progress_tells_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    from edge_runtime.page_cli import PictureProgress

    seconds = iter([0.0, 1.0, 3.0, 10.0])
    progress = PictureProgress(clock=lambda: next(seconds))
    for done in (1, 2, 4, 11):
        progress(done, 11, done)
    assert capsys.readouterr().err.splitlines() == [
        "1/11 frames gone through, 1 pictures",
        "4/11 frames gone through, 4 pictures, 7 s left",
        "11/11 frames gone through, 11 pictures, 0 s left",
    ]
