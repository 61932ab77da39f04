import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.cli import main
from benchmarks.compare.interleave import Side, interleave
from benchmarks.compare.metrics import METRICS, metric_named
from benchmarks.compare.pairing import comparison_key, label_of, pair_rows
from benchmarks.compare.text import lines, markdown
from benchmarks.compare.verdict import ComparisonRow, Tolerance, compare
from benchmarks.compare_cli import add_compare, add_interleave
from benchmarks.random_checkpoint import random_checkpoint
from benchmarks.rows import read_rows
from benchmarks.timing import timed_calls
from edge_runtime.backends.protocol import open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.errors import InputError
from export.bundle_export import export_bundle

Row = dict[str, Any]
F64 = npt.NDArray[np.float64]
CPU = {"cpu": "a CPU", "cores": 2, "gpu": None, "power_mode": "schedutil"}


def made_row(p50_ms: float, run: int = 0, **values: Any) -> Row:
    row: Row = {
        "schema": 1,
        "kind": "measurement",
        "measured_utc": f"2026-01-01T{run // 60:02d}:{run % 60:02d}:00Z",
        "protocol": "latency",
        "encoder": "small-128",
        "runtime": "ort-cpu",
        "provider": "CPUExecutionProvider",
        "library": "onnxruntime 1",
        "precision": "fp32",
        "threads": 2,
        "batch": 1,
        "height_px": 128,
        "width_px": 128,
        "run": run,
        "model_sha256": "a" * 64,
        "machine": CPU,
        "time": {"p50_ms": p50_ms, "p99_ms": 2 * p50_ms, "throughput_per_s": 1e3 / p50_ms},
        "quality": {"min_cosine": 0.9999, "recall_at_1": 0.5},
    }
    return {**row, **values}


def series(times_ms: Sequence[float], **values: Any) -> list[Row]:
    return [made_row(t, run, **values) for run, t in enumerate(times_ms)]


def judged(before: Sequence[Row], after: Sequence[Row], *metrics: str) -> list[ComparisonRow]:
    return compare(pair_rows(before, after), [METRICS[name] for name in metrics or ("p50",)])


class BusyMachine:
    """Medians of runs as a machine with two cores gives them while other programs use it too.

    Its numbers come from 40 pairs of a MobileNetV4-small on ONNX Runtime with one thread, a process
    each, 300 calls of 0.82 ms: the run's level drifts (standard deviation 3 %, 0.65 from a run to
    the next), the two of a pair differ by what their process got (a Student t of 2.5 degrees and a
    scale of 0.75 %), calls scatter by 1.5 % and one in twenty takes 2 to 30 times as long.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def pairs(self, count: int, *, slower: float = 1.0, calls: int = 100) -> tuple[F64, F64]:
        """Median times of both sides, ms; the second one is `slower` times as long."""
        rng = self._rng
        level = np.zeros(count)
        for k in range(count):
            level[k] = 0.65 * level[k - 1] + 0.03 * math.sqrt(1 - 0.65**2) * rng.normal()
        sides = []
        for factor in (1.0, slower):
            own = level + 0.0075 / math.sqrt(2) * rng.standard_t(2.5, count)
            times = np.exp(own[:, None] + 0.015 * rng.normal(size=(count, calls)))
            late = rng.random((count, calls)) < 0.05
            times = np.where(late, times * np.exp(rng.uniform(0.7, 3.4, times.shape)), times)
            sides.append(0.82 * factor * np.median(times, axis=1))
        return sides[0], sides[1]


@pytest.fixture(scope="module")
def verdicts() -> dict[float, list[str]]:
    """Of 200 experiments each of 30 pairs, by how much slower the second one is."""
    found: dict[float, list[str]] = {}
    for slower in (1.0, 1.05):
        machine = BusyMachine(seed=20)
        found[slower] = []
        for _ in range(200):
            before, after = machine.pairs(30, slower=slower)
            rows = judged(series(before.tolist()), series(after.tolist()))
            found[slower].append(rows[0].verdict)
    return found


def test_a_regression_of_5_percent_is_found_in_19_of_20_experiments_of_30_pairs(
    verdicts: dict[float, list[str]],
) -> None:
    assert verdicts[1.05].count("slower") >= 190


def test_two_equal_ones_are_silent_in_19_of_20_experiments_of_30_pairs(
    verdicts: dict[float, list[str]],
) -> None:
    assert verdicts[1.0].count("no difference shown") >= 190


@pytest.fixture(scope="module")
def real_encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], object]]:
    """One call of a MobileNetV4-small 128 px on ONNX Runtime with one thread."""
    root = tmp_path_factory.mktemp("real")
    random_checkpoint("mobilenetv4_conv_small", 128, root / "checkpoint")
    export_bundle(root / "checkpoint", root / "bundle", precisions=("fp32",))
    bundle = Bundle.open(root / "bundle")
    backend = open_backend(bundle, "ort-cpu", threads=1)
    images = bundle.probes()[0][:1]
    yield lambda: backend.embed(images)
    backend.close()


@pytest.mark.slow
@pytest.mark.parametrize(("slower", "expected"), [(0.05, "slower"), (0.0, "no difference shown")])
def test_a_real_encoder_that_is_busy_5_percent_longer_is_found(
    real_encoder: Callable[[], object], slower: float, expected: str
) -> None:
    def p50_ms(longer: float) -> float:
        def call(_number: int) -> None:
            start_ns = time.perf_counter_ns()
            real_encoder()
            end_ns = time.perf_counter_ns()
            until_ns = end_ns + longer * (end_ns - start_ns)
            while time.perf_counter_ns() < until_ns:
                pass

        return timed_calls(call, calls=100, warmup=5).summary().p50_ms

    rng = np.random.default_rng(1)
    sides: tuple[list[float], list[float]] = ([], [])
    for _ in range(30):
        for side in rng.permutation(2):
            sides[side].append(p50_ms(slower if side else 0.0))
    assert judged(series(sides[0]), series(sides[1]))[0].verdict == expected


def test_without_a_tolerance_one_equal_pair_in_twenty_cries_wolf_and_no_more() -> None:
    machine = BusyMachine(seed=21)
    alarms = 0
    for _ in range(200):
        before, after = (series(side.tolist()) for side in machine.pairs(30))
        tolerance = Tolerance(ratio=0.0)
        rows = compare(pair_rows(before, after), [METRICS["p50"]], tolerance=tolerance)
        alarms += rows[0].verdict != "no difference shown"
    # 10 expected with a standard deviation of 3.
    assert 1 <= alarms <= 19


def test_a_matrix_of_60_equal_rows_cries_wolf_once_in_20_times_at_most() -> None:
    machine = BusyMachine(seed=22)
    alarms = uncorrected = 0
    for _ in range(8):
        before, after = [], []
        for encoder in range(60):
            one, other = machine.pairs(30, calls=20)
            before += series(one.tolist(), encoder=f"e{encoder}")
            after += series(other.tolist(), encoder=f"e{encoder}")
        tolerance = Tolerance(ratio=0.0)
        rows = compare(pair_rows(before, after), [METRICS["p50"]], tolerance=tolerance)
        assert len(rows) == 60
        alarms += any(row.verdict != "no difference shown" for row in rows)
        uncorrected += any(not row.low <= 1 <= row.high for row in rows)
    assert uncorrected >= 6
    assert alarms <= 1


def test_faster_is_said_too_and_is_no_regression() -> None:
    rows = judged(series([2.0 + 0.001 * k for k in range(12)]), series([1.5] * 12))
    assert rows[0].verdict == "faster"
    assert not rows[0].regression


def test_the_change_is_the_median_of_the_pairs_not_of_the_files() -> None:
    rows = judged(series([1, 2, 3, 4, 100, 6]), series([2, 4, 6, 8, 200, 12]))
    assert rows[0].change == pytest.approx(2.0)
    assert (rows[0].low, rows[0].high) == pytest.approx((2.0, 2.0))
    assert (rows[0].before, rows[0].after) == (3.5, 7.0)


@pytest.mark.parametrize("pairs", [1, 4, 5])
def test_with_five_pairs_or_fewer_nothing_is_guessed(pairs: int) -> None:
    rows = judged(series([1.0] * pairs), series([9.0] * pairs))
    assert rows[0].verdict == "too few runs"
    assert rows[0].pairs_needed == 6


def test_many_comparisons_need_more_pairs_and_say_how_many() -> None:
    before, after = [], []
    for encoder in range(60):
        before += series([1.0] * 8, encoder=f"e{encoder}")
        after += series([1.0] * 8, encoder=f"e{encoder}")
    rows = judged(before, after)
    assert {row.verdict for row in rows} == {"too few runs"}
    assert {row.pairs_needed for row in rows} == {12}


def test_a_change_below_the_tolerance_is_no_regression_however_sure() -> None:
    before, after = series([1.0] * 30), series([1.015] * 30)
    assert judged(before, after)[0].verdict == "no difference shown"
    strict = compare(pair_rows(before, after), [METRICS["p50"]], tolerance=Tolerance(ratio=0.01))
    assert strict[0].verdict == "slower"


def test_less_throughput_is_slower_and_less_recall_is_worse() -> None:
    before = series([1.0] * 10)
    after = series([1.1] * 10, quality={"min_cosine": 0.9999, "recall_at_1": 0.4})
    rows = judged(before, after, "throughput", "recall_at_1", "min_cosine")
    assert [row.verdict for row in rows] == ["slower", "worse", "no difference shown"]
    assert rows[1].change == pytest.approx(-0.1)


def test_runs_are_paired_by_their_number_in_any_order() -> None:
    before, after = series([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), series([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    paired = pair_rows(before, [*after[::-1], made_row(9.0, run=17)])
    assert [row["run"] for row in paired.pairs[0].after] == [0, 1, 2, 3, 4, 5]
    assert paired.pairs[0].unpaired == 1


def test_rows_that_do_not_number_their_runs_are_paired_in_order() -> None:
    one, other = ([made_row(t) for t in side] for side in ((1.0, 2.0), (3.0, 4.0)))
    pairs = pair_rows(one, other).pairs[0]
    assert [row["time"]["p50_ms"] for row in pairs.before] == [1.0, 2.0]
    assert [row["time"]["p50_ms"] for row in pairs.after] == [3.0, 4.0]


@pytest.mark.parametrize(
    ("field", "value"),
    [("protocol", "single-stream"), ("encoder", "big"), ("runtime", "openvino"), ("batch", 8),
     ("precision", "int8"), ("width_px", 256), ("threads", 1)],
)  # fmt: skip
def test_rows_that_measured_something_else_are_not_paired(field: str, value: Any) -> None:
    with pytest.raises(InputError, match="nothing was measured in both"):
        pair_rows([made_row(1.0)], [made_row(1.0, **{field: value})])


def test_commit_time_and_machine_are_no_part_of_what_was_measured() -> None:
    one = made_row(1.0, git_commit="a")
    other = made_row(2.0, run=3, git_commit="b", machine={}, bundle_id="c")
    assert comparison_key(one) == comparison_key(other)


@pytest.mark.parametrize("field", ["cpu", "cores", "gpu", "power_mode"])
def test_another_machine_is_refused_unless_asked_for(field: str) -> None:
    before, after = series([1.0] * 6), series([1.0] * 6, machine={**CPU, field: "another"})
    with pytest.raises(InputError, match=rf"different machines \({field}: .*--other-machine"):
        pair_rows(before, after)
    assert len(pair_rows(before, after, other_machine=True).pairs[0].before) == 6


def test_flights_are_paired_by_their_names() -> None:
    def row(flight: str, share: float) -> Row:
        accuracy = {"success": {"20": {"share": share}}}
        return {"schema": 1, "kind": "localisation", "searched": "all", "score": "drone",
                "flight": flight, "accuracy": accuracy, "measured_utc": flight}  # fmt: skip

    before = [row(f"flight_{k}", 0.9) for k in range(8)]
    after = [row(f"flight_{k}", 0.8) for k in (3, 2, 1, 0, 7, 6, 5, 4)]
    rows = compare(pair_rows(before, after), [METRICS["success_20m"]])
    assert (rows[0].pairs, rows[0].verdict) == (8, "worse")


@pytest.mark.parametrize("precision", ["fp32", "any"])
def test_what_this_machine_cannot_run_any_more_is_named_with_its_reason(precision: str) -> None:
    lost = {"schema": 1, "kind": "not_run", "encoder": "small-128", "runtime": "openvino",
            "precision": precision, "batch": 1, "reason": "not installed"}  # fmt: skip
    before = [made_row(1.0), made_row(1.0, runtime="openvino"), made_row(1.0, runtime="torch")]
    paired = pair_rows(before, [made_row(1.0), lost, made_row(1.0, encoder="new")])
    assert len(paired.not_run) == len(paired.gone) == len(paired.new) == 1
    assert paired.not_run[0].endswith("not installed")
    assert "torch" in paired.gone[0]
    assert "new" in paired.new[0]


def test_another_provider_and_runs_that_did_not_take_turns_are_noted() -> None:
    after = [made_row(1.0, k, provider="OtherProvider") for k in range(6)]
    for row in after:
        row["measured_utc"] = row["measured_utc"].replace("2026", "2027")
    notes = judged(series([1.0] * 6), after)[0].notes
    assert "provider: before CPUExecutionProvider; after OtherProvider" in notes
    assert any("not measured in turn" in note for note in notes)
    assert not any("turn" in note for note in judged(series([1.0] * 6), series([1.0] * 6))[0].notes)


def test_every_kind_that_is_compared_has_a_line_of_its_own() -> None:
    row = {"kind": "loading", "recipe": "cvusa", "source_px": "1x1", "encoder_px": "2x2"}
    key = comparison_key(row)
    assert key is not None
    assert label_of(key) == "loading, cvusa, 1x1, 2x2"
    assert comparison_key({"kind": "parity"}) is None


def test_a_metric_that_no_row_has_is_refused() -> None:
    with pytest.raises(InputError, match="no pair of rows has joules"):
        judged([made_row(1.0)], [made_row(1.0)], "joules")
    with pytest.raises(InputError, match="there is no metric 'p5'"):
        metric_named("p5")


def test_a_tolerance_that_cannot_be_meant_is_refused() -> None:
    with pytest.raises(InputError, match="tolerance is 2"):
        Tolerance(ratio=2)


def test_the_text_and_the_table_say_the_same() -> None:
    before, after = series([1.0] * 8), series([1.1] * 8)
    paired = pair_rows(before, after)
    rows = compare(paired, [METRICS["p50"]])
    text, table = "\n".join(lines(rows, paired)), "\n".join(markdown(rows, paired))
    for shown in (text, table):
        assert "slower" in shown
        assert "+10.0%" in shown
        assert "1 comparison: 1 slower" in shown
    assert "| p50 | 8 | 1 | 1.1 |" in table


# The command.


def write(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def run_command(add: Callable[[Any], None], *arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add(parser.add_subparsers())
    args = parser.parse_args([str(argument) for argument in arguments])
    return int(args.run(args) or 0)


@pytest.mark.parametrize(("after_ms", "status"), [(1.0, 0), (0.8, 0), (1.2, 1)])
def test_the_exit_status_is_1_for_a_regression_only(
    after_ms: float, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = write(tmp_path / "before.jsonl", series([1.0] * 8))
    after = write(tmp_path / "after.jsonl", series([after_ms] * 8))
    assert run_command(add_compare, "compare", before, after) == status
    assert "small-128 ort-cpu fp32" in capsys.readouterr().out


def test_the_program_ends_with_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {}
    for name, slower in (("before", 1.0), ("equal", 1.0), ("slower", 1.1)):
        rows = series([slower * (1.0 + 0.001 * k) for k in range(12)])
        files[name] = write(tmp_path / f"{name}.jsonl", rows)
    words = ["compare", str(files["before"])]
    assert main([*words, str(files["equal"])]) == 0
    assert main([*words, str(files["slower"])]) == 1
    assert "slower" in capsys.readouterr().out
    assert main([*words, str(tmp_path / "missing.jsonl")]) == 2


def test_what_does_not_run_any_more_is_a_regression(tmp_path: Path) -> None:
    lost = {"schema": 1, "kind": "not_run", "encoder": "small-128", "runtime": "openvino",
            "precision": "fp32", "batch": 1, "reason": "not installed"}  # fmt: skip
    both = series([1.0] * 8)
    before = write(tmp_path / "before.jsonl", [*both, *series([1.0], runtime="openvino")])
    assert run_command(add_compare, "compare", before, write(tmp_path / "a.jsonl", both)) == 0
    after = write(tmp_path / "b.jsonl", [*both, lost])
    assert run_command(add_compare, "compare", before, after) == 1


def test_what_is_printed_as_json_is_what_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [write(tmp_path / f"{k}.jsonl", series([1.0] * 8)) for k in range(2)]
    out = tmp_path / "out.jsonl"
    metrics = ("--metric", "p50", "--metric", "p99")
    run_command(add_compare, "compare", *metrics, *files, "--json", "--out", out)
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert printed == read_rows(out, kind="comparison")
    assert [row["metric"] for row in printed] == ["p50", "p99"]


def test_too_few_runs_of_everything_are_the_user_s_mistake(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{k}.jsonl", series([1.0] * 3)) for k in range(2)]
    with pytest.raises(InputError, match="at most 3 pairs; measure 6 or more"):
        run_command(add_compare, "compare", *files)


FAKE = """
import json, pathlib, sys
here = pathlib.Path.cwd()
with (here.parent / "order.txt").open("a") as stream:
    stream.write(here.name + "\\n")
if (here / "broken").exists():
    sys.exit("something is broken")
row = {row!r}
row["time"] = dict(p50_ms=2.0 if here.name == "new" else 1.0)
row["asked"] = sys.argv[1:-2]
pathlib.Path(sys.argv[-1]).write_text(json.dumps(row) + chr(10))
"""


@pytest.fixture
def checkouts(tmp_path: Path) -> tuple[Side, Side, list[str]]:
    program = tmp_path / "fake.py"
    program.write_text(FAKE.replace("{row!r}", repr(made_row(1.0))))
    sides = []
    for name, checkout in (("before", "old"), ("after", "new")):
        (tmp_path / checkout).mkdir()
        rows = tmp_path / f"{name}.jsonl"
        sides.append(Side(name=name, checkout=tmp_path / checkout, rows=rows))
    return sides[0], sides[1], [sys.executable, str(program), "latency"]


def test_runs_of_two_checkouts_are_interleaved_and_numbered(
    checkouts: tuple[Side, Side, list[str]],
) -> None:
    before, after, command = checkouts
    interleave(before, after, command, runs=8, seed=1)
    order = (before.checkout.parent / "order.txt").read_text().split()
    assert all({order[k], order[k + 1]} == {"old", "new"} for k in range(0, 16, 2))
    assert len({tuple(order[k : k + 2]) for k in range(0, 16, 2)}) == 2, "always the same order"
    assert [row["run"] for row in read_rows(before.rows)] == list(range(8))
    rows = judged(read_rows(before.rows), read_rows(after.rows))
    assert rows[0].change == pytest.approx(2)
    assert (rows[0].pairs, rows[0].verdict) == (8, "slower")


def test_a_stopped_series_goes_on_where_it_was(checkouts: tuple[Side, Side, list[str]]) -> None:
    before, after, command = checkouts
    interleave(before, after, command, runs=2)
    (after.checkout / "broken").touch()
    with pytest.raises(InputError, match=r"ended with 1 in .*new: something is broken"):
        interleave(before, after, command, runs=4)
    (after.checkout / "broken").unlink()
    interleave(before, after, command, runs=4)
    for side in (before, after):
        assert [row["run"] for row in read_rows(side.rows)] == [0, 1, 2, 3]


def test_interleave_hands_the_arguments_on(
    checkouts: tuple[Side, Side, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    before, after, command = checkouts
    run_command(
        add_interleave, "interleave", "--runs", "1", "--program", " ".join(command[:2]),
        "--before", before.checkout, "--after", after.checkout, "--before-out", before.rows,
        "--after-out", after.rows, "--", "latency", "--calls", "5",
    )  # fmt: skip
    assert read_rows(after.rows)[0]["asked"] == ["latency", "--calls", "5"]
    assert f"next: python -m benchmarks compare {before.rows}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("program", "reason"),
    [("pass", "wrote no row"), ("import time; time.sleep(60)", r"took more than 0\.5 s")],
)
def test_a_command_that_measures_nothing_is_refused(
    checkouts: tuple[Side, Side, list[str]], program: str, reason: str
) -> None:
    before, after, _ = checkouts
    with pytest.raises(InputError, match=reason):
        interleave(before, after, [sys.executable, "-c", program], runs=1, timeout_s=0.5)


def test_checkouts_and_files_that_make_no_sense_are_refused(
    checkouts: tuple[Side, Side, list[str]], tmp_path: Path
) -> None:
    before, after, command = checkouts
    with pytest.raises(InputError, match="expected two files"):
        interleave(before, before, command, runs=1)
    nowhere = Side(name="after", checkout=tmp_path / "nowhere", rows=after.rows)
    with pytest.raises(InputError, match="nowhere is not a folder"):
        interleave(before, nowhere, command, runs=1)
    with pytest.raises(InputError, match="cannot be started"):
        interleave(before, after, [str(tmp_path / "no-program")], runs=1)
    with pytest.raises(InputError, match="0 runs"):
        interleave(before, after, command, runs=0)
