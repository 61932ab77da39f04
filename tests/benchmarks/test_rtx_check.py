import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.rtx_check import Build, check_all, encoders, main, table, use_tensorrt_rtx
from edge_runtime.errors import InputError

ENCODER = "convnext_atto.d2_in1k"
BUILT = Build(
    encoder=ENCODER,
    size_px=224,
    precision="fp32",
    nodes=138,
    onnx_mb=13.5,
    plan_mb=17.8,
    seconds=2.3,
    verdict="built",
)


class Commands:
    """Stands in for the processes: answers by what a command holds, and remembers all."""

    def __init__(self, **answers: tuple[int, str, str]) -> None:
        self.answers = {"benchmarks.rtx_behaviour": (0, '{"it works": "as it should"}', "")}
        self.answers |= answers
        self.seen: list[list[str]] = []

    def __call__(self, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        self.seen.append(list(command))
        for word, (status, out, err) in self.answers.items():
            if word in command:
                return subprocess.CompletedProcess(command, status, out, err)
        return subprocess.CompletedProcess(command, 0, "", "")


def test_every_family_of_the_project_is_tried_at_a_size_it_takes() -> None:
    from train.encoder_families import FAMILIES, family_of

    sizes = encoders()
    assert {family.architecture for family in FAMILIES} <= set(sizes)
    for name, size_px in sizes.items():
        assert 224 <= size_px <= 384
        assert size_px % family_of(name).size_multiple_px == 0


def test_a_crash_in_one_precision_is_a_row_and_the_rest_goes_on(tmp_path: Path) -> None:
    run = Commands(
        fp32=(0, "warning\n" + json.dumps(asdict(BUILT)), ""), fp16=(-11, "", "Segmentation fault")
    )
    builds, _ = check_all([ENCODER], site=tmp_path, work=tmp_path / "work", run=run)
    assert builds[0] == BUILT
    assert builds[1].verdict == "Segmentation fault (exit status -11)"
    rows = (tmp_path / "work" / "rows.jsonl").read_text().splitlines()
    assert [Build(**json.loads(row)) for row in rows] == builds


def test_an_encoder_that_does_not_export_is_one_row_with_the_reason(tmp_path: Path) -> None:
    run = Commands(**{"--export": (2, "", "rtx-check: encoder.fp32.onnx: a foreign node")})
    (build,), behaviour = check_all([ENCODER], site=tmp_path, work=tmp_path / "work", run=run)
    assert build.verdict == (
        "not exported: rtx-check: encoder.fp32.onnx: a foreign node (exit status 2)"
    )
    assert len(run.seen) == 1
    assert list(behaviour.values()) == ["not tried: nothing was built"]


def test_each_file_is_built_in_a_process_of_its_own(tmp_path: Path) -> None:
    run = Commands(**{"--build": (0, json.dumps(asdict(BUILT)), "")})
    check_all([ENCODER], site=tmp_path / "site", work=tmp_path, run=run)
    builds = [command for command in run.seen if "--build" in command]
    assert [command[command.index("--precision") + 1] for command in builds] == ["fp32", "fp16"]


def test_the_builder_is_tried_on_the_smallest_bundle_and_its_crash_is_a_verdict(
    tmp_path: Path,
) -> None:
    run = Commands(
        **{"--build": (0, json.dumps(asdict(BUILT)), "")},
        **{"benchmarks.rtx_behaviour": (-6, "", "Aborted")},
    )
    _, behaviour = check_all([ENCODER], site=tmp_path, work=tmp_path, run=run)
    assert run.seen[-1][-1] == str(tmp_path / ENCODER)
    assert list(behaviour.values()) == ["Aborted (exit status -6)"]
    assert "* the builder's behaviour: Aborted" in (tmp_path / "table.md").read_text()


def test_the_table_shows_what_is_not_known_as_a_dash() -> None:
    failed = Build(encoder="e", size_px=224, precision="fp16", verdict="refused")
    assert table([failed]).splitlines()[-1] == "| e | 224 | fp16 | - | - | - | - | refused |"


def test_missing_libraries_are_named_with_the_command_that_fetches_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="make rtx-check"):
        use_tensorrt_rtx(tmp_path)


def test_an_unknown_encoder_ends_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["resnet_of_mine", "--work", str(tmp_path)]) == 2
    assert "resnet_of_mine is not among the encoders" in capsys.readouterr().err
