import json
import os
import select
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.steps import Outcome, Step, all_passed, run_steps, table

LONG_S = 60.0
"""Longer than anything here takes on the busiest machine."""


def step(name: str, code: str = "print('done')", **values: object) -> Step:
    command = (sys.executable, "-c", code)
    return Step(name=name, shows=f"that {name} works", command=command, **values)  # type: ignore[arg-type]


def verdicts(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.name: outcome.verdict for outcome in outcomes}


def test_a_failed_step_ends_only_what_needs_it(tmp_path: Path) -> None:
    outcomes = run_steps(
        [
            step("first"),
            step("broken", "import sys; print('no engine'); sys.exit(2)"),
            step("after", needs=("first", "broken")),
            step("far", needs=("after",)),
            step("other", needs=("first",)),
        ],
        tmp_path,
    )
    assert verdicts(outcomes) == {
        "first": "passed",
        "broken": "failed",
        "after": "not run",
        "far": "not run",
        "other": "passed",
    }
    assert outcomes[1].note == "exit status 2: no engine"
    assert outcomes[2].note == "needs broken"
    assert not all_passed(outcomes)


def test_what_this_machine_cannot_have_is_no_failure_nor_is_what_needs_it(tmp_path: Path) -> None:
    outcomes = run_steps(
        [
            step("tool", program="a-program-nobody-has"),
            step("its-user", needs=("tool",)),
            step("known", left_out="needs two GPUs, here is 1"),
        ],
        tmp_path,
    )
    assert set(verdicts(outcomes).values()) == {"not run"}
    assert outcomes[0].note == "a-program-nobody-has is not on the PATH"
    assert all_passed(outcomes)


def test_a_step_that_hangs_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    reader = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
    child = f"import time; f = open({str(alive)!r}, 'w'); print(1, flush=True); time.sleep(600)"
    code = (
        "import subprocess, sys, time; "
        f"p = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE); "
        "p.stdout.readline(); print('waiting', flush=True); time.sleep(600)"
    )
    wait = subprocess.Popen.wait

    def wait_when_begun(process: "subprocess.Popen[bytes]", timeout: float | None = None) -> int:
        """However long two interpreters take to start here."""
        end_s = time.monotonic() + LONG_S
        while timeout is not None and "\nwaiting" not in (tmp_path / "01-hangs.log").read_text():
            assert time.monotonic() < end_s
            time.sleep(0.01)
        return wait(process, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", wait_when_begun)
    (outcome,) = run_steps([step("hangs", code, timeout_s=0.2)], tmp_path)
    assert outcome.verdict == "failed"
    assert outcome.note == "more than 0.2 s: waiting"
    # A pipe ends, and can be read, when the last who could write to it is gone.
    assert select.select([reader], [], [], LONG_S)[0] == [reader]
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_a_crash_and_a_missing_program_are_named(tmp_path: Path) -> None:
    crash = step("crash", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    missing = Step(name="missing", shows="nothing", command=("/no/such/program",))
    crashed, not_started = run_steps([crash, missing], tmp_path)
    assert crashed.note.startswith("SIGSEGV")
    assert not_started.note.startswith("cannot start (No such file or directory)")
    assert not all_passed([crashed])


def test_logs_hold_the_command_and_all_it_said(tmp_path: Path) -> None:
    said: list[str] = []
    code = "import sys; print('out'); sys.stderr.write('err\\n')"
    (outcome,) = run_steps([step("talks", code)], tmp_path, say=said.append)
    log = (tmp_path / outcome.log).read_text()
    assert log.startswith(f"$ {sys.executable} -c import sys")
    assert {"out", "err"} <= set(log.splitlines())
    assert said == ["1/1 talks: passed, 0 s"]
    rows = (tmp_path / "steps.jsonl").read_text().splitlines()
    assert [json.loads(row) for row in rows] == [asdict(outcome)]


def test_a_bar_in_a_last_line_does_not_break_the_table(tmp_path: Path) -> None:
    outcomes = run_steps([step("bar", "print('a | b')")], tmp_path)
    assert table(outcomes).splitlines()[-1].endswith("| a \\| b |")
