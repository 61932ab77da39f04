"""The findings as one page for people."""

import textwrap
from collections.abc import Sequence
from typing import get_args

from edge_runtime.doctor.finding import Finding, Group

_MARKS = {"works": "ok", "note": "note", "missing": "-", "broken": "BROKEN"}
_COLOURS = {"works": "32", "note": "33", "missing": "2", "broken": "1;31"}
"""Select Graphic Rendition codes (ECMA-48): green, yellow, faint, bold red."""


def page(findings: Sequence[Finding], *, width: int = 100, colour: bool = False) -> str:
    """Lay the findings out in groups, and end with what is to be done.

    Args:
        findings: from `examine`.
        width: columns.
        colour: whether the terminal shows colours.
    """
    names = max((len(f.what) for f in findings if len(f.what) <= 18), default=0)
    lines: list[str] = []
    for group in get_args(Group):
        of_group = [f for f in findings if f.group == group]
        if of_group:
            title = group[0].upper() + group[1:]
            lines += [_painted(title, "1", colour=colour)]
        for f in of_group:
            lines += _told(f, names, width, colour=colour)
    return "\n".join([*lines, "", *_summary(findings, width, colour=colour)]) + "\n"


def _told(f: Finding, names: int, width: int, *, colour: bool) -> list[str]:
    """Mark, name and detail in columns; the remedy on a line of its own."""
    mark = "MISSING" if f.verdict == "missing" and f.needed else _MARKS[f.verdict]
    code = _COLOURS["broken" if mark == "MISSING" else f.verdict]
    indent = 2 + 7 + 2 + names + 2
    room = max(20, width - indent)
    lines = textwrap.wrap(f.detail, room, break_on_hyphens=False) or [""]
    head = f"  {_painted(f'{mark:<7}', code, colour=colour)}  {f.what:<{names}}  "
    if len(f.what) > names:  # A long name has its line to itself.
        lines = ["", *lines]
    out = [head.rstrip() if not lines[0] else head + lines[0]]
    out += [" " * indent + line for line in lines[1:]]
    if f.remedy:
        # Commands are not wrapped: they are to be copied.
        out.append(" " * indent + _painted(f"-> {f.remedy}", "36", colour=colour))
    return out


def _summary(findings: Sequence[Finding], width: int, *, colour: bool) -> list[str]:
    wrong = [f.what for f in findings if f.needed and f.verdict in ("missing", "broken")]
    broken = [f.what for f in findings if not f.needed and f.verdict == "broken"]
    noted = [f.what for f in findings if f.verdict == "note"]
    if wrong:
        first = _painted(f"Not fit to fly: {', '.join(wrong)}.", "1;31", colour=colour)
    else:
        first = _painted("Everything that is needed works.", "1;32", colour=colour)
    lines = [first]
    for title, names in (("Broken, not needed", broken), ("To know", noted)):
        if names:
            lines += textwrap.wrap(f"{title}: {', '.join(names)}.", width)
    return lines


def _painted(text: str, code: str, *, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour else text
