"""Every run of a log comes back with its own records and its own settings."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.flight_log import FlightLog, RunSettings, read_log, read_settings, settings_path
from edge_runtime.log_reading import read_runs
from edge_runtime.outputs.line_file import last_line, parts_of
from edge_runtime.run_settings import MOST_RUNS, RunOfLog, read_runs_of, with_run

PLAIN = RunSettings(
    source="/flight",
    telemetry="/flight.csv",
    camera="",
    bundle="/bundle",
    index="/index",
    backend="ort-cpu",
    options={},
)
RNG = np.random.default_rng(5)


def of_run(name: int) -> RunSettings:
    return replace(PLAIN, source=f"/flights/{name}", options={"threads": name})


def record(seq: int) -> Fix:
    # No two records of a flight take the same time to the last digit.
    return Fix(
        seq=seq,
        frame=f"{seq:03d}.jpg",
        t_exposure_s=0.1 * seq,
        t_fix_s=float(RNG.random()),
        status="LOST",
        mode="GLOBAL",
        reason="",
    )


def write_run(
    path: Path,
    name: int,
    seqs: Sequence[int],
    *,
    append: bool = True,
    rotate_bytes: int | None = None,
    keep_parts: int | None = None,
) -> None:
    with FlightLog(
        path, of_run(name), append=append, rotate_bytes=rotate_bytes, keep_parts=keep_parts
    ) as log:
        for seq in seqs:
            log.write(record(seq))
            assert log.flush()


def found(path: Path) -> list[tuple[int, list[int]]]:
    """(which settings, numbers of the records) of each run; 0 where the settings are not told."""
    runs = read_runs(path)
    assert [run.number for run in runs] == list(range(1, len(runs) + 1))
    assert [fix for run in runs for fix in run.records] == list(read_log(path))
    return [
        (run.settings.options["threads"] if run.settings else 0, [fix.seq for fix in run.records])
        for run in runs
    ]


def write_as_before_runs_were_told_apart(path: Path, name: int) -> None:
    settings_path(path).write_text(json.dumps(asdict(of_run(name))))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fixes.jsonl"


def test_each_run_has_its_own_records_and_settings(path: Path) -> None:
    for name in (1, 2, 3):
        write_run(path, name, range(name))
    assert found(path) == [(1, [0]), (2, [0, 1]), (3, [0, 1, 2])]


def test_the_settings_of_a_log_are_its_newest_run_s(path: Path) -> None:
    for name in (1, 2, 3):
        write_run(path, name, range(2))
    assert read_settings(path) == of_run(3)
    assert [run.settings for run in read_runs_of(path)] == [of_run(k) for k in (1, 2, 3)]


def test_a_new_log_forgets_the_runs_of_the_old_one(path: Path) -> None:
    write_run(path, 1, range(2))
    write_run(path, 2, range(2))
    write_run(path, 3, range(2), append=False)
    assert found(path) == [(3, [0, 1])]
    assert [run.settings for run in read_runs_of(path)] == [of_run(3)]


def test_a_run_without_a_record_shifts_no_other(path: Path) -> None:
    for name, seqs in ((1, range(2)), (2, ()), (3, ()), (4, range(3)), (5, ())):
        write_run(path, name, seqs)
    assert found(path) == [(1, [0, 1]), (4, [0, 1, 2])]


def test_runs_that_wrote_nothing_do_not_pile_up(path: Path) -> None:
    write_run(path, 1, range(2))
    for _ in range(20):
        write_run(path, 2, ())
    assert len(read_runs_of(path)) == 2


def test_a_run_whose_first_records_were_lost_is_a_run_of_its_own(path: Path) -> None:
    """Its numbers then go on where the run before ended, as those of one run would."""
    write_run(path, 1, range(3))
    write_run(path, 2, range(5, 8))
    assert found(path) == [(1, [0, 1, 2]), (2, [5, 6, 7])]


@pytest.mark.parametrize("left", [b'{"seq": 2, "fra', bytes(500)], ids=["cut", "zeros"])
def test_a_crash_between_two_runs_moves_no_record(path: Path, left: bytes) -> None:
    write_run(path, 1, range(2))
    with path.open("ab") as stream:
        stream.write(left)
    write_run(path, 2, range(2))
    assert found(path) == [(1, [0, 1]), (2, [0, 1])]


def test_zeros_that_a_line_ends_do_not_hide_the_beginning_of_a_run(path: Path) -> None:
    write_run(path, 1, range(2))
    with path.open("ab") as stream:
        stream.write(bytes(500) + b'"}\n')
    write_run(path, 2, range(2))
    assert found(path) == [(1, [0, 1]), (2, [0, 1])]


def test_runs_are_told_apart_across_parts(path: Path) -> None:
    for name in (1, 2, 3):
        write_run(path, name, range(4), rotate_bytes=1500)
    assert len(parts_of(path)) > 3
    assert found(path) == [(name, [0, 1, 2, 3]) for name in (1, 2, 3)]


@pytest.mark.parametrize("keep_parts", [0, 1, 2, 3, 5])
def test_runs_whose_parts_are_gone_leave_the_others_what_they_had(
    path: Path, keep_parts: int
) -> None:
    for name in range(1, 7):
        write_run(path, name, range(3), rotate_bytes=1500, keep_parts=keep_parts)
    whole = [(name, seq) for name in range(1, 7) for seq in range(3)]
    left = [(name, seq) for name, seqs in found(path) for seq in seqs]
    assert 0 < len(left) < len(whole)
    assert left == whole[-len(left) :]


def test_a_crash_between_two_parts_loses_no_run(path: Path) -> None:
    write_run(path, 1, range(3))
    path.rename(path.with_name("fixes.part0001.jsonl"))
    write_run(path, 2, range(3))
    assert found(path) == [(1, [0, 1, 2]), (2, [0, 1, 2])]


def test_of_a_log_without_a_list_of_runs_only_the_last_run_is_told(path: Path) -> None:
    for _ in range(3):
        write_run(path, 9, range(2))
    write_as_before_runs_were_told_apart(path, 3)
    assert found(path) == [(0, [0, 1]), (0, [0, 1]), (3, [0, 1])]
    write_run(path, 4, range(2))
    assert found(path) == [(0, [0, 1]), (0, [0, 1]), (3, [0, 1]), (4, [0, 1])]


def test_a_beginning_that_was_cut_out_of_a_log_gives_no_run_another_s_settings(path: Path) -> None:
    for name in (1, 2, 3):
        write_run(path, name, range(3))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:]))
    assert found(path) == [(0, [0, 1]), (2, [0, 1, 2]), (3, [0, 1, 2])]


def test_settings_that_are_damaged_stop_no_flight(path: Path) -> None:
    write_run(path, 1, range(2))
    settings_path(path).write_bytes(b"\xff")
    write_run(path, 2, range(2))
    assert found(path) == [(0, [0, 1]), (2, [0, 1])]


def test_the_list_of_runs_does_not_grow_without_end() -> None:
    earlier = [RunOfLog(of_run(k), f"{k:064x}") for k in range(2 * MOST_RUNS)]
    newest = json.loads(with_run(earlier, of_run(7), b"line\n"))
    assert len(newest["earlier"]) == MOST_RUNS - 1
    assert newest["earlier"][-1]["options"] == {"threads": 2 * MOST_RUNS - 1}


def test_a_log_with_records_and_no_settings_is_refused(path: Path) -> None:
    write_run(path, 1, range(2))
    settings_path(path).unlink()
    with pytest.raises(InputError, match=r"fixes\.run\.json cannot be read .* replay needs"):
        read_runs(path)


@pytest.mark.parametrize("earlier", [3, [3], [{"source": "x"}], [{"more": 1}], {"a": 1}])
def test_an_odd_list_of_runs_is_refused(path: Path, earlier: object) -> None:
    write_run(path, 1, range(2))
    value = json.loads(settings_path(path).read_text())
    settings_path(path).write_text(json.dumps({**value, "earlier": earlier}))
    with pytest.raises(InputError, match=r"fixes\.run\.json cannot be read .* replay needs"):
        read_runs(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", None),
        (b"cut", None),
        (b"one\n", b"one\n"),
        (b"one\ntwo\n", b"two\n"),
        (b"one\ntwo\ncut", b"two\n"),
        (b"one\n" + b"x" * 200_000 + b"\n", b"x" * 200_000 + b"\n"),
        (b"\n", b"\n"),
        (b"one\n\n", b"\n"),
    ],
)
def test_the_last_whole_line_is_found(path: Path, content: bytes, expected: bytes | None) -> None:
    path.write_bytes(content)
    assert last_line(path) == expected


def test_a_file_that_is_not_there_has_no_last_line(path: Path) -> None:
    assert last_line(path) is None
