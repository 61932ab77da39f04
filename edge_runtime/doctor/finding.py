"""What a check says, and how one that fails itself is kept from stopping the others."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

Verdict = Literal["works", "note", "missing", "broken"]
"""note: works, and there is something to know. missing: not here. broken: here, and of no use."""
Group = Literal["machine", "power", "clock", "libraries", "GPU", "devices", "services", "artefacts"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing looked at."""

    what: str
    verdict: Verdict
    detail: str
    remedy: str = ""
    """Command or action that mends it; empty when nothing is to be done."""
    needed: bool = False
    """Whether skyfix cannot fly without it."""
    group: Group = "machine"
    """Under which heading it is shown."""


Check = Callable[[], Iterable[Finding]]


def examined(group: Group, check: Check) -> Iterator[Finding]:
    """Run a check; if it raises, that is a finding too, after those that came before it."""
    try:
        for finding in check():
            yield replace(
                finding,
                group=group,
                detail=" ".join(finding.detail.split()),
                remedy=" ".join(finding.remedy.split()),
            )
    except Exception as error:  # noqa: BLE001 - a doctor that dies of one organ helps nobody.
        name = getattr(check, "__name__", "check").strip("_").replace("_", " ")
        reason = " ".join(str(error).split())
        yield Finding(
            what=name,
            verdict="broken",
            detail=f"could not be examined: {type(error).__name__}: {reason}",
            remedy="report this line with what is special about this machine",
            group=group,
        )
