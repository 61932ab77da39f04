"""What every output of fixes is."""

from typing import Protocol

from edge_runtime.fix import Fix


class Output(Protocol):
    """Takes fixes to one place. Runs on a thread of its own, so it may be slow and may fail."""

    name: str
    """As the user gave it, for messages."""

    def write(self, fix: Fix) -> None:
        """Hand one fix on.

        Raises:
            OSError: the place is gone or full for now; the next fix is tried again.
        """
        ...

    def close(self) -> None:
        """Finish the file or end the connection. Safe to call twice."""
        ...
