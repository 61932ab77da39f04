"""Words and dashes of the report's page."""

from collections.abc import Iterable

DASH = "\N{EN DASH}"
NO_BREAK = "\N{NO-BREAK SPACE}"


def plural(count: int, noun: str) -> str:
    """A number with its noun, as "1 frame"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def join(parts: Iterable[str]) -> str:
    """Those that are not empty, one after the other."""
    return "\n".join(part for part in parts if part)
