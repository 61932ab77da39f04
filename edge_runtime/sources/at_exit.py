"""Closes the sources that nobody closed, before the interpreter goes.

A thread that comes back from OpenCV while Python is being taken down ends the whole process with
"terminate called without an active exception": C++ does not survive the way Python ends such
threads.
"""

import atexit
import weakref
from typing import Protocol


class Closable(Protocol):
    """Has threads that call OpenCV."""

    def close(self) -> object:
        """Stop them."""
        ...


_OPEN: "weakref.WeakSet[Closable]" = weakref.WeakSet()


def close_at_exit(source: Closable) -> None:
    """Close this at the end of the process if it is still there."""
    _OPEN.add(source)


@atexit.register
def _close_all() -> None:
    for source in list(_OPEN):
        source.close()
