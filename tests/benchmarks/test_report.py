import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks.cli import main
from benchmarks.latency import EMULATED_FP16, ENERGY_NOT_ASKED
from benchmarks.machine import machine
from benchmarks.measurement import MeasurementRow, Memory
from benchmarks.report import read_evaluation, read_latency
from benchmarks.rows import append_rows, provenance, read_rows
from benchmarks.stage_latency import stage_rows
from benchmarks.time_summary import time_summary
from edge_runtime.errors import InputError
from edge_runtime.fix import Fix

MakeFix = Callable[..., Fix]
Write = Callable[..., Path]


class Tags(HTMLParser):
    """What a page consists of; fails on tags that do not match."""

    VOID = ("meta", "img", "br", "i")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def fixes(make_fix: MakeFix) -> list[Fix]:
    statuses = ["ABSTAIN", "OK", "OK", "OK", "DEGRADED", "LOST", "OK", "OK", "OK", "OK"]
    return [
        make_fix(k, status=status, east_m=70.0 if k == 8 else 0.5 * k)
        for k, status in enumerate(statuses)
    ]


@pytest.fixture
def page(
    tmp_path: Path,
    fixes: list[Fix],
    write_log: Write,
    write_truth: Write,
    frames_dir: Path,
    index_dir: Path,
    evaluation: Path,
) -> str:
    out = tmp_path / "report.html"
    second = write_log(fixes[:8], "flight_2.jsonl")
    arguments = ["report", "--index", index_dir, "--out", out, "--eval", evaluation]
    arguments += ["--title", "A <test> flight"]
    arguments += ["--flight", write_log(fixes), write_truth(10), frames_dir]
    arguments += ["--flight", second, write_truth(10, "b.csv"), "-"]
    assert main([str(a) for a in arguments]) == 0
    return out.read_text()


def test_page_needs_no_other_host(page: str) -> None:
    assert not re.search(r"(?:https?:)?//[a-z0-9]", re.sub(r"base64,[\w+/=]+", "", page))
    assert "<script" not in page
    assert "default-src 'none'" in page


def test_page_is_well_formed_and_tells_what_its_pictures_show(page: str) -> None:
    tags = Tags()
    tags.feed(page)
    tags.close()
    assert tags.open == []
    for tag, attributes in tags.seen:
        if tag == "img":
            assert attributes["alt"]
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"


def test_page_shows_every_figure(page: str) -> None:
    assert page.count('<div class="map"><img') >= 2
    for title in (
        "Error over time, flight_1",
        "Error over time, flight_2",
        "Errors of all frames",
        "Claimed and observed accuracy",
        "Stages of a frame",
    ):
        assert f"<title>{title}</title>" in page
    for text in ("87.6 %", "4,321 tiles", "Worst answer", "Abstained", "Lost"):
        assert text in page
    assert "A &lt;test&gt; flight" in page
    assert "CPUExecutionProvider/fp32" in page


def test_page_counts_the_false_fix(page: str) -> None:
    assert "<dt>False fixes</dt><dd><b>1</b>" in page


def test_a_flight_without_an_answer_still_makes_a_page(
    tmp_path: Path,
    make_fix: MakeFix,
    write_log: Write,
    write_truth: Write,
    frames_dir: Path,
    index_dir: Path,
) -> None:
    log = write_log([make_fix(0, status="ABSTAIN", latency_ms={})])
    out = tmp_path / "r.html"
    flight = [str(log), str(write_truth(1)), str(frames_dir)]
    assert main(["report", "--index", str(index_dir), "--flight", *flight, "--out", str(out)]) == 0
    assert "never" in out.read_text()


def test_a_log_of_another_index_is_refused(
    tmp_path: Path,
    make_fix: MakeFix,
    write_log: Write,
    write_truth: Write,
    index_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = write_log([make_fix(0, index_id="f" * 12)])
    out = tmp_path / "r.html"
    flight = [str(log), str(write_truth(1)), "-"]
    assert main(["report", "--index", str(index_dir), "--flight", *flight, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "give the index that was flown with" in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_frames_that_are_not_there_are_refused(
    tmp_path: Path,
    make_fix: MakeFix,
    write_log: Write,
    write_truth: Write,
    index_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flight = [str(write_log([make_fix(0)])), str(write_truth(1)), str(tmp_path / "nowhere")]
    out = tmp_path / "r.html"
    assert main(["report", "--index", str(index_dir), "--flight", *flight, "--out", str(out)]) == 2
    assert "expected the folder of frames" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{}", '{"r_at_1": 98.7, "gallery": 10}', "nonsense"])
def test_an_evaluation_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "eval.json"
    path.write_text(text)
    with pytest.raises(InputError, match="expected"):
        read_evaluation(path)


def test_accuracy_command_writes_a_row_per_flight_and_one_for_all(
    tmp_path: Path,
    fixes: list[Fix],
    write_log: Write,
    write_truth: Write,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = tmp_path / "rows.jsonl"
    arguments = ["accuracy", "--out", str(rows)]
    for name in ("a", "b"):
        arguments += ["--log", str(write_log(fixes, f"{name}.jsonl"))]
        arguments += ["--truth", str(write_truth(10, f"{name}.csv"))]
    assert main(arguments) == 0
    assert [row["flight"] for row in read_rows(rows, kind="accuracy")] == ["a", "b", "all"]
    assert capsys.readouterr().out.splitlines()[-1].startswith("next: python -m benchmarks report")


def test_stage_latency_command_reads_logs_without_a_bundle(
    tmp_path: Path, fixes: list[Fix], write_log: Write
) -> None:
    rows = tmp_path / "rows.jsonl"
    assert main(["latency", "--log", str(write_log(fixes)), "--out", str(rows)]) == 0
    assert {row["stage"] for row in read_rows(rows)} == {"encode", "refine", "total"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["acuracy"], "did you mean accuracy?"),
        (["latency"], "give --bundle"),
        (["accuracy", "--log", "a", "--log", "b", "--truth", "c"], "expected one truth per log"),
        (["accuracy", "--log", "/nowhere.jsonl", "--truth", "c"], "/nowhere.jsonl"),
    ],
)
def test_mistakes_get_one_line_and_status_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_latency_rows_reach_the_page(
    tmp_path: Path,
    make_fix: MakeFix,
    write_log: Write,
    write_truth: Write,
    index_dir: Path,
) -> None:
    row = MeasurementRow(
        **provenance(), protocol="latency", encoder="e-32", architecture="e", weights="random",
        runtime="ort-cuda", provider="CPUExecutionProvider", precision="fp16",
        library="onnxruntime 1", threads=2, batch=1, height_px=32, width_px=32,
        fallback="no GPU was there", model_sha256="c", machine=replace(machine(), cpu="A board"),
        time=time_summary([1.25] * 98 + [777.0] * 2), stages={},
        memory=Memory(host_peak_mib=90.0, host_before_mib=40.0, gpu_peak_mib=None), load_s=0.1,
        build_s=None, compile_s=None, quality=None, limit=None, energy=ENERGY_NOT_ASKED,
        note=EMULATED_FP16,
    )  # fmt: skip
    other = replace(row, protocol="single-stream", time=time_summary([555.0]))
    rows, out = tmp_path / "rows.jsonl", tmp_path / "r.html"
    append_rows(rows, [row, other])
    flight = [str(write_log([make_fix(0)])), str(write_truth(1)), "-"]
    options = ["--latency", str(rows), "--out", str(out)]
    assert main(["report", "--index", str(index_dir), "--flight", *flight, *options]) == 0
    text = out.read_text()
    assert "777" in text
    assert "555" not in text
    assert EMULATED_FP16 in text
    assert "no GPU was there" in text
    assert "A board" in text


def test_a_file_without_measurements_of_a_backend_is_refused(
    tmp_path: Path, make_fix: MakeFix
) -> None:
    path = tmp_path / "rows.jsonl"
    append_rows(path, stage_rows([make_fix(0)], "flight"))
    with pytest.raises(InputError, match=r"no measurement of a backend \(it has stage_latency\)"):
        read_latency(path)


def test_the_first_task_of_an_evaluation_counts(tmp_path: Path) -> None:
    path = tmp_path / "eval.json"
    path.write_text('[{"task": "a", "r_at_1": 0.5, "gallery": 20}, {"r_at_1": 0.1, "gallery": 3}]')
    assert read_evaluation(path) == (0.5, 20)
    path.write_text("[]")
    with pytest.raises(InputError, match="is no evaluation"):
        read_evaluation(path)
