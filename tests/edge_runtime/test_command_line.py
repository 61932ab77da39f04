import argparse
import errno
import os
from pathlib import Path

import pytest

from edge_runtime.command_line import HelpFormatter, run_command
from edge_runtime.errors import InputError


def ends(error: BaseException) -> int:
    def work() -> None:
        raise error

    return run_command("skyfix", work, stopped="stopped; all is kept")


@pytest.mark.parametrize(("status", "expected"), [(None, 0), (0, 0), (1, 1)])
def test_the_works_own_status_is_the_programs(status: int | None, expected: int) -> None:
    assert run_command("skyfix", lambda: status, stopped="") == expected


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("no such thing"), 2, "skyfix: no such thing\n"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/a.onnx"),
            2,
            "skyfix: out/a.onnx: No space left on device; free some space, or write somewhere "
            "else\n",
        ),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
            2,
            "skyfix: No space left on device; free some space, or write somewhere else\n",
        ),
        (KeyboardInterrupt(), 130, "skyfix: stopped; all is kept\n"),
    ],
)
def test_a_mistake_a_full_disk_and_an_interrupt_are_one_line(
    error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(error) == status
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError(errno.EBADF, "a bug")])
def test_a_bug_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error), match="a bug"):
        ends(error)


def test_a_really_full_disk_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")

    def work() -> None:
        with Path("/dev/full").open("w") as full:
            full.write("x" * 100_000)

    assert run_command("skyfix", work, stopped="") == 2
    assert "No space left on device; free some space" in capsys.readouterr().err


def test_help_shows_the_defaults_there_are() -> None:
    parser = argparse.ArgumentParser(formatter_class=HelpFormatter)
    parser.add_argument("--rate", default=5, help="frames a second")
    parser.add_argument("--out", help="file to write")
    shown = parser.format_help()
    assert "frames a second (default: 5)" in shown
    assert "file to write\n" in shown
