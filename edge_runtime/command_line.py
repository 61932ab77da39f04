"""What all commands share: their help, and how they end."""

import argparse
import errno
import os
import sys
from collections.abc import Callable

from edge_runtime.errors import SkyfixError

_MACHINE_SAYS_NO = {
    errno.ENOSPC: "free some space, or write somewhere else",
    errno.EDQUOT: "free some space, or write somewhere else",
    errno.EROFS: "write somewhere else",
    errno.EACCES: "change its permissions, or write somewhere else",
    errno.EPERM: "change its permissions, or write somewhere else",
    errno.ENOTDIR: "give a folder",
    errno.ENAMETOOLONG: "give a shorter name",
}
"""Errors of the system that are nobody's bug, and what to do about each."""


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the defaults there are, and keeps the example below them on one line."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help


def run_command(program: str, work: Callable[[], int | None], *, stopped: str) -> int:
    """Do the work and turn the user's mistakes and the machine's limits into one line.

    Args:
        program: begins the line.
        work: the command; None means that all went well.
        stopped: what to say when the user interrupts it.

    Returns:
        The exit status: the work's, 2 for a mistake, 130 when interrupted, 141 when nobody reads.
        A bug's exception goes
        on, so that its traceback is seen.
    """
    try:
        return work() or 0
    except SkyfixError as error:
        line = str(error)
    except BrokenPipeError:
        # Whoever read the output, as head, has seen enough; Python must not flush into it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in _MACHINE_SAYS_NO:
            raise
        where = f"{error.filename}: " if error.filename else ""
        line = f"{where}{error.strerror}; {_MACHINE_SAYS_NO[error.errno]}"
    except KeyboardInterrupt:
        sys.stderr.write(f"{program}: {stopped}\n")
        return 130
    sys.stderr.write(f"{program}: {line}\n")
    return 2
