"""`skyfix engine …` as typed, on a machine with stand-ins for TensorRT and a GPU."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edge_runtime.cli import main
from edge_runtime.doctor import examine
from edge_runtime.engine_progress import BuildLine

if TYPE_CHECKING:
    from tests.edge_runtime.engines.stand_in_cuda import Gpu

NAME = "thumbnail-12-32x32-b4-fp32-trt10.3.0-sm87.engine"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def built(gpu: "Gpu", own_bundle: Path, capfd: Capture) -> Path:
    """A bundle with an engine."""
    assert main(["engine", "build", str(own_bundle), "--max-batch", "4"]) == 0
    capfd.readouterr()
    return own_bundle


def test_a_build_says_what_it_made_and_what_comes_next(
    gpu: "Gpu", own_bundle: Path, capfd: Capture
) -> None:
    assert main(["engine", "build", str(own_bundle), "--max-batch", "4"]) == 0
    out, err = capfd.readouterr()
    assert f"Built {own_bundle}/engines/{NAME}" in out
    assert "lowest cosine to the trained encoder 1.000000" in out
    assert out.endswith(f"Next: skyfix bundle verify {own_bundle} --backend tensorrt\n")
    assert "ort-tensorrt was not prepared" not in err


def test_options_are_passed_on(
    gpu: "Gpu", own_bundle: Path, tmp_path: Path, capfd: Capture
) -> None:
    gpu.integrated = False
    command = "--precision fp32 --max-batch 2 --optimisation-level 1 --workspace-gib 0.5"
    more = f"--version-compatible --hardware-compatible --no-refit --out {tmp_path / 'out'} --json"
    assert main(["engine", "build", str(own_bundle), *command.split(), *more.split()]) == 0
    record = json.loads(capfd.readouterr().out)["tensorrt"]
    assert record["options"] == {
        "precision": "fp32",
        "max_batch": 2,
        "optimisation_level": 1,
        "workspace_bytes": 1 << 29,
        "version_compatible": True,
        "hardware_compatible": True,
        "refit": False,
    }
    assert (tmp_path / "out" / record["name"]).exists()


@pytest.mark.parametrize(
    "options", [["--workspace-gib", "0"], ["--workspace-gib", "nan"], ["--max-batch", "0"]]
)
def test_an_option_that_makes_no_sense_is_one_line(
    gpu: "Gpu", own_bundle: Path, capfd: Capture, options: list[str]
) -> None:
    assert main(["engine", "build", str(own_bundle), *options]) == 2
    assert one_line(capfd)
    assert gpu.builds == 0


def one_line(capfd: Capture) -> str:
    out, err = capfd.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith("[")]
    assert len(lines) == 1, err
    assert lines[0].startswith("skyfix: ")
    return lines[0]


def no_gpu(gpu: "Gpu", monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.count = 0


def no_tensorrt(gpu: "Gpu", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)


def refused(gpu: "Gpu", monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.parser_errors = ["no importer for Weird"]


def full_gpu(gpu: "Gpu", monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.build = "out of memory"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (no_gpu, "no CUDA device was found"),
        (no_tensorrt, "tensorrt cannot be loaded"),
        (refused, "no importer for Weird"),
        (full_gpu, "the GPU ran out of memory"),
    ],
)
def test_what_goes_wrong_is_one_line(
    gpu: "Gpu",
    own_bundle: Path,
    capfd: Capture,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[["Gpu", pytest.MonkeyPatch], None],
    says: str,
) -> None:
    spoil(gpu, monkeypatch)
    assert main(["engine", "build", str(own_bundle)]) == 2
    assert says in one_line(capfd)


def test_a_stopped_build_says_so_and_leaves_the_engine(
    gpu: "Gpu", built: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (built / "engines" / NAME).read_bytes()
    gpu.build = "until cancelled"

    def stop(self: BuildLine, phase: str, done: int, steps: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(BuildLine, "__call__", stop)
    assert main(["engine", "build", str(built), "--max-batch", "4"]) == 130
    assert one_line(capfd) == "skyfix: stopped; engines are as they were"
    assert (built / "engines" / NAME).read_bytes() == before


def test_ort_tensorrt_that_was_asked_for_must_work(
    gpu: "Gpu", own_bundle: Path, capfd: Capture
) -> None:
    assert main(["engine", "build", str(own_bundle), "--for", "ort-tensorrt"]) == 2
    assert "has no TensorrtExecutionProvider" in one_line(capfd)
    assert gpu.builds == 0


@pytest.mark.parametrize("command", ["build", "check", "list", "refit"])
def test_help_loads_nothing_heavy(command: str) -> None:
    code = (
        "import sys\n"
        "from edge_runtime.cli import main\n"
        f"try: main(['engine', {command!r}, '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'numpy', 'cv2', 'onnxruntime', 'tensorrt', 'pycuda'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Example: skyfix engine {command}" in done.stdout


# --- list, check, refit --------------------------------------------------------------------------


def test_a_fresh_engine_is_listed_and_passes_the_check(built: Path, capfd: Capture) -> None:
    assert main(["engine", "list", str(built)]) == 0
    assert capfd.readouterr().out.startswith(f"{NAME}: 0.0 MB, TensorRT 10.3.0, Orin, built in")
    assert main(["engine", "check", str(built)]) == 0
    assert capfd.readouterr().out == f"{NAME}: fresh\n"


def test_a_list_needs_neither_gpu_nor_tensorrt(
    gpu: "Gpu", built: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu.count = 0
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert main(["engine", "list", str(built), "--json"]) == 0
    (engine,) = json.loads(capfd.readouterr().out)
    assert engine["record"]["name"] == NAME
    assert engine["fresh"] is True


def test_a_stale_engine_fails_the_check_with_the_command(
    gpu: "Gpu", built: Path, capfd: Capture
) -> None:
    gpu.name = "Orin NX"
    assert main(["engine", "check", str(built)]) == 2
    assert capfd.readouterr().out == (
        f"{NAME}: GPU is Orin, here it is Orin NX. Run: skyfix engine build {built} "
        "--precision fp32\n"
    )
    assert main(["engine", "check", str(built), "--json"]) == 2
    (engine,) = json.loads(capfd.readouterr().out)
    assert engine["differences"] == [{"what": "GPU", "engine": "Orin", "here": "Orin NX"}]
    assert gpu.builds == 1, "nothing is built unless that was asked for"


def test_no_engine_fails_the_check_with_the_command(
    gpu: "Gpu", own_bundle: Path, capfd: Capture
) -> None:
    for command, status in (("check", 2), ("list", 0)):
        assert main(["engine", command, str(own_bundle)]) == status
        assert f"has no engine. Run: skyfix engine build {own_bundle}" in capfd.readouterr().out


def test_a_rebuild_replaces_what_does_not_fit_with_the_same_options(
    gpu: "Gpu", built: Path, upgrade: Callable[[str], None], capfd: Capture
) -> None:
    upgrade("10.13.3.9")
    assert main(["engine", "check", str(built), "--rebuild"]) == 0
    new = NAME.replace("10.3.0", "10.13.3.9")
    assert capfd.readouterr().out == f"{new}: fresh\n"
    names = sorted(path.name for path in (built / "engines").iterdir())
    assert names == [new, new.replace(".engine", ".json")]


def test_a_rebuild_where_there_is_nothing_builds_an_engine(gpu: "Gpu", own_bundle: Path) -> None:
    assert main(["engine", "check", str(own_bundle), "--rebuild"]) == 0
    assert gpu.builds == 1


def test_a_check_of_nothing_needs_no_gpu(gpu: "Gpu", own_bundle: Path, capfd: Capture) -> None:
    gpu.count = 0
    assert main(["engine", "check", str(own_bundle)]) == 2
    assert "has no engine. Run: skyfix engine build" in capfd.readouterr().out


def test_a_check_of_an_engine_without_a_gpu_is_one_line(
    gpu: "Gpu", built: Path, capfd: Capture
) -> None:
    gpu.count = 0
    assert main(["engine", "check", str(built)]) == 2
    assert "no CUDA device was found" in one_line(capfd)


def test_a_rebuild_leaves_fresh_engines_alone(gpu: "Gpu", built: Path) -> None:
    assert main(["engine", "check", str(built), "--rebuild"]) == 0
    assert gpu.builds == 1


@pytest.mark.parametrize("spoil", ["plan", "sidecar"])
def test_a_rebuild_mends_damage(gpu: "Gpu", built: Path, spoil: str) -> None:
    path = built / "engines" / NAME
    (path if spoil == "plan" else path.with_suffix(".json")).write_bytes(b"{}")
    assert main(["engine", "check", str(built)]) == 2
    assert main(["engine", "check", str(built), "--rebuild"]) == 0


def test_a_refit_says_that_the_index_must_follow(
    gpu: "Gpu", built: Path, make_bundle: Callable[..., Path], tmp_path: Path, capfd: Capture
) -> None:
    new = make_bundle(tmp_path / "new", weights_sha256="cd" * 32)
    assert main(["engine", "refit", str(new), "--from", str(built)]) == 0
    out = capfd.readouterr().out
    assert f"Refitted {new}/engines/{NAME}" in out
    assert "index made by the old encoder no longer fits. Next: python -m export index" in out
    assert main(["engine", "list", str(new)]) == 0
    assert "refitted" in capfd.readouterr().out


def test_a_refit_from_nothing_is_one_line(gpu: "Gpu", built: Path, capfd: Capture) -> None:
    assert main(["engine", "refit", str(built), "--from", "absent.engine"]) == 2
    assert "absent.engine does not exist" in one_line(capfd)


def test_a_verified_bundle_may_name_the_backend(built: Path, capfd: Capture) -> None:
    assert main(["bundle", "verify", str(built), "--backend", "tensorrt"]) == 0
    out = capfd.readouterr().out
    assert f"fp32 on TensorRT: lowest probe cosine 1.000000; {NAME} " in out


def test_a_verified_bundle_says_why_its_engine_was_not_taken(
    gpu: "Gpu", built: Path, capfd: Capture
) -> None:
    gpu.name = "Orin NX"
    assert main(["bundle", "verify", str(built)]) == 0
    out = capfd.readouterr().out
    assert "fp32 on CPUExecutionProvider" in out
    assert "tensorrt was not taken: " in out
    assert f"Run: skyfix engine build {built}" in out
    detail = {f.what: f for f in examine(built)}["bundle"].detail
    assert "GPU is Orin, here it is Orin NX" in detail


# --- doctor and the progress line ----------------------------------------------------------------


def test_the_doctor_describes_the_gpu_and_finds_the_engine(gpu: "Gpu", built: Path) -> None:
    findings = {f.what: f for f in examine(built)}
    assert findings["GPU"].detail == (
        "Orin, compute capability 8.7, 8.0 GiB, 4.0 GiB free, driver 540.4.0, CUDA 12.6"
    )
    assert findings["engines"].verdict == "works"
    assert findings[f"engine {NAME}"].verdict == "works"
    assert "probes through TensorRT fp32" in findings["bundle"].detail


def test_the_doctor_names_a_stale_engine_with_its_command(gpu: "Gpu", built: Path) -> None:
    gpu.name = "Orin NX"
    finding = {f.what: f for f in examine(built)}[f"engine {NAME}"]
    assert (finding.verdict, finding.needed) == ("broken", False)
    assert finding.detail == "GPU is Orin, here it is Orin NX"
    assert finding.remedy == f"skyfix engine build {built} --precision fp32"


def test_the_doctor_says_that_no_engine_was_built(gpu: "Gpu", own_bundle: Path) -> None:
    finding = {f.what: f for f in examine(own_bundle)}["engine"]
    assert finding.remedy == f"skyfix engine build {own_bundle}"


def test_progress_is_a_line_a_phase_where_there_is_no_terminal(capfd: Capture) -> None:
    line = BuildLine()
    for step in range(50):
        line("Building Engine", step, 50)
    line.close()
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert "0/50 Building Engine" in err


def test_progress_rewrites_its_line_on_a_terminal(
    capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    line = BuildLine()
    line("Building Engine", 25, 50)
    line("Building Engine", 50, 50)
    line.close()
    line.close()
    err = capfd.readouterr().err
    assert "[############............] 25/50" in err
    assert err.count("\n") == 1
    assert err.endswith("\n")
