"""`skyfix page`: what a flight looked like, as one HTML file."""

import argparse
import math
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

_PICTURES = 200
_TOLD_EVERY_S = 2.0
"""On a terminal the line is rewritten more often."""


def add_page_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", formatter: Any
) -> None:
    """Add `page`."""
    page = commands.add_parser(
        "page",
        help="show a flight as one HTML file: map, frames, what matched and why not",
        formatter_class=formatter,
        epilog="Example: skyfix page fixes.jsonl",
    )
    page.add_argument(
        "log", type=Path, help="log written by skyfix run, or folder written by its --record"
    )
    page.add_argument(
        "--out", type=Path, help="HTML file to write; beside the log by default, as fixes.html"
    )
    page.add_argument(
        "--pictures",
        type=int,
        default=_PICTURES,
        metavar="N",
        help="most frames with pictures: changes and what was not answered first; 0 goes through "
        "no frames",
    )
    page.add_argument(
        "--recording",
        type=Path,
        metavar="FOLDER",
        help="written by skyfix run --record: holds the frames of a camera",
    )
    page.add_argument(
        "--index", type=Path, help="satellite index folder, if it is not where the run had it"
    )
    page.add_argument(
        "--records", metavar="FIRST:AFTER", help="part of a long log, counted from 0, as 0:5000"
    )
    page.set_defaults(run=run_command, stopped="stopped; no page was written")


def run_command(args: argparse.Namespace) -> int:
    """Make the page, and say what it came to.

    Raises:
        InputError: no log, an empty one, one of another version, or the page cannot be written.
    """
    from edge_runtime.flight_page import PageOptions, make_page
    from edge_runtime.opencv_settings import prepare_opencv

    prepare_opencv()
    first, after = _part(args.records)
    options = PageOptions(
        log=args.log,
        out=args.out or Path(f"{args.log.with_suffix('')}.html"),
        pictures=args.pictures,
        recording=args.recording,
        index=args.index,
        first=first,
        after=after,
    )
    progress = PictureProgress()
    summary = make_page(options, progress=progress)
    progress.end()
    for note in summary.notes:
        sys.stdout.write(f"Note: {note}.\n")
    sys.stdout.write(
        f"{summary.frames} frames, {summary.pictures} with pictures, "
        f"{summary.size_bytes / 1e6:.1f} MB, written to {options.out}. Next: open it in a browser\n"
    )
    return 130 if summary.stopped else 0


def _part(text: str | None) -> tuple[int, int | None]:
    """FIRST:AFTER as numbers, either left out.

    Raises:
        InputError: not of that form.
    """
    from edge_runtime.errors import InputError

    first, colon, after = (text or ":").partition(":")
    if not colon or any(part and not part.isdecimal() for part in (first, after)):
        msg = f"--records is {text!r}; expected FIRST:AFTER, as 0:5000"
        raise InputError(msg)
    return int(first or 0), int(after) if after else None


class PictureProgress:
    """How far the pictures are: one line that is rewritten on a terminal, else now and then."""

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter) -> None:
        """Begin with the first frame.

        Args:
            clock: seconds.
        """
        self._clock = clock
        self._live = sys.stderr.isatty()
        self._first_s: float | None = None
        self._told_s = -math.inf
        self._open = False

    def __call__(self, done: int, total: int, pictures: int) -> None:
        """Show how far they are."""
        now_s = self._clock()
        if self._first_s is None:
            # Loading the encoder is not part of what a frame takes.
            self._first_s = now_s
        if now_s - self._told_s < (0.1 if self._live else _TOLD_EVERY_S) and done < total:
            return
        self._told_s = now_s
        each_s = (now_s - self._first_s) / max(done - 1, 1)
        line = f"{done}/{total} frames gone through, {pictures} pictures"
        if done > 1:
            line += f", {each_s * max(total - done, 0):.0f} s left"
        with suppress(OSError):
            sys.stderr.write(f"\r{line:<78}" if self._live else line + "\n")
            sys.stderr.flush()
            self._open = self._live

    def end(self) -> None:
        """Leave the line as it is."""
        if self._open:
            with suppress(OSError):
                sys.stderr.write("\n")
