"""Numbers as a reader wants them: enough digits to compare, none that were not measured."""

import math

DASH = "\N{EN DASH}"


def significant(value: float | None) -> str:
    """About three digits, never by a power of ten."""
    if value is None:
        return DASH
    size = abs(value)
    if size >= 100 or size == 0:
        return f"{value:,.0f}"
    digits = 1 if size >= 10 else 2 - math.floor(math.log10(size))
    return f"{value:.{min(digits, 6)}f}"


def cosine(value: float | None) -> str:
    """Five digits, cut and not rounded: only what is 1 looks like 1."""
    return DASH if value is None else f"{math.floor(value * 1e5 + 1e-6) / 1e5:.5f}"


def percent(share: float | None) -> str:
    """A share as a percentage; only 0 and 1 themselves become 0 % and 100 %."""
    if share is None:
        return DASH
    if 0 < share < 0.0005:
        return "<0.1 %"
    if 0.9995 <= share < 1:
        return ">99.9 %"
    return f"{100 * share:.1f} %"


def times(ratio: float | None) -> str:
    """A ratio with two digits after the point."""
    return DASH if ratio is None else f"{ratio:.2f}"


def plural(count: int, noun: str) -> str:
    """A count and what was counted."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
