"""Events that are said once when something begins, not once a frame while it lasts."""

MAX_LINES_A_KIND = 8
"""A fault that comes and goes all the time is said this often, then counted."""


class Occurrences:
    """Collects lines for `events()`. Not thread-safe: the owner locks."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._lasting: set[str] = set()
        self._said: dict[str, int] = {}

    def began(self, kind: str, line: str) -> None:
        """Say a line unless this kind of thing is going on already."""
        if kind not in self._lasting:
            self._lasting.add(kind)
            self.happened(kind, line)

    def ended(self, kind: str, line: str = "") -> None:
        """Note that this kind of thing is over, with a line if it was going on."""
        if kind in self._lasting:
            self._lasting.discard(kind)
            if line:
                self.happened(f"{kind}: over", line)

    def happened(self, kind: str, line: str) -> None:
        """Say a line."""
        count = self._said.get(kind, 0) + 1
        self._said[kind] = count
        if count < MAX_LINES_A_KIND:
            self._lines.append(line)
        elif count == MAX_LINES_A_KIND:
            self._lines.append(f"{line} (and more of this kind, not said again)")

    def taken(self) -> list[str]:
        """The lines since the last call."""
        lines, self._lines = self._lines, []
        return lines
