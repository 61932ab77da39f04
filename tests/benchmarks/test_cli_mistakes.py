"""What a user gets wrong is answered in one line, with exit status 2, and nothing is begun."""

from pathlib import Path

import pytest

from benchmarks.cli import COMMANDS, main

FLIGHT = "--source {0} --telemetry {0} --camera {0}"
MISTAKES = {
    "": "COMMAND",
    "--bogus": "COMMAND",
    "lateny": "unknown command 'lateny'; did you mean latency?",
    "latency --bundel x": "unknown --bundel x; did you mean --bundle?",
    "latency --batch two": "argument --batch: invalid int value: 'two'",
    "latency --out {here}": "is a folder; expected a .jsonl",
    "latency --out {file}/rows.jsonl": "which is no folder",
    "latency": "nothing to measure",
    "latency --bundle {0}": "is not a bundle folder",
    "latency --log {0}": "cannot be read",
    "latency --bundle {0} --threads -2": "--threads is -2; expected at least 1",
    "latency --bundle {0} --batch 1 0": "--batch is 0",
    "latency --bundle {0} --runs 0": "--runs is 0",
    "parity --photographs {0}": "is not a folder; expected photographs",
    "parity --photographs {here} --pictures 0": "--pictures is 0",
    "parity --photographs {here}": "0 photographs; expected at least 24",
    "single-stream --bundle {0}": "is not a bundle folder",
    "single-stream --bundle {0} --runs 0": "--runs is 0",
    "single-stream --bundle {0} --seconds -1": "seconds is -1",
    "single-stream --bundle {0} --seed -1": "'-1' is no seed",
    "multi-stream --bundle {0} --threads 0": "threads is 0",
    "multi-stream --bundle {0} --samples-per-query 0": "samples_per_query is 0",
    "matrix --threads -1": "--threads is -1",
    "matrix --checkpoint {0}": "--checkpoint is of a --bundle",
    "matrix --bundle {0} --list": "is not a bundle folder",
    "matrix --encoder none --list": "'none' is no encoder",
    "matrix --work {file}": "is a file; expected a folder",
    "matrix --work {here}/m"
    + "".join(
        f" --{name} {{0}}" for name in ("index", "source", "telemetry", "truth", "camera")
    ): "nowhere does not exist",
    "matrix --index {0}": "a flight needs --source",
    "accuracy --log {0} --truth {0}": "cannot be read",
    "accuracy --log {0}": "required: --truth",
    "localisation --run -1": "--run is -1",
    "localisation": "expected one truth for each log",
    "localisation --logs {0}": "has no NAME.truth.csv",
    "report --index {0} --flight {0} {0} - --out {here}/page.html": "cannot be read",
    "photographs ariel {0} {here}": "holds no tiles named",
    "photographs vigor {0} {here}": "invalid choice: 'vigor'",
    "evidence --bundle {0} --index {0} --truth {0} " + FLIGHT: "camera file nowhere cannot be read",
    "retrieval --bundle {0} --index {0} --truth {0} " + FLIGHT: "camera file nowhere cannot be",
    "ambiguity --bundle {0} --index {0}": "is not a bundle folder",
    "ambiguity --bundle {0} --index {0} --views 0": "--views is 0",
    "ambiguity --bundle {0} --index {0} --photos {0}": "a flight needs all of",
    "ablation --world {0} --from {0} --work {here} --out {here}/r.jsonl": "is not a world folder",
    "ablation --world {0} --from {0} --work {here} --out {here}/r.jsonl --seeds 0": "--seeds is 0",
    "sampling --runs 0": "--runs is 0",
    "loading --runs 0": "--runs is 0",
    "training-speed --runs 0": "--runs is 0",
    "training-speed --recipe none": "there is no recipe 'none'",
    "training-speed --threads -1": "threads is -1",
    "search --tiles 0": "0 tiles",
    "search --contender numpy --radius-m -1": "radius -1 m",
    "search --contender numpy --work {0}": "is not a folder; expected one to write files into",
    "end-to-end --bundle {0} --index {0} " + FLIGHT: "is not a bundle folder",
    "start-up --bundle {0} --index {0} --runs 0 " + FLIGHT: "--runs is 0",
    "start-up --bundle {0} --index {0} " + FLIGHT: "is not a bundle folder",
    "soak --bundle {0} --index {0} --folder {here} " + FLIGHT: "is not a file; expected a video",
    "flights --world {0} --bundle {0} --index {0} --out {here}/r.jsonl": "make a world",
    'flights --world {0} --bundle {0} --index {0} --out {here}/r.jsonl --set top_k="a"': (
        "a value is of another kind"
    ),
    "calibrate --bundle {0} --index {0} --plot {here}": "is a folder; expected a file",
    "calibrate --bundle {0} --index {0}": "is not a bundle folder",
    "compare {0} {0} --seed x": "'x' is no seed",
    "compare {0} {0}": "cannot be read",
    "compare {0} {0} --metric none": "invalid choice: 'none'",
    "interleave --before {0} --after {0}": "required: COMMAND",
    "interleave --before {0} --after {0} --before-out {here}/b --after-out {here}/a -- latency": (
        "is not a folder; expected the checkout"
    ),
    "results {0} --out {here}": "is a folder; expected a file",
    "results": "nothing to write",
    "results {0} --out {here}/page.html": "cannot be read",
    "readme-table": "one of the arguments --check --write is required",
    "readme-table --check --results {0}": "nowhere is not a folder",
}


def test_every_command_has_a_mistake_here() -> None:
    assert {words.partition(" ")[0] for words in MISTAKES} >= set(COMMANDS)


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    names = {"{0}": "nowhere", "{here}": str(tmp_path), "{file}": str(tmp_path / "file")}
    arguments = []
    for word in words.split():
        for name, value in names.items():
            word = word.replace(name, value)
        arguments.append(word)
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    complaint = told.err.splitlines()[-1]
    assert complaint.startswith("benchmarks: ")
    assert MISTAKES[words] in complaint
    # Faiss may be left out of a search, which is said before.
    assert [line for line in told.err.splitlines() if not line.startswith("faiss")] == [complaint]
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "nothing was begun"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_its_options(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    told = capsys.readouterr().out
    assert told.startswith(f"usage: python -m benchmarks {command}")
    assert "--out" in told or command in (
        "evidence",
        "calibrate",
        "photographs",
        "readme-table",
        "interleave",
    )
