"""Commands that were stopped measure only what their file lacks when they are started again."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import loading, parity, sampling, start_up, training_speed
from benchmarks.cli import main
from benchmarks.loading import LoadingRow
from benchmarks.parity import ParityRow
from benchmarks.rows import cpu_name, provenance, read_rows
from benchmarks.sampling import Case
from benchmarks.start_up import StartUpPlan, StartUpRow
from edge_runtime.bundle import Bundle
from edge_runtime.satellite_index import SatelliteIndex

pytestmark = pytest.mark.usefixtures("outside_a_checkout")
Again = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def again(tmp_path: Path) -> Again:
    """Run a command, and give the rows that it added to its file."""
    out = tmp_path / "rows.jsonl"

    def run(*words: str) -> list[dict[str, Any]]:
        before = len(read_rows(out)) if out.exists() else 0
        assert main([*words, "--out", str(out)]) == 0
        return read_rows(out)[before:]

    return run


def test_a_search_is_measured_by_whom_is_missing(
    again: Again, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["search", "--tiles", "300", "--dimensions", "8", "--calls", "3"]
    assert [row["task"] for row in again(*words, "--contender", "numpy")] == [
        "open", "whole map", "circle",
    ]  # fmt: skip
    capsys.readouterr()
    both = [*words, "--contender", "numpy", "skyfix"]
    assert {row["contender"] for row in again(*both)} == {"skyfix"}
    told = capsys.readouterr()
    assert "numpy, circle: has its row" in told.err
    assert all(name in told.out for name in ("numpy", "skyfix")), "the table has both"
    assert again(*both) == []
    # What is stored matters to ours alone; so much more of a circle to whoever searches it.
    assert {row["contender"] for row in again(*both, "--vectors", "i8")} == {"skyfix"}
    assert len(again(*both, "--radius-m", "50")) == 6
    assert len(again(*both, "--again")) == 6


def test_sampling_goes_on_case_by_case(again: Again, monkeypatch: pytest.MonkeyPatch) -> None:
    gps, similar = Case("gps", "small", 300, 300), Case("similarity", "small", 300, 300)
    monkeypatch.setattr(sampling, "CASES", (gps,))
    assert [row["what"] for row in again("sampling", "--runs", "1")] == ["gps"]
    monkeypatch.setattr(sampling, "CASES", (gps, similar))
    assert [row["what"] for row in again("sampling", "--runs", "1")] == ["similarity"]
    assert again("sampling", "--runs", "1") == []
    # Where the drone was is the same for embeddings of any size.
    smaller = again("sampling", "--runs", "1", "--embedding-size", "8")
    assert [row["what"] for row in smaller] == ["similarity"]
    assert len(again("sampling", "--runs", "2")) == 2


def test_parity_goes_on_network_by_network(
    again: Again, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers: dict[str, Any] = {
        field.name: 1 if field.type == "int" else 1.0
        for field in fields(ParityRow)
        if field.type in ("int", "float", int, float)
    }

    def rows(
        architectures: list[str], sizes_px: list[int], files: list[Path], *, pictures: int
    ) -> list[ParityRow]:
        (architecture,), (size_px,) = architectures, sizes_px
        given = {"size_px": parity.side_px(architecture, size_px), "photographs": pictures}
        return [
            ParityRow(
                **provenance(), architecture=architecture, weights="", folder=files[0].parent.name,
                cpu=cpu_name(), **{**numbers, **given},
            )
        ]  # fmt: skip

    monkeypatch.setattr(parity, "parity_rows", rows)
    for folder in ("photographs", "others"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").touch()
    words = ["parity", "--pictures", "2", "--size-px", "60", "70", "--photographs"]
    words += [str(tmp_path / "photographs"), "--architecture", "vit_small_patch14_dinov2"]
    # Sides are those that patches of 14 px make.
    assert [row["size_px"] for row in again(*words)] == [56, 70]
    assert again(*words) == []
    assert [row["architecture"] for row in again(*words, "resnet18")] == ["resnet18"] * 2
    assert len(again(*words, "--photographs", str(tmp_path / "others"))) == 2
    assert len(again(*words, "--pictures", "3")) == 2


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Runs that loading was measured with; nothing is."""
    found: list[int] = []

    def rows(*, runs: int) -> list[LoadingRow]:
        found.append(runs)
        return [
            LoadingRow(
                **provenance(), recipe=recipe, source_px="", source_kib=1.0, encoder_px="",
                cpu=cpu_name(), runs=runs, images_per_s=9.0, images_per_s_low=8.0,
                images_per_s_high=10.0,
            )
            for recipe in loading.RECIPES
        ]  # fmt: skip

    monkeypatch.setattr(loading, "loading_rows", rows)
    return found


def test_training_speed_goes_on_and_remembers_loading(
    again: Again,
    loaded: list[int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training_speed, "training_speed", training_speed.steps_row)
    words = ["training-speed", "--architecture", "test_resnet", "--size-px", "32", "--pairs", "4"]
    words += ["--seconds", "0", "--threads", "1"]
    assert [row["kind"] for row in again(*words)] == ["loading", "loading", "training-speed"]
    assert again(*words) == []
    assert loaded == [5]
    capsys.readouterr()
    assert [row["run"] for row in again(*words, "--runs", "2")] == [1]
    assert "cores feed these steps" in capsys.readouterr().out
    assert [row["pairs"] for row in again(*words, "--pairs", "6")] == [6]
    assert again("loading", "--runs", "5") == []
    assert len(again("loading", "--runs", "4")) == 2
    assert len(again("loading", "--runs", "5", "--again")) == 2
    assert loaded == [5, 4, 5]


def test_start_up_goes_on_backend_by_backend(
    again: Again, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened = SimpleNamespace(id="abc", close=lambda: None)
    monkeypatch.setattr(Bundle, "open", lambda _: opened)
    monkeypatch.setattr(SatelliteIndex, "open", lambda *_: opened)

    def measure(plan: StartUpPlan, *, say: object) -> list[StartUpRow]:
        return [
            StartUpRow(
                **provenance(), backend=backend, cache=cache, runs=plan.runs, import_s=0.1,
                import_max_s=0.1, first_record_s=1.0, first_record_max_s=1.0, first_ok_s=1.5,
                first_ok_max_s=1.5, frames_to_ok=2.0, source=plan.source, options=plan.options,
                device=cpu_name(), cores=2, load=0.0, bundle_id="abc", index_id="abc",
            )
            for backend in plan.backends for cache in plan.caches
        ]  # fmt: skip

    monkeypatch.setattr(start_up, "measure", measure)
    words = ["start-up", "--runs", "2", "--cache", "warm"]
    for name in ("bundle", "index", "source", "telemetry", "camera"):
        words += [f"--{name}", str(tmp_path / name)]
    assert [row["backend"] for row in again(*words, "--backend", "ort-cpu")] == ["ort-cpu"]
    both = [*words, "--backend", "ort-cpu", "openvino"]
    assert [row["backend"] for row in again(*both)] == ["openvino"]
    assert again(*both) == []
    assert len(again(*both, "--option=--deadline-ms=90")) == 2
    assert again(*both, "--option=--deadline-ms=90") == []
    assert [row["cache"] for row in again(*words, "--backend", "openvino", "--cache", "cold")] == [
        "cold"
    ]


def test_rows_of_another_commit_are_measured_again(
    again: Again, loaded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    again("loading")
    now = provenance()
    later = {**now, "git_commit": "def5678"}
    monkeypatch.setattr("benchmarks.resuming.provenance", lambda: later)
    assert len(again("loading")) == 2
    assert loaded == [5, 5]
