"""Commands run one after the other, each with a log of its own, whatever becomes of the others."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Verdict = Literal["passed", "failed", "not run"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command and what it shows when it ends with status 0."""

    name: str
    """Short and unique: part of the log's file name."""
    shows: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    """Steps that must have passed; otherwise this one is not run."""
    program: str | None = None
    """Must be on the PATH; otherwise this step is not run, which is no failure."""
    left_out: str = ""
    """Why it is not run on this machine, where that is known before; this is no failure."""
    timeout_s: float = 3600.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a step."""

    name: str
    shows: str
    verdict: Verdict
    seconds: float
    note: str
    """Last line of its output, or why it was not run."""
    log: str
    """File name; empty when it was not run."""
    excused: bool = False
    """Not run, and this says nothing against the machine or the code."""


def run_steps(
    steps: Sequence[Step], folder: Path, *, say: Callable[[str], None] = lambda _: None
) -> list[Outcome]:
    """Run every step that can be run and keep what came of it.

    Args:
        steps: in the order to run them.
        folder: gets one log a step and `steps.jsonl`, written as each step ends.
        say: told one line per step.
    """
    folder.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    with (folder / "steps.jsonl").open("w") as rows:
        for number, step in enumerate(steps, 1):
            outcome = _outcome(step, outcomes, folder, f"{number:02d}-{step.name}.log")
            outcomes.append(outcome)
            rows.write(json.dumps(asdict(outcome)) + "\n")
            rows.flush()
            say(
                f"{number}/{len(steps)} {step.name}: {outcome.verdict}, {outcome.seconds:.0f} s"
                + ("" if outcome.verdict == "passed" else f" ({outcome.note})")
            )
    return outcomes


def all_passed(outcomes: Sequence[Outcome]) -> bool:
    """Whether nothing failed and nothing was left out that a failure stood in the way of."""
    return all(outcome.verdict == "passed" or outcome.excused for outcome in outcomes)


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes as a Markdown table."""
    lines = ["| step | shows | verdict | s | last line |", "|---|---|---|---|---|"]
    for o in outcomes:
        note = o.note.replace("|", "\\|")
        lines.append(f"| {o.name} | {o.shows} | {o.verdict} | {o.seconds:.0f} | {note} |")
    return "\n".join(lines) + "\n"


def _outcome(step: Step, before: Sequence[Outcome], folder: Path, log: str) -> Outcome:
    passed = {outcome.name for outcome in before if outcome.verdict == "passed"}
    missing = [name for name in step.needs if name not in passed]
    if missing:
        excused = all(o.excused for o in before if o.name in missing)
        return _not_run(step, f"needs {', '.join(missing)}", excused=excused)
    if step.left_out:
        return _not_run(step, step.left_out, excused=True)
    if step.program is not None and shutil.which(step.program) is None:
        return _not_run(step, f"{step.program} is not on the PATH", excused=True)
    started = time.perf_counter()
    path = folder / log
    status, why = _run(step, path)
    lines = path.read_text(errors="replace").strip().splitlines()
    note = lines[-1].strip() if lines else "said nothing"
    return Outcome(
        name=step.name,
        shows=step.shows,
        verdict="passed" if status == 0 else "failed",
        seconds=time.perf_counter() - started,
        note=note if status == 0 else f"{why}: {note}",
        log=log,
    )


def _run(step: Step, log: Path) -> tuple[int, str]:
    """Exit status, and what to call it. The whole process group ends with the step."""
    with log.open("w") as out:
        out.write("$ " + " ".join(step.command) + "\n")
        out.flush()
        try:
            process = subprocess.Popen(
                step.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return 127, f"cannot start ({error.strerror})"
        try:
            status = process.wait(step.timeout_s)
        except subprocess.TimeoutExpired:
            _end(process)
            return 124, f"more than {step.timeout_s:g} s"
        except BaseException:
            _end(process)
            raise
    why = f"exit status {status}"
    return status, signal.Signals(-status).name if status < 0 else why


def _end(process: "subprocess.Popen[bytes]") -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _not_run(step: Step, note: str, *, excused: bool) -> Outcome:
    return Outcome(
        name=step.name,
        shows=step.shows,
        verdict="not run",
        seconds=0.0,
        note=note,
        log="",
        excused=excused,
    )
