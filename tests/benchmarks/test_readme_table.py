import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.readme_table import BEGIN, END, MEND, NOTHING, check, table, unexplained, write
from benchmarks.report_rows_cli import README, RESULTS, add_readme_table
from benchmarks.results_page.written import DASH, cosine
from benchmarks.rows import append_rows, read_rows
from edge_runtime.command_line import run_command
from edge_runtime.errors import InputError
from tests.benchmarks.measured_rows import MACHINE, measured


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def readme(tmp_path: Path) -> Path:
    path = tmp_path / "README.md"
    path.write_text(f"# Before\n\n{BEGIN}\n{NOTHING}\n{END}\n\nAfter\n")
    return path


def block(results: Path, *rows: Any) -> str:
    append_rows(results / "a.jsonl", list(rows))
    return table(results, root=results.parent.parent)


def lines_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| small")]


def test_the_readme_of_this_checkout_shows_the_rows_of_this_checkout() -> None:
    check(README, RESULTS)


def test_every_file_of_results_has_its_command_and_holds_rows() -> None:
    assert unexplained(RESULTS) == []
    for path in RESULTS.glob("*.jsonl"):
        assert read_rows(path)


def test_without_rows_nothing_is_claimed(results: Path, readme: Path) -> None:
    check(readme, results)
    assert table(results) == NOTHING
    assert not write(readme, results)


def test_one_row_an_encoder_and_runtime_its_fastest_precision(results: Path) -> None:
    text = block(
        results,
        measured(10.0),
        measured(6.0, precision="int8"),
        measured(20.0, batch=8),
        measured(1.0, runtime="ort-cuda", fallback="no CUDA"),
        measured(2.0, protocol="single-stream"),
        measured(12.0, runtime="openvino", provider="OpenVINO"),
    )
    assert "| encoder | px | ort-cpu | openvino | p99 ms |" in text
    (line,) = lines_of(text)
    assert [cell.split(" ", 1) for cell in line.split(" | ")[2:4]] == [
        ["**[6.00](benchmarks/results/a.jsonl#L2)**", "int8"],
        ["[12.0](benchmarks/results/a.jsonl#L6)", "fp32"],
    ]


def test_the_columns_after_the_runtimes_are_those_of_the_fastest(results: Path) -> None:
    good = measured(10.0)
    assert good.quality is not None
    worse = replace(good.quality, min_cosine=0.99992)
    fast = measured(6.0, runtime="openvino", provider="OpenVINO", quality=worse)
    (line,) = lines_of(block(results, good, fast))
    assert " 0.99992 " in line
    assert cosine(good.quality.min_cosine) not in line


def test_a_doubt_stands_beside_the_number_it_belongs_to(results: Path) -> None:
    busy = measured(10.0, machine=replace(MACHINE, load_1min=9.0))
    text = block(results, busy, measured(12.0, runtime="openvino", provider="OpenVINO"))
    assert "#L1)** fp32 <sup>1</sup> |" in text
    assert "#L2) fp32 |" in text
    assert "\n\n1. The machine was busy before: load 9 on 4 cores.\n" in text


def test_a_runtime_that_an_encoder_lacks_is_left_empty(results: Path) -> None:
    other = measured(3.0, encoder="smaller", runtime="openvino", provider="OpenVINO")
    text = block(results, measured(10.0), other)
    assert [line.split(" | ")[2:4] for line in lines_of(text)] == [
        ["**[10.0](benchmarks/results/a.jsonl#L1)** fp32", DASH],
        [DASH, "**[3.00](benchmarks/results/a.jsonl#L2)** fp32"],
    ]


def test_a_precision_that_no_gate_would_let_fly_is_left_out(results: Path) -> None:
    good = measured(10.0)
    assert good.quality is not None
    far = replace(good.quality, min_cosine=0.97)
    text = block(results, good, measured(6.0, precision="int8", quality=far))
    (line,) = lines_of(text)
    assert line.split(" | ")[2].endswith(" fp32")
    assert "6.00" not in line


def test_a_newer_commit_takes_the_place_of_an_older_one_though_it_is_slower(results: Path) -> None:
    newer = measured(14.0, git_commit="fed", measured_utc="2026-02-02T00:00:00Z")
    for rows in ((measured(10.0), newer), (newer, measured(10.0))):
        (results / "a.jsonl").unlink(missing_ok=True)
        text = block(results, *rows)
        assert "[14.0](" in text
        assert "[10.0](" not in text


def test_each_median_is_linked_to_its_row(results: Path) -> None:
    text = block(results, measured(10.0, batch=8), measured(5.5))
    assert "[5.50](benchmarks/results/a.jsonl#L2)" in text


def test_machines_have_tables_of_their_own(results: Path) -> None:
    text = block(results, measured(), measured(3.0, machine=replace(MACHINE, gpu="A GPU")))
    assert "**4 cores of A Test CPU** (2026-01-02, commit abc1234)" in text
    assert "**4 cores of A Test CPU, A GPU**" in text


def test_a_changed_row_fails_the_check_and_writing_mends_it(results: Path, readme: Path) -> None:
    root = readme.parent
    block(results, measured())
    with pytest.raises(InputError, match=MEND):
        check(readme, results, root=root)
    assert write(readme, results, root=root)
    check(readme, results, root=root)
    text = readme.read_text()
    assert text.startswith(f"# Before\n\n{BEGIN}\n**4 cores")
    assert text.endswith(f"{END}\n\nAfter\n")
    readme.write_text(text.replace("10.0", "9.0"))
    with pytest.raises(InputError, match=MEND):
        check(readme, results, root=root)


@pytest.mark.parametrize("text", ["# nothing\n", f"{END}\n{BEGIN}\n", f"{BEGIN}{BEGIN}{END}"])
def test_a_readme_without_its_markers_is_refused(results: Path, readme: Path, text: str) -> None:
    readme.write_text(text)
    with pytest.raises(InputError, match="add them"):
        write(readme, results)


def test_a_file_without_a_command_is_named(results: Path) -> None:
    block(results, measured())
    assert unexplained(results) == ["a.jsonl"]
    (results / "README.md").write_text("## `a.jsonl`\n\n```\npython -m benchmarks …\n```\n")
    assert unexplained(results) == []


def test_the_command_fails_with_what_mends_it(
    results: Path, readme: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_readme_table(parser.add_subparsers())
    readme.write_text(readme.read_text().replace(NOTHING, "12 ms"))

    def run(what: str) -> int:
        arguments = ["readme-table", what, "--readme", str(readme), "--results", str(results)]
        args = parser.parse_args(arguments)
        return run_command("benchmarks", lambda: args.run(args), stopped="stopped")

    assert run("--check") == 2
    assert MEND in capsys.readouterr().err
    assert run("--write") == 0
    assert run("--check") == 0
