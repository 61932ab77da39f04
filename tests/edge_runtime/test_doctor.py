"""What works on this machine, and the command that mends what does not."""

import importlib.util
import json
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from edge_runtime.cli import main
from edge_runtime.doctor import Finding, examine

pytest.importorskip("onnxruntime")


def found(findings: list[Finding], what: str) -> Finding:
    (finding,) = (f for f in findings if f.what == what)
    return finding


@pytest.fixture
def broken_bundle(make_bundle: Callable[..., Path], tmp_path: Path) -> Path:
    root = make_bundle(tmp_path / "bundle")
    probes = root / "probes.npz"
    probes.write_bytes(probes.read_bytes()[:-1])
    return root


def test_everything_that_is_needed_works_here() -> None:
    findings = examine()
    needed = [f.what for f in findings if f.needed]
    assert {"Python", "numpy", "opencv", "usearch", "onnxruntime", "provider CPU"} <= set(needed)
    assert [f.what for f in findings if f.needed and f.verdict != "works"] == []


def test_every_finding_is_said_once_and_says_something() -> None:
    findings = examine()
    names = [f.what for f in findings]
    assert len(names) == len(set(names))
    assert all(f.detail for f in findings)
    assert all("\n" not in f.detail + f.remedy for f in findings)


def test_a_missing_library_comes_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in ("usearch", "pymavlink") else original(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    findings = examine()
    usearch, mavlink = found(findings, "usearch"), found(findings, "pymavlink")
    assert (usearch.verdict, usearch.needed) == ("missing", True)
    assert usearch.remedy == "pip install usearch"
    assert (mavlink.verdict, mavlink.needed) == ("missing", False)
    assert mavlink.remedy == "pip install 'skyfix[mavlink]'"


def test_a_sound_bundle_and_index_work(bundle_dir: Path, index_dir: Path) -> None:
    findings = examine(bundle_dir, index_dir)
    assert found(findings, "bundle").verdict == "works"
    assert "lowest cosine 1.000000" in found(findings, "bundle").detail
    assert "ms a frame, fp32, lowest cosine 1.000000" in found(findings, "backend ort-cpu").detail
    assert found(findings, "index").verdict == "works"
    assert "tiles of 80 m" in found(findings, "index").detail


def test_a_broken_bundle_is_shown_as_broken(broken_bundle: Path, index_dir: Path) -> None:
    finding = found(examine(broken_bundle, index_dir), "bundle")
    assert (finding.verdict, finding.needed) == ("broken", True)
    assert "probes.npz" in finding.detail


def test_an_index_of_another_encoder_is_shown_as_broken(
    make_bundle: Callable[..., Path], index_dir: Path, tmp_path: Path
) -> None:
    other = make_bundle(tmp_path / "bundle", weights_sha256="cd" * 32)
    findings = examine(other, index_dir)
    assert found(findings, "bundle").verdict == "works"
    assert found(findings, "index").verdict == "broken"
    assert "was made by encoder" in found(findings, "index").detail


def test_an_index_alone_is_examined_too(tmp_path: Path, index_dir: Path) -> None:
    assert found(examine(index=tmp_path), "index").verdict == "broken"
    sound = found(examine(index=index_dir), "index")
    assert sound.verdict == "works"
    assert sound.detail.endswith("not checked against a bundle")


def test_the_exit_status_is_0_where_all_works(
    bundle_dir: Path, index_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--bundle", str(bundle_dir), "--index", str(index_dir)]) == 0
    out, err = capfd.readouterr()
    assert "bundle" in out
    assert err == ""


def test_the_exit_status_is_1_where_something_needed_is_broken(
    broken_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--bundle", str(broken_bundle)]) == 1
    assert "bundle" in capfd.readouterr().out


def test_programs_read_json(
    bundle_dir: Path, index_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--json", "--bundle", str(bundle_dir), "--index", str(index_dir)]) == 0
    findings = [Finding(**value) for value in json.loads(capfd.readouterr().out)]
    assert {f.verdict for f in findings} <= {"works", "note", "missing", "broken"}
    assert found(findings, "index").verdict == "works"
