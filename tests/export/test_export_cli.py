import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import edge_runtime.bundle
from edge_runtime.bundle import Bundle
from edge_runtime.satellite_index import SatelliteIndex
from export.cli import main

Export = Callable[[str], Any]


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail; returns its one line on standard error."""
    assert main([str(a) for a in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("export: ")
    return lines[0]


@pytest.fixture
def imagery(
    make_raster: Callable[..., Any], coloured_noise: Callable[..., Any], tmp_path: Path
) -> Path:
    path: Path = make_raster(tmp_path / "map.tif", coloured_noise(), crs="EPSG:3857", side=390).path
    return path


@pytest.mark.parametrize("command", [[], ["bundle"], ["index"]])
def test_help_works_for_every_command(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "usage: python -m export" in said
    if command:
        assert f"\nExample: python -m export {command[0]} " in said


@pytest.mark.usefixtures("quick_export")
def test_bundle_and_index_are_made_from_the_command_line(
    exported: Export, imagery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, out = exported("test_resnet").checkpoint, tmp_path / "bundle"
    probes = tmp_path / "probes"
    probes.mkdir()
    picture = np.random.default_rng(1).integers(0, 256, (80, 80, 3), np.uint8)
    cv2.imwrite(str(probes / "a.JPG"), picture)
    (probes / "notes.txt").write_text("not a photograph")
    arguments = ["--checkpoint", str(checkpoint), "--out", str(out), "--calibration", str(probes)]
    assert main(["bundle", *arguments]) == 0
    said = capsys.readouterr().out
    assert "Bundle with fp32, fp16 written to" in said
    assert f"Next: python -m export index --bundle {out}" in said
    assert 16 < len(Bundle.open(out).probes()[0]) <= 32

    index = tmp_path / "index"
    arguments = ["--imagery", str(imagery), "--bundle", str(out), "--out", str(index)]
    assert main(["index", *arguments, "--backend", "ort-cpu"]) == 0
    said = capsys.readouterr().out
    assert "embedded on CPUExecutionProvider" in said
    assert "Next: skyfix run" in said
    opened = SatelliteIndex.open(index, Bundle.open(out))
    opened.close()
    # The encoder was made for 40 m, and the stride is a quarter of it.
    assert (opened.level.size_m, opened.level.stride_m) == (40.0, 10.0)
    assert len(opened) == 17 * 17


@pytest.mark.usefixtures("quick_export")
def test_an_index_of_ones_own_is_the_last_gate(
    exported: Export, imagery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, out, index = exported("test_resnet"), tmp_path / "bundle", tmp_path / "index"
    arguments = ["--imagery", str(imagery), "--bundle", str(made.bundle), "--out", str(index)]
    assert main(["index", *arguments, "--backend", "ort-cpu"]) == 0
    capsys.readouterr()
    arguments = ["--checkpoint", str(made.checkpoint), "--out", str(out), "--index", str(index)]
    assert main(["bundle", *arguments]) == 0
    said = capsys.readouterr().out
    assert "on the index recall@1" in said
    bundle = Bundle.open(out)
    for precision in ("fp32", "fp16"):
        measured = bundle.precisions[precision]["on_index"]
        assert (measured["queries"], measured["tiles"]) == (200, 17 * 17)
        assert measured["reference"] == bundle.precisions["fp32"]["on_index"]["reference"]
        assert measured["found"]["recall_at_10"] > 0


def test_an_index_that_is_none_is_refused_before_anything_is_exported(
    exported: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = exported("test_resnet")
    line = refused(
        capsys,
        *("bundle", "--checkpoint", made.checkpoint, "--out", tmp_path / "b"),
        *("--index", made.bundle),
    )
    assert "is a bundle folder; expected an index" in line
    assert list(tmp_path.iterdir()) == []


def test_an_engine_without_tensorrt_is_refused_before_minutes_are_spent(
    exported: Export,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    checkpoint = exported("test_resnet").checkpoint
    line = refused(
        capsys, "bundle", "--checkpoint", checkpoint, "--out", tmp_path / "b", "--engine"
    )
    assert "TensorRT" in line or "CUDA" in line
    assert list(tmp_path.iterdir()) == []


def test_a_missing_checkpoint_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing, out = tmp_path / "nothing", tmp_path / "bundle"
    line = refused(capsys, "bundle", "--checkpoint", missing, "--out", out)
    assert "expected a folder written by python -m train, a file of" in line
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_given_as_checkpoint_is_one_line(
    exported: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = exported("test_resnet").bundle
    line = refused(capsys, "bundle", "--checkpoint", bundle, "--out", tmp_path / "b")
    assert "is a bundle folder; expected a checkpoint" in line


def test_a_missing_calibration_folder_is_one_line(
    exported: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, out = exported("test_resnet").checkpoint, tmp_path / "b"
    line = refused(
        capsys, "bundle", "--checkpoint", checkpoint, "--out", out, "--calibration", tmp_path / "no"
    )
    assert "expected a folder of photographs or a raster" in line


def test_a_missing_bundle_is_one_line(
    imagery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(
        capsys, "index", "--imagery", imagery, "--bundle", tmp_path / "no", "--out", tmp_path / "i"
    )
    assert "Make one with: python -m export bundle" in line


@pytest.mark.parametrize("content", [None, b"not a raster"])
def test_missing_or_unreadable_imagery_is_one_line_and_leaves_nothing(
    content: bytes | None, exported: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "map.tif", tmp_path / "out"
    out.mkdir()
    if content is not None:
        path.write_bytes(content)
    bundle = exported("test_resnet").bundle
    line = refused(capsys, "index", "--imagery", path, "--bundle", bundle, "--out", out / "index")
    assert "expected a georeferenced raster" in line
    assert list(out.iterdir()) == []


def test_an_unknown_backend_is_one_line_with_the_known_ones(
    exported: Export, imagery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = exported("test_resnet").bundle
    arguments = ["--imagery", imagery, "--bundle", bundle, "--out", tmp_path / "i"]
    line = refused(capsys, "index", *arguments, "--backend", "abacus")
    assert "abacus" in line
    assert "ort-cpu" in line


def test_no_tile_size_where_the_bundle_has_none_is_one_line(
    exported: Export,
    imagery: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sound = Bundle.open(exported("test_resnet").bundle)
    unsaid = replace(sound, spec=replace(sound.spec, ground_size_m=None))
    monkeypatch.setattr(edge_runtime.bundle.Bundle, "open", lambda _root: unsaid)
    arguments = ["--imagery", imagery, "--bundle", sound.root, "--out", tmp_path / "i"]
    assert "give --tile-m" in refused(capsys, "index", *arguments)
    assert not (tmp_path / "i").exists()


@pytest.mark.parametrize(
    "sizes", [["--tile-m", "-5"], ["--tile-m", "40", "--stride-m", "50"], ["--stride-m", "-1"]]
)
def test_sizes_that_make_no_sense_are_one_line(
    sizes: list[str],
    exported: Export,
    imagery: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = exported("test_resnet").bundle
    arguments = ["--imagery", imagery, "--bundle", bundle, "--out", tmp_path / "i"]
    line = refused(capsys, "index", *arguments, "--backend", "ort-cpu", *sizes)
    assert "expected 0 < stride <= size" in line


@pytest.mark.parametrize("size", ["--tile-m", "--stride-m"])
def test_a_size_of_nothing_is_one_line(
    size: str,
    exported: Export,
    imagery: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = exported("test_resnet").bundle
    arguments = ["--imagery", imagery, "--bundle", bundle, "--out", tmp_path / "i"]
    refused(capsys, "index", *arguments, "--backend", "ort-cpu", size, "0")


def test_an_altered_bundle_is_one_line(
    exported: Export, imagery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    bundle = tmp_path / "bundle"
    shutil.copytree(exported("test_resnet").bundle, bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["meta"]["encoder"]["mean"] = [0.0, 0.0, 0.0]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    arguments = ["--imagery", imagery, "--bundle", bundle, "--out", tmp_path / "i"]
    assert "Copy the bundle folder again" in refused(capsys, "index", *arguments)
