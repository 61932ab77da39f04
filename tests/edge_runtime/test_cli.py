"""One clear line and exit status 2 for a mistake of the user's, and nothing written."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import edge_runtime
from edge_runtime.cli import main

pytest.importorskip("onnxruntime")

HELPS = (
    ["run"],
    ["replay"],
    ["page"],
    ["convert"],
    ["bundle"],
    ["bundle", "verify"],
    ["index"],
    ["index", "info"],
    ["doctor"],
)


def skyfix(*arguments: str) -> subprocess.CompletedProcess[str]:
    """As from a shell."""
    return subprocess.run(
        [sys.executable, "-m", "edge_runtime", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(edge_runtime.__file__).parent.parent,
    )


@dataclass(kw_only=True)
class Flight:
    """A folder with everything `skyfix run` takes, to be spoilt."""

    root: Path
    index: Path
    out: Path

    @property
    def photos(self) -> Path:
        return self.root / "photos"

    @property
    def telemetry(self) -> Path:
        return self.root / "telemetry.csv"

    @property
    def camera(self) -> Path:
        return self.root / "camera.json"

    @property
    def bundle(self) -> Path:
        return self.root / "bundle"

    def arguments(self, *more: str) -> list[str]:
        return [
            "run",
            *("--bundle", str(self.bundle), "--index", str(self.index)),
            *("--source", str(self.photos), "--telemetry", str(self.telemetry)),
            *("--camera", str(self.camera), "--out", str(self.out)),
            *("--backend", "ort-cpu", "--threads", "1", *more),
        ]


@pytest.fixture
def flight(flight_dir: Path, bundle_dir: Path, index_dir: Path, tmp_path: Path) -> Flight:
    root = shutil.copytree(flight_dir, tmp_path / "flight")
    shutil.copytree(bundle_dir, root / "bundle")
    return Flight(root=root, index=index_dir, out=tmp_path / "log" / "fixes.jsonl")


# --- help ------------------------------------------------------------------------------------


def test_help_says_what_there_is() -> None:
    done = skyfix("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for command in ("run", "replay", "convert", "bundle", "index", "doctor"):
        assert f"    {command} " in done.stdout
    assert "Start with: skyfix doctor" in done.stdout


@pytest.mark.parametrize("command", HELPS, ids=" ".join)
def test_every_command_has_a_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    assert end.value.code == 0
    assert f"usage: skyfix {' '.join(command)}" in capsys.readouterr().out


@pytest.mark.parametrize("command", HELPS, ids=" ".join)
def test_a_help_shows_only_defaults_that_say_something_and_an_example(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    out = capsys.readouterr().out
    assert "default: None" not in " ".join(out.split())
    assert "default: False" not in " ".join(out.split())
    assert out.splitlines()[-1].startswith(f"Example: skyfix {' '.join(command)}")


@pytest.mark.parametrize("arguments", [[], ["fly"], ["run"], ["index"], ["run", "--backend", "x"]])
def test_what_cannot_be_parsed_ends_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "skyfix" in capsys.readouterr().err


# --- running ---------------------------------------------------------------------------------


def test_a_flight_from_the_shell_ends_with_the_next_command(flight: Flight) -> None:
    done = skyfix(*flight.arguments())
    assert done.returncode == 0
    assert "4 frames: 4 OK, 0 degraded, 0 abstained, 0 lost" in done.stdout
    assert done.stdout.splitlines()[-1].endswith(f"Next: skyfix page {flight.out}")
    assert done.stderr.splitlines()[-1].startswith("[########################] 4/4 frames, 4 OK")
    assert flight.out.read_text().count("\n") == 4


def test_a_flight_and_its_replay(flight: Flight, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(flight.arguments("--start", "47.5", "8.3", "60")) == 0
    assert main(["replay", str(flight.out)]) == 0
    assert capfd.readouterr().out.endswith("4 frames, every fix the same.\n")


def test_a_replay_that_differs_ends_with_1(
    flight: Flight, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(flight.arguments()) == 0
    shutil.copy(flight.photos / "000.png", flight.photos / "003.png")
    assert main(["replay", str(flight.out)]) == 1
    out = capfd.readouterr().out
    assert "\n003.png: " in out
    assert out.endswith("1 of 4 frames came out otherwise.\n")


def test_a_damaged_photograph_is_a_record_and_not_the_end(
    flight: Flight, capfd: pytest.CaptureFixture[str]
) -> None:
    damaged = b"\x89PNG\r\n\x1a\n" + bytes(99) + b"IEND"
    (flight.photos / "002.png").write_bytes(damaged)
    assert main(flight.arguments()) == 0
    records = [json.loads(line) for line in flight.out.read_text().splitlines()]
    assert [r["frame"] for r in records] == ["000.png", "001.png", "002.png", "003.png"]
    assert (records[2]["status"], records[2]["windows"]) == ("DEGRADED", 0)
    assert "cannot be read" in records[2]["reason"]
    assert records[3]["status"] == "OK"


def test_a_run_that_is_stopped_keeps_its_log(
    flight: Flight, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from edge_runtime.terminal_progress import TerminalProgress

    def stop(self: TerminalProgress, fix: Any, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(TerminalProgress, "__call__", stop)
    assert main(flight.arguments()) == 130
    assert capfd.readouterr().err == "skyfix: stopped; the log holds every finished frame\n"
    assert flight.out.read_text().count("\n") == 2


def test_a_bundle_is_verified(flight: Flight, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "verify", str(flight.bundle)]) == 0
    assert "fp32 on CPUExecutionProvider: lowest probe cosine 1.000000" in capfd.readouterr().out


def test_an_index_is_described(flight: Flight, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "info", "--json", str(flight.index)]) == 0
    values = json.loads(capfd.readouterr().out)
    assert values["tile_m"] == 80
    assert values["tiles"] > 100
    assert values["south_deg"] < 47.5 < values["north_deg"]
    assert values["west_deg"] < 8.3 < values["east_deg"]
    assert main(["index", "info", str(flight.index)]) == 0
    assert "stride_m  25.0" in capfd.readouterr().out


# --- mistakes --------------------------------------------------------------------------------


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def swap_telemetry(flight: Flight) -> None:
    """Tokyo, with the longitude where the latitude belongs."""
    rows = "".join(f"{k:03d}.png,100,0,139.7,35.7\n" for k in range(4))
    flight.telemetry.write_text("filename,height_m,yaw_deg,lat_deg,lon_deg\n" + rows)


def with_unknown_camera_name(flight: Flight) -> None:
    values = json.loads(flight.camera.read_text())
    flight.camera.write_text(json.dumps({**values, "focal": 3}))


def empty_the_photos(flight: Flight) -> None:
    shutil.rmtree(flight.photos)
    flight.photos.mkdir()


Spoil = Callable[[Flight], object]

MISTAKES: dict[str, tuple[Spoil, str]] = {
    "no bundle": (lambda f: shutil.rmtree(f.bundle), "python -m export"),
    "a byte of the encoder flipped": (
        lambda f: flip_a_byte(f.bundle / "encoder.fp32.onnx"),
        "encoder.fp32.onnx",
    ),
    "a byte of the probes flipped": (lambda f: flip_a_byte(f.bundle / "probes.npz"), "probes.npz"),
    "a manifest that is no JSON": (
        lambda f: (f.bundle / "manifest.json").write_text("{"),
        "manifest.json",
    ),
    "an unreadable photograph": (
        lambda f: (f.photos / "002.png").write_bytes(b"no image"),
        "002.png cannot be read as an image",
    ),
    "a photograph that is cut off": (
        lambda f: (f.photos / "002.png").write_bytes((f.photos / "002.png").read_bytes()[:999]),
        "002.png is cut off",
    ),
    "no photographs": (empty_the_photos, "has no photographs"),
    "no source": (lambda f: shutil.rmtree(f.photos), "does not exist"),
    "no telemetry": (lambda f: f.telemetry.unlink(), "telemetry.csv does not exist"),
    "telemetry without names or times": (
        lambda f: f.telemetry.write_text("height_m,yaw_deg\n100,0\n"),
        "expected filename or t_s",
    ),
    "telemetry without height and heading": (
        lambda f: f.telemetry.write_text("filename,t_s\n000.png,0\n"),
        "expected height_m",
    ),
    "telemetry that is no number": (
        lambda f: edit(f.telemetry, "101.0", "high"),
        "line 2: height_m is 'high'",
    ),
    "telemetry of other photographs": (
        lambda f: f.telemetry.write_text("filename,height_m\nx.png,100\n"),
        "names none of the 4 photographs",
    ),
    "telemetry with swapped coordinates": (swap_telemetry, "is the order (lat, lon)?"),
    "no camera file": (lambda f: f.camera.unlink(), "camera.json cannot be read"),
    "an unknown name in the camera file": (with_unknown_camera_name, "unknown names ['focal']"),
    "a camera file that is no JSON": (lambda f: f.camera.write_text("{"), "camera.json"),
    "a place that cannot be written": (
        lambda f: f.out.parent.write_text("a file"),
        "choose another --out",
    ),
}


def one_line(capfd: pytest.CaptureFixture[str]) -> str:
    """All of stderr, from Python and from libraries; stdout must be silent."""
    out, err = capfd.readouterr()
    assert out == ""
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert err.startswith("skyfix: ")
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_line_and_leaves_no_log(
    flight: Flight, capfd: pytest.CaptureFixture[str], mistake: str
) -> None:
    spoil, says = MISTAKES[mistake]
    spoil(flight)
    assert main(flight.arguments()) == 2
    assert says in one_line(capfd)
    assert not flight.out.exists()
    assert not flight.out.parent.is_dir()


OPTIONS: dict[str, tuple[list[str], str]] = {
    "swapped": (["--start", "8.3", "47.5", "20"], "is the order (lat, lon)?"),
    "no position": (["--start", "139.7", "35.7", "20"], "is the order (lat, lon)?"),
    "elsewhere": (["--start", "48.5", "8.3", "20"], "give a position on the map"),
    "no height": (["--ignore", "height_m"], "--height-range-m LOW HIGH"),
}


@pytest.mark.parametrize("mistake", OPTIONS)
def test_a_mistaken_option_gives_one_line_and_leaves_no_log(
    flight: Flight, capfd: pytest.CaptureFixture[str], mistake: str
) -> None:
    options, says = OPTIONS[mistake]
    assert main(flight.arguments(*options)) == 2
    assert says in one_line(capfd)
    assert not flight.out.parent.exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--height-range-m", "200", "100", "--ignore", "height_m"],
        ["--deadline-ms", "-1"],
        ["--deadline-ms", "0"],
        ["--deadline-ms", "nan"],
        ["--yaw-sigma-deg", "-5"],
        ["--yaw-sigma-deg", "nan"],
        ["--attitude-sigma-deg", "-1"],
        ["--start", "47.5", "8.3", "nan"],
        ["--threads", "-3"],
        ["--threads", "0"],
        ["--ignore", "yaw"],
    ],
    ids=" ".join,
)
def test_an_option_that_makes_no_sense_is_refused(
    flight: Flight, capfd: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert main(flight.arguments(*options)) == 2
    one_line(capfd)
    assert not flight.out.parent.exists()


def test_an_index_of_another_encoder_is_refused(
    flight: Flight, make_bundle: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(flight.bundle)
    make_bundle(flight.bundle, weights_sha256="cd" * 32)
    assert main(flight.arguments()) == 2
    assert "was made by encoder" in one_line(capfd)
    assert not flight.out.exists()


@pytest.mark.parametrize("name", ["vectors.usearch", "tiles.npy", "imagery.mbtiles"])
def test_an_altered_index_is_refused(
    flight: Flight, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    flight.index = shutil.copytree(flight.index, tmp_path / "index")
    flip_a_byte(flight.index / name)
    assert main(flight.arguments()) == 2
    assert name in one_line(capfd)
    assert not flight.out.exists()


def test_a_mistake_from_the_shell_shows_no_traceback(flight: Flight) -> None:
    done = skyfix(*flight.arguments("--start", "8.3", "47.5", "20"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("skyfix: start position 8.30000, 47.50000 is not on the map")


@pytest.mark.parametrize(
    "arguments",
    [["replay", "absent.jsonl"], ["bundle", "verify", "absent"], ["index", "info", "absent"]],
    ids=" ".join,
)
def test_what_is_not_there_is_said_in_one_line(
    arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert "absent" in one_line(capfd)
