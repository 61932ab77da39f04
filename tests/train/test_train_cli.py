import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from train.cli import main
from train.commands import _model_arg
from train.encoder import Encoder, load_checkpoint, save_checkpoint
from train.timm_import import timm

MakeEncoder = Callable[..., Encoder]
SMALL = [
    "architecture=test_resnet",
    "size_px=64",
    "ground_size_m=48",
    "epochs=1",
    "batch_size=8",
    "shift_m=4",
    "threads=1",
]


def settings(*items: str) -> list[str]:
    return [word for item in items for word in ("--set", item)]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail; returns its one line on standard error."""
    assert main(arguments) == 2
    streams = capsys.readouterr()
    lines = streams.err.splitlines()
    assert len(lines) == 1, streams.err
    assert lines[0].startswith("train: ")
    return lines[0]


@pytest.mark.parametrize(
    "command", [[], ["world"], ["fit"], ["adapt"], ["eval"], ["import-weights"]]
)
def test_help_works_for_every_command(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "usage: python -m train" in said
    if command:
        assert f"\nExample: python -m train {command[0]} " in said


def test_a_checkpoint_is_trained_and_evaluated_from_the_command_line(
    tiny_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world, out = tmp_path / "world", tmp_path / "ckpt"
    shutil.copytree(tiny_world, world)
    assert main(["fit", "--world", str(world), "--out", str(out), *settings(*SMALL)]) == 0
    said = capsys.readouterr().out
    assert "epoch 1/1: loss " in said
    assert f"python -m export bundle --checkpoint {out}" in said
    assert load_checkpoint(out).encoder.spec.ground_size_m == 48.0

    # The tiny world has no flights: its training part, laid out as one, stands in for them.
    shutil.copytree(world / "train", world / "held_out", dirs_exist_ok=True)
    shutil.copytree(world / "train", world / "held_out" / "flight_1")
    (world / "held_out/flight_1/photos").rename(world / "held_out/flight_1/frames")
    report = tmp_path / "metrics.json"
    arguments = ["eval", str(out), "--world", str(world), "--out", str(report), "--json"]
    assert main(arguments) == 0
    (printed,) = json.loads(capsys.readouterr().out)
    assert [printed] == json.loads(report.read_text())
    assert 20 <= printed["gallery"] == printed["queries"]

    again = tmp_path / "ckpt2"
    more = ["--from", str(out), *settings("epochs=1", "batch_size=8", "shift_m=4", "threads=1")]
    assert main(["fit", "--world", str(world), "--out", str(again), *more]) == 0
    assert load_checkpoint(again).encoder.spec == load_checkpoint(out).encoder.spec


def test_the_seed_decides_the_initial_weights(
    tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[torch.Tensor] = []

    def keep(encoder: Encoder, *_: object, **__: object) -> None:
        made.append(torch.cat([p.detach().flatten() for p in encoder.parameters()]))

    monkeypatch.setattr("train.fit.fit", keep)
    for seed in (1, 1, 2):
        arguments = ["--world", str(tiny_world), "--out", str(tmp_path / "ckpt")]
        assert main(["fit", *arguments, *settings(*SMALL, f"seed={seed}")]) == 0
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_ones_own_photographs_are_given_as_five_paths(
    tiny_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {
        "--photos": "photos",
        "--imagery": "imagery.tif",
        "--telemetry": "telemetry.csv",
        "--truth": "truth.csv",
        "--camera": "camera.json",
    }
    paths = [word for k, v in own.items() for word in (k, str(tiny_world / "train" / v))]
    assert main(["fit", *paths, "--out", str(tmp_path / "ckpt"), *settings(*SMALL)]) == 0
    assert (tmp_path / "ckpt" / "manifest.json").is_file()
    line = refused(capsys, "fit", *paths[:-2], "--out", str(tmp_path / "other"))
    assert "need --camera too" in line


def test_plain_weights_become_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", pretrained=False)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    out = tmp_path / "ckpt"
    arguments = ["--architecture", "test_resnet", "--size-px", "96", "--mean", "0.5", "0.5", "0.5"]
    arguments += ["--model-arg", "global_pool=max"]
    weights = str(tmp_path / "w.safetensors")
    assert main(["import-weights", weights, "--out", str(out), *arguments]) == 0
    assert "Next: python -m export bundle" in capsys.readouterr().out
    opened = load_checkpoint(out)
    assert opened.encoder.spec.mean == (0.5, 0.5, 0.5)
    assert opened.encoder.spec.width_px == 96
    assert opened.encoder.model_args == {"global_pool": "max"}
    assert opened.config["imported_from"] == "w.safetensors"


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("img_size=256", 256),
        ("drop_rate=0.5", 0.5),
        ("qkv_bias=true", True),
        ("pad_type=same", "same"),
        ("pretrained_cfg=", ""),
    ],
)
def test_arguments_for_timm_are_numbers_and_booleans_where_they_look_so(
    item: str, expected: object
) -> None:
    name, value = _model_arg(item)
    assert name == item.partition("=")[0]
    assert value == expected
    assert type(value) is type(expected)


def test_a_missing_world_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = str(tmp_path / "nowhere")
    line = refused(capsys, "fit", "--world", world, "--out", str(tmp_path / "c"))
    assert "Make one with: python -m train world" in line
    assert list(tmp_path.iterdir()) == []


def test_no_data_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "give --world" in refused(capsys, "fit", "--out", str(tmp_path / "c"))


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("epoch=3", "did you mean epochs?"),
        ("epochs=many", "expected int"),
        ("epochs", "is not NAME=VALUE"),
        ("batch_size=1", "expected 2 to"),
    ],
)
def test_an_unusable_setting_is_one_line_before_anything_is_read(
    item: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = str(tmp_path / "nowhere")
    line = refused(capsys, "fit", "--world", world, "--out", str(tmp_path / "c"), *settings(item))
    assert expected in line


def test_an_unknown_architecture_is_one_line(
    tiny_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(
        capsys,
        "fit",
        "--world",
        str(tiny_world),
        "--out",
        str(tmp_path / "c"),
        *settings("architecture=mobilenetv3_smal_050"),
    )
    assert "near names: " in line
    assert "mobilenetv3_small_050" in line


def test_a_missing_weights_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, out = str(tmp_path / "w.safetensors"), str(tmp_path / "c")
    line = refused(capsys, "import-weights", weights, "--architecture", "test_resnet", "--out", out)
    assert "expected a safetensors file" in line


def test_a_missing_checkpoint_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "world.json").write_text("{}")
    (tmp_path / "held_out" / "flight_1").mkdir(parents=True)
    line = refused(capsys, "eval", str(tmp_path / "nothing"), "--world", str(tmp_path))
    assert "python -m train fit" in line


def test_an_output_folder_with_other_content_is_one_line_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    model = timm.create_model("test_resnet", pretrained=False)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    line = refused(
        capsys,
        "import-weights",
        str(tmp_path / "w.safetensors"),
        "--architecture",
        "test_resnet",
        "--out",
        str(tmp_path / "mine"),
    )
    assert "remove it or choose another name" in line
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me"


def test_an_interrupt_ends_with_130_and_one_line(
    make_encoder: MakeEncoder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    save_checkpoint(tmp_path / "c", make_encoder(), {})
    monkeypatch.setattr("train.encoder.load_checkpoint", stop)
    (tmp_path / "world.json").write_text("{}")
    (tmp_path / "held_out" / "flight_1").mkdir(parents=True)
    assert main(["eval", str(tmp_path / "c"), "--world", str(tmp_path)]) == 130
    assert capsys.readouterr().err.splitlines() == ["train: stopped; what was finished is kept"]


def test_a_world_is_made_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--train-m", "500", "--train-photos", "1", "--held-out-m", "50", "--flights", "0"]
    assert main(["world", str(tmp_path / "w"), *small]) == 0
    assert "Next: python -m train fit" in capsys.readouterr().out
    assert (tmp_path / "w" / "train" / "photos" / "000000.jpg").is_file()
    line = refused(capsys, "world", str(tmp_path / "w"))
    assert "give a new folder" in line


def test_an_encoder_is_adapted_to_imagery_alone_and_measured_on_it(
    tiny_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], make_encoder: MakeEncoder
) -> None:
    save_checkpoint(tmp_path / "ckpt", make_encoder(), {})
    imagery = str(tiny_world / "train" / "imagery.tif")
    adapted = tmp_path / "adapted"
    short = settings("epochs=2", "batch_size=4", "threads=1", "workers=0", "sampling=random")
    where = ["--imagery", imagery, "--places", "30", "--simulate", "heading_sigma_deg=8"]
    start = ["--from", str(tmp_path / "ckpt"), "--out", str(adapted)]
    assert main(["adapt", *where, *start, *short]) == 0
    assert "epoch 2/2: loss" in capsys.readouterr().out
    opened = load_checkpoint(adapted)
    assert opened.encoder.spec == make_encoder().spec
    assert opened.config["adapted_to"] == "imagery.tif"
    assert main(["eval", str(adapted), "--preset", "imagery", *where, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["queries"] == row["gallery"] >= 20


def test_imagery_alone_trains_from_nothing_too(
    tiny_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imagery = str(tiny_world / "train" / "imagery.tif")
    out = ["--places", "20", "--out", str(tmp_path / "c"), "--set", "workers=0"]
    fit = ["fit", "--preset", "imagery", *out, *settings(*SMALL, "sampling=random")]
    assert main([*fit, "--imagery", imagery]) == 0
    assert "needs --imagery" in refused(capsys, *fit[:-1], "sampling=random")


def test_an_unfinished_run_is_neither_lost_nor_resumed_by_mistake(
    tiny_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--world", str(tiny_world), "--out", str(tmp_path / "c"), *settings(*SMALL)]
    assert "no run to resume" in refused(capsys, "fit", *out, "--resume")
    assert main(["fit", *out]) == 0
    state = tmp_path / "c.run" / "state" / "state.json"
    half = json.loads(state.read_text())
    half["config"]["epochs"] = 5
    state.write_text(json.dumps(half))
    assert "is an unfinished run, 1 of 5 epochs; add --resume" in refused(capsys, "fit", *out)
