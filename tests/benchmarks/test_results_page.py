import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measurement import MeasurementRow, NotRunRow
from benchmarks.report_rows_cli import add_results
from benchmarks.results_page.doubts import doubts
from benchmarks.results_page.markdown_table import markdown_table
from benchmarks.results_page.page import page
from benchmarks.results_page.plots import Point, Times, distribution, pareto
from benchmarks.results_page.records import record
from benchmarks.results_page.sources import Results, read_results
from benchmarks.results_page.timeline import TimedFrame, stage_times
from benchmarks.results_page.written import cosine, percent, significant
from benchmarks.rows import append_rows, read_rows
from benchmarks.search import SearchRow
from benchmarks.time_summary import TimeSummary, time_summary
from edge_runtime.command_line import run_command
from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from tests.benchmarks.measured_rows import MACHINE, MADE_BY, gap, measured

MakeFix = Callable[..., Fix]
Write = Callable[..., Path]


class Page(HTMLParser):
    """Tags, texts and table cells of a page; fails on tags that do not match."""

    VOID = ("meta", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data

    def rows(self, name: str) -> list[dict[str, str]]:
        """The first table that has a column of this name, by the names of its columns."""
        table = next(t for t in self.tables if name in t[0])
        return [dict(zip(table[0], line, strict=True)) for line in table[1:]]


def results_of(tmp_path: Path, *rows: Any) -> Results:
    path = tmp_path / "rows.jsonl"
    append_rows(path, list(rows))
    return read_results([path])


def page_of(tmp_path: Path, *rows: Any) -> Page:
    return Page(page(results_of(tmp_path, *rows), title="A <test>"))


def search_row(**values: Any) -> SearchRow:
    row = SearchRow(
        **MADE_BY, contender="skyfix", library="usearch 2", task="whole map", tiles=5000,
        dimensions=256, stored_as="f16", stride_m=100.0, radius_m=None, compared_tiles=None,
        queries_per_call=1, calls=100, p50_ms=0.25, p99_ms=0.5, cpu_p99_ms=0.4, recall_at_10=0.993,
        build_s=1.0, files_mib=3.0, own_mib=0.5, mapped_mib=3.0, built_with_mib=50.0, cpu="A CPU",
    )  # fmt: skip
    return replace(row, **values)


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_results(parser.add_subparsers())
    args = parser.parse_args(["results", *arguments])
    args.command_line = "the command"
    return run_command("benchmarks", lambda: args.run(args), stopped="stopped")


def test_a_row_read_back_is_the_row_that_was_written(tmp_path: Path) -> None:
    rows = [measured(stages={"GPU": time_summary([1.0, 2.0])}, fallback="why"), gap()]
    first, again = tmp_path / "rows.jsonl", tmp_path / "again.jsonl"
    append_rows(first, rows)
    measurement, not_run = read_rows(first)
    built = record(MeasurementRow, measurement, "here")
    append_rows(again, [built, record(NotRunRow, not_run, "here")])
    assert again.read_text() == first.read_text()
    assert isinstance(built.stages["GPU"], TimeSummary)
    assert built.machine == MACHINE


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch": "one"}, "batch is 'one', expected int"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"time": {"n": 3}}, "missing"),
        ({"load_s": None}, "load_s is None, expected float"),
    ],
)
def test_a_row_of_another_shape_is_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    append_rows(tmp_path / "rows.jsonl", [measured()])
    plain = read_rows(tmp_path / "rows.jsonl")[0] | change
    with pytest.raises(InputError, match=f"here is no MeasurementRow.*{re.escape(said)}"):
        record(MeasurementRow, plain, "here")


def test_runs_of_one_measurement_become_the_middle_one(tmp_path: Path) -> None:
    rows = [measured(ms, run=k) for k, ms in enumerate((12.0, 10.0, 11.0))]
    found = results_of(tmp_path, *rows, measured(3.0, precision="int8")).measured
    assert [m.row.time.p50_ms for m in found] == pytest.approx([11.0, 3.0])
    assert found[0].p50s_ms == pytest.approx((10.0, 11.0, 12.0))
    assert found[0].origin.line == 3


def test_commits_are_not_runs_of_each_other(tmp_path: Path) -> None:
    rows = measured(10.0), measured(5.0, git_commit="def5678")
    assert len(results_of(tmp_path, *rows).measured) == 2


def test_a_gap_that_another_row_fills_is_none(tmp_path: Path) -> None:
    rows = gap(), gap(), gap(runtime="ort-cpu", precision="fp32"), measured()
    assert [g.runtime for g in results_of(tmp_path, *rows).not_run] == ["tensorrt"]


def test_files_without_rows_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(InputError, match="there are no rows in"):
        read_results([tmp_path / "rows.jsonl"])


def test_a_row_without_reason_to_doubt_has_no_mark(tmp_path: Path) -> None:
    assert doubts(measured()) == []
    assert 'class="doubt"' not in page(results_of(tmp_path, measured()), title="t")


@pytest.mark.parametrize(
    ("row", "beside", "said"),
    [
        pytest.param(measured(4.0), "ratio", "Faster than its own limit", id="roofline"),
        pytest.param(measured(calls=29), "calls", "Fewer than 30 calls", id="few calls"),
        pytest.param(
            measured(time=time_summary([10.0] * 30 + [11.5] * 10)),
            "drift",
            "more than 1.1 times as long",
            id="drift",
        ),
        pytest.param(
            measured(machine=replace(MACHINE, load_1min=2.1)), "load", "load 2 on 4", id="busy"
        ),
        pytest.param(
            measured(machine=replace(MACHINE, others_cores=0.21)),
            "load",
            "Other programs used 0.21 of 4 cores",
            id="others",
        ),
        pytest.param(measured(fallback="no CUDA"), "runtime", "no CUDA", id="fallback"),
    ],
)
def test_what_is_too_good_to_be_true_is_marked_where_it_stands(
    tmp_path: Path, row: MeasurementRow, beside: str, said: str
) -> None:
    assert [d.beside for d in doubts(row)] == [beside]
    found = results_of(tmp_path, row)
    text = page(found, title="t")
    column = {"ratio": "of limit", "runtime": "runtime"}.get(beside, "p50 ms")
    cell = Page(text).rows("pictures/s")[0][column]
    assert cell.endswith("1")
    assert said in text
    assert "<sup>1</sup>" in markdown_table(found.measured)


@pytest.mark.parametrize(
    "row",
    [
        measured(5.0),
        measured(calls=30),
        measured(time=time_summary([10.0] * 30 + [10.9] * 10)),
        measured(machine=replace(MACHINE, load_1min=2.0)),
        measured(machine=replace(MACHINE, load_1min=4.0, others_cores=0.2)),
    ],
    ids=["at the limit", "30 calls", "drift of 1.09", "half the cores", "our own load"],
)
def test_what_is_just_right_is_not_doubted(row: MeasurementRow) -> None:
    assert doubts(row) == []


def test_a_note_is_beside_its_row_and_no_reason_to_doubt(tmp_path: Path) -> None:
    row = measured(note="FP16 is emulated here")
    assert doubts(row) == []
    found = results_of(tmp_path, row)
    assert Page(page(found, title="t")).rows("pictures/s")[0]["runtime"] == "ort-cpu1"
    assert "1. FP16 is emulated here." in markdown_table(found.measured)


def test_a_fallback_shows_what_really_ran(tmp_path: Path) -> None:
    row = measured(runtime="ort-cuda", fallback="no CUDA device")
    assert page_of(tmp_path, row).rows("pictures/s")[0]["runtime"].startswith("ort-cuda (CPU)")
    assert page_of(tmp_path, measured()).rows("pictures/s")[-1]["runtime"] == "ort-cpu"


def test_the_page_shows_each_number_as_measured(tmp_path: Path) -> None:
    row = page_of(tmp_path, measured(), measured(8.0, batch=2)).rows("pictures/s")[0]
    assert row == {
        "encoder": "small-128",
        "runtime": "ort-cpu",
        "precision": "fp32",
        "batch": "1",
        "p50 ms": "10.0",
        "p99 ms": "11.0",
        "pictures/s": "100",
        "of limit": "0.50",
        "peak MiB": "300",
        "cosine": "0.99999",
        "same top 1": "100.0 %",
        "within 20 m": "75.0 %",
    }


def test_what_all_rows_share_is_said_once(tmp_path: Path) -> None:
    text = page(results_of(tmp_path, measured(), measured(precision="int8")), title="t")
    assert "All rows: machine 4 cores of A Test CPU, input px 128, batch 1" in text
    assert "Energy was not measured: no counters here." in text


def test_the_page_needs_no_other_host_and_runs_no_other_script(tmp_path: Path) -> None:
    text = page(results_of(tmp_path, measured(), gap(), search_row()), title="A <test>")
    assert not re.search(r"(?:https?:)?//[a-z0-9]", text)
    assert text.count("<script") == 1
    assert "default-src 'none'" in text
    assert "unsafe-eval" not in text
    assert "<h1>A &lt;test&gt;</h1>" in text


def test_the_policy_allows_the_script_that_is_there(tmp_path: Path) -> None:
    import base64
    import hashlib

    text = page(results_of(tmp_path, measured()), title="t")
    script = text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text


def test_pictures_tell_what_they_show(tmp_path: Path) -> None:
    found = page_of(tmp_path, measured(), measured(7.0, precision="int8"), gap(), search_row())
    pictures = [attributes for tag, attributes in found.seen if tag == "svg"]
    assert len(pictures) >= 4
    for attributes in pictures:
        assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"
    ids = [attributes["id"] for _, attributes in found.seen if "id" in attributes]
    assert len(set(ids)) == len(ids)


def test_every_cell_of_a_sortable_table_has_its_value(tmp_path: Path) -> None:
    found = page_of(tmp_path, measured(), measured(1234.0, batch=2, quality=None), gap())
    cells = [attributes for tag, attributes in found.seen if tag == "td"]
    assert all("data-v" in attributes for attributes in cells)
    assert "1234.0" in [attributes["data-v"] for attributes in cells]


def test_a_kind_nobody_knows_has_its_table(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"schema": 1, "kind": "soup", **MADE_BY}
    lines = [row | {"pot": "red", "hot_s": 1.5}, row | {"pot": "blue", "hot_s": 123.4}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = Page(page(read_results([path]), title="t"))
    assert found.rows("hot s") == [
        {"pot": "red", "hot s": "1.50"},
        {"pot": "blue", "hot s": "123"},
    ]


def test_speed_on_a_busy_machine_is_marked(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"schema": 1, "kind": "start-up", **MADE_BY, "backend": "a", "import_s": 0.1, "cores": 2}
    path.write_text(json.dumps(row | {"load": 1.4}) + "\n" + json.dumps(row | {"load": 0.9}) + "\n")
    found = Page(page(read_results([path]), title="t"))
    assert [line["import s"] for line in found.rows("import s")] == ["0.1001", "0.100"]


def test_a_command_in_the_folder_is_shown_with_its_rows(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# T\n\n## rows.jsonl\n\nSaid.\n\n```\nmake it --so\n```\n")
    assert "make it --so" in page(results_of(tmp_path, measured()), title="t")


def test_the_front_is_what_no_other_beats_in_both() -> None:
    points = [
        Point(x=x, y=y, label="", said="", css="")
        for x, y in ((1, 0.5), (2, 0.4), (2, 0.7), (3, 0.7), (4, 0.9), (5, 0.8))
    ]
    beaten = [
        p
        for p in points
        if any(o.x <= p.x and o.y >= p.y and (o.x, o.y) != (p.x, p.y) for o in points)
    ]
    assert pareto(points) == [p for p in points if p not in beaten]


def test_a_distribution_names_its_slowest_and_first_calls() -> None:
    times = time_summary([1.0] * 99 + [50.0], first_ms=9000.0)
    drawn = distribution(
        [Times("one", "r1 fp32", times.percentiles_ms, times.first_ms)], title="Calls"
    )
    assert "one: slowest call 50.0 ms" in drawn
    assert "one: first call 9,000 ms" in drawn
    assert "1,000" not in re.sub("aria-label=.*?>", "", drawn).replace("9,000", "")


def test_no_slow_frame_is_lost_in_the_drawing() -> None:
    frames = [
        TimedFrame(k * 0.1, "s-ok", None, None, {"encode": 4.0, "total": 5.0}, late=False)
        for k in range(5000)
    ]
    frames[1234] = frames[1234]._replace(latency_ms={"encode": 4.0, "total": 777.0}, late=True)
    drawn = stage_times(frames, title="t", width_px=420)
    assert ">777 ms<" in drawn
    assert drawn.count('class="late"') == 1
    assert "slowest 777 ms" in drawn


@pytest.mark.parametrize("with_truth", [True, False])
def test_a_flight_is_drawn_over_time(
    tmp_path: Path, make_fix: MakeFix, write_log: Write, write_truth: Write, with_truth: bool
) -> None:
    log = write_log([make_fix(k, status="ABSTAIN" if k < 3 else "OK") for k in range(9)])
    truth = [str(write_truth(9))] if with_truth else []
    out = tmp_path / "page.html"
    assert run("--flight", str(log), *truth, "--out", str(out)) == 0
    text = out.read_text()
    Page(text)
    for said in ("answered <small>6", "abstained <small>3", "Time per frame, flight_1"):
        assert said in text
    assert ("Without a truth" in text) is not with_truth
    assert ("<title>Error over time" in text) is with_truth


def test_the_command_writes_both_and_says_what_to_doubt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, out, table = tmp_path / "rows.jsonl", tmp_path / "p.html", tmp_path / "t.md"
    append_rows(rows, [measured(), measured(4.0, precision="int8"), gap()])
    assert run(str(rows), "--out", str(out), "--markdown", str(table)) == 0
    said = capsys.readouterr().out
    assert "3 rows, 2 measurements of which 1 to be doubted, 1 not possible" in said
    assert said.splitlines()[-1].startswith("next: open ")
    assert "the command" in out.read_text()
    assert table.read_text().startswith("| encoder | runtime | precision | p50 ms |")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x.jsonl"], "give --out"),
        (["--out", "p.html"], "nothing to show"),
        (["--out", "p.html", "--flight", "a", "b", "c"], "--flight has 3 files"),
        (["/nowhere.jsonl", "--out", "p.html"], "/nowhere.jsonl cannot be read"),
    ],
)
def test_mistakes_get_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_numbers_are_written_with_the_digits_they_have() -> None:
    values = (0.0, 0.01234, 1.2345, 12.345, 123.45, 1234.5)
    assert [significant(v) for v in values] == ["0", "0.0123", "1.23", "12.3", "123", "1,234"]
    assert cosine(0.999996) == "0.99999"
    assert cosine(1.0) == "1.00000"
    assert (percent(0.99999), percent(1.0), percent(0.0001)) == (">99.9 %", "100.0 %", "<0.1 %")
    assert significant(None) == cosine(None) == percent(None) == "\N{EN DASH}"


def test_reading_rows_needs_no_torch() -> None:
    code = (
        "import sys, benchmarks.readme_table, benchmarks.report_rows_cli\n"
        "print([m for m in ('torch', 'onnxruntime', 'cv2', 'rich') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"
