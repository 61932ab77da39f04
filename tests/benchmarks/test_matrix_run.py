"""From nothing to rows, with a network so small that all of it takes seconds."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from benchmarks.cli import main
from benchmarks.matrix import runtimes
from benchmarks.matrix.encoder_making import timed_bundle
from benchmarks.matrix.flight_pictures import Flight, pictures
from benchmarks.matrix.pictures import load_pictures, save_pictures
from benchmarks.matrix.runtimes import Runtime, open_runtime
from benchmarks.random_checkpoint import random_checkpoint
from benchmarks.rows import read_rows
from edge_runtime.backends import trt_ort_cache
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BackendError, InputError
from edge_runtime.geodesy import move_lat_lon
from edge_runtime.imagery import ImageryStore
from edge_runtime.precision import Precision
from edge_runtime.preprocess import EncoderSpec
from edge_runtime.satellite_imagery import write_mbtiles
from train.encoder import load_checkpoint
from train.world import WorldConfig, make_world

SIZE_PX = 64
ARCHITECTURE = "mobilenetv4_conv_small_050"
U8 = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("matrix") / "world"
    make_world(
        root,
        WorldConfig(
            seed=5,
            train_size_m=400.0,
            train_photos=0,
            held_out_size_m=560.0,
            flights=1,
            frames_per_flight=12,
        ),
    )
    return root


@pytest.fixture(scope="module")
def flight(world: Path) -> Flight:
    imagery = world.parent / "world.mbtiles"
    write_mbtiles([world / "held_out" / "imagery.tif"], imagery)
    flown = world / "held_out" / "flight_1"
    return Flight(
        source=flown / "frames",
        telemetry=flown / "telemetry.csv",
        truth=flown / "truth.csv",
        camera=world / "held_out" / "camera.json",
        imagery=imagery,
        index=None,
        data="a small world",
    )


@pytest.fixture(scope="module")
def spec() -> EncoderSpec:
    return EncoderSpec(
        architecture="none", height_px=SIZE_PX, width_px=SIZE_PX, embedding_size=8,
        mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), ground_size_m=80.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(world: Path) -> Path:
    root = world.parent / "checkpoint"
    random_checkpoint(ARCHITECTURE, SIZE_PX, root)
    return root


@pytest.fixture(scope="module")
def bundle(world: Path, checkpoint: Path) -> Path:
    root = world.parent / "bundle"
    timed_bundle(load_checkpoint(checkpoint), root, world / "held_out" / "imagery.tif")
    return root


@pytest.fixture
def images() -> U8:
    return np.random.default_rng(0).integers(0, 256, (3, SIZE_PX, SIZE_PX, 3), np.uint8)


def test_a_view_looks_like_its_true_place_and_not_like_one_40_m_off(
    flight: Flight, spec: EncoderSpec
) -> None:
    found = pictures(flight, spec, queries=6, tiles=20)
    store = ImageryStore(flight.imagery)
    there: list[float] = []
    away: list[float] = []
    for query, (lat, lon) in zip(found.queries, found.query_places, strict=True):
        off = move_lat_lon(lat, lon, 28.0, 28.0)
        for place, kept in (((lat, lon), there), ((off.lat_deg, off.lon_deg), away)):
            patch = store.patch(float(place[0]), float(place[1]), size_m=80.0, size_px=SIZE_PX)
            grey = [np.asarray(a, np.float64).mean(axis=2).ravel() for a in (query, patch.image)]
            kept.append(float(np.corrcoef(*grey)[0, 1]))
    assert np.mean(there) > np.mean(away) + 0.2


def test_the_gallery_holds_every_querys_own_tile(flight: Flight, spec: EncoderSpec) -> None:
    few = pictures(flight, spec, queries=6, tiles=20)
    many = pictures(flight, spec, queries=6, tiles=10_000)
    assert len(few.tiles) == 20
    assert len(many.tiles) > 100
    rows = {tuple(place) for place in few.tile_places}
    for lat, lon in many.query_places:
        # Nearest by degrees, longitude shrunk: as good as by metres on so small a ground.
        apart = (many.tile_places - (lat, lon)) * (1.0, np.cos(np.radians(lat)))
        assert tuple(many.tile_places[int((apart**2).sum(axis=1).argmin())]) in rows


def test_a_truth_of_other_frames_is_refused(
    flight: Flight, spec: EncoderSpec, tmp_path: Path
) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text("filename,lat_deg,lon_deg\nother.jpg,47.0,15.0\n")
    with pytest.raises(InputError, match="expected the same file names"):
        pictures(replace(flight, truth=truth), spec, queries=2, tiles=4)


def test_pictures_are_read_as_they_were_written(
    flight: Flight, spec: EncoderSpec, tmp_path: Path
) -> None:
    found = pictures(flight, spec, queries=2, tiles=4)
    save_pictures(found, tmp_path)
    back = load_pictures(tmp_path)
    assert back.data == found.data == "a small world: 2 views, 4 tiles of 80 m"
    for one, other in zip(back[:4], found[:4], strict=True):
        np.testing.assert_array_equal(one, other)


def _open(bundle: Path, checkpoint: Path | None, name: str, precision: str) -> Runtime:
    return open_runtime(
        name,  # type: ignore[arg-type]
        precision,  # type: ignore[arg-type]
        bundle=bundle,
        checkpoint=checkpoint,
        engines=bundle / "engines",
        batch=1,
        threads=1,
    )


@pytest.mark.parametrize("name", ["torch-eager", "ort-cpu", "openvino"])
def test_runtimes_in_fp32_answer_as_the_encoder_itself(
    name: str, bundle: Path, checkpoint: Path, images: U8
) -> None:
    if name == "openvino":
        pytest.importorskip("openvino")
    with torch.inference_mode():
        expected = load_checkpoint(checkpoint).encoder(torch.from_numpy(images)).numpy()
    runtime = _open(bundle, checkpoint, name, "fp32")
    np.testing.assert_allclose(runtime.embed(images), expected, atol=2e-4)
    assert runtime.info.threads == 1
    runtime.synchronise()
    runtime.close()


def test_the_int8_file_is_another_encoder_and_a_smaller_one(
    bundle: Path, checkpoint: Path, images: U8
) -> None:
    fp32, int8 = (_open(bundle, checkpoint, "ort-cpu", number) for number in ("fp32", "int8"))
    assert fp32.info.model_sha256 != int8.info.model_sha256
    sizes = [(bundle / f"encoder.{number}.onnx").stat().st_size for number in ("fp32", "int8")]
    assert sizes[1] < 0.5 * sizes[0]
    found = int8.embed(images)
    assert not np.allclose(found, fp32.embed(images), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-3)


def test_fp16_on_the_cpu_says_that_it_is_not(bundle: Path, checkpoint: Path) -> None:
    assert any("not fp16" in n for n in _open(bundle, checkpoint, "ort-cpu", "fp16").info.notes)


def test_torch_without_its_checkpoint_is_refused(bundle: Path) -> None:
    with pytest.raises(BackendError, match="name it with --checkpoint"):
        _open(bundle, None, "torch-eager", "fp32")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_of_torch_needs_a_gpu(
    bundle: Path, checkpoint: Path, precision: str
) -> None:
    with pytest.raises(BackendError, match=f"measured in {precision} on CUDA alone"):
        _open(bundle, checkpoint, "torch-eager", precision)


def test_a_precision_that_was_refused_says_by_whom(bundle: Path, tmp_path: Path) -> None:
    from benchmarks.matrix.runtimes import _require_precision

    opened = Bundle.open(bundle)
    shipped: dict[Precision, dict[str, Any]] = {"fp32": opened.precisions["fp32"]}
    meta = opened.manifest.meta | {"refused": {"int8": "int8: lowest cosine 0.5"}}
    poorer = replace(opened, precisions=shipped, manifest=replace(opened.manifest, meta=meta))
    with pytest.raises(BackendError, match=r"export refused lowest cosine 0\.5"):
        _require_precision(poorer, "int8")
    with pytest.raises(BackendError, match="has no fp16 encoder, only fp32"):
        _require_precision(poorer, "fp16")


@pytest.mark.parametrize("fresh", [True, False])
def test_the_cache_of_onnx_runtimes_tensorrt_is_built_only_where_none_is_fresh(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, *, fresh: bool
) -> None:
    class Reached(Exception):  # noqa: N818
        """Where the provider itself is needed."""

    built: list[dict[str, Any]] = []

    def reached(*_: Any, **__: Any) -> None:
        raise Reached

    monkeypatch.setattr(runtimes, "cuda_device", lambda: None)
    found = [SimpleNamespace(fresh=False), SimpleNamespace(fresh=fresh)]
    monkeypatch.setattr(trt_ort_cache, "check_ort_tensorrt", lambda *_, **__: found)
    monkeypatch.setattr(trt_ort_cache, "prepare_ort_tensorrt", lambda _, **how: built.append(how))
    monkeypatch.setattr(trt_ort_cache, "open_ort_tensorrt", reached)
    with pytest.raises(Reached):
        _open(bundle, None, "ort-tensorrt", "fp32")
    prepared = {"precision": "fp32", "max_batch": 32, "out": bundle / "engines"}
    assert built == ([] if fresh else [prepared])


@pytest.mark.slow
@pytest.mark.usefixtures("outside_a_checkout")
def test_one_command_goes_from_nothing_to_complete_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "COLUMNS", "80")
    out = tmp_path / "rows.jsonl"
    command = [
        *("matrix", "--encoder", f"{ARCHITECTURE}:{SIZE_PX}", "--seconds", "0.1", "--calls", "3"),
        *("--quality-s", "0.1", "--precision", "fp32", "--work", str(tmp_path / "work")),
        *("--runtime", "torch-eager", "ort-cpu", "tensorrt", "--threads", "1", "--out", str(out)),
    ]
    assert main(command) == 0
    printed = capsys.readouterr().out
    rows = read_rows(out)
    assert [row["kind"] for row in rows] == ["measurement", "measurement", "not_run"]
    for row in rows[:2]:
        assert row["time"]["n"] >= 3
        assert row["memory"]["host_peak_mib"] > row["memory"]["host_before_mib"] > 0
        assert row["limit"]["ratio"] > 0
        assert row["energy"]["joules_per_call"] is not None or row["energy"]["skipped"]
        assert row["quality"]["min_cosine"] > 0.9999
        assert row["quality"]["recall_at_1"] is None
        assert "no recall: the weights are not trained" in row["quality"]["data"]
        assert row["weights"].startswith("random")
        assert row["bundle_id"]
    assert rows[0]["provider"].startswith("torch")
    assert rows[1]["provider"] == "CPUExecutionProvider"
    assert f"next: python -m benchmarks results {out}" in printed
    assert "Not run" in printed

    assert main(command) == 0
    assert read_rows(out) == rows
    assert "as before" in capsys.readouterr().err
