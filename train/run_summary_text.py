"""How the figures of a training run are written."""

from pathlib import PurePath

DASH = "\N{EN DASH}"
NO_BREAK = "\N{NO-BREAK SPACE}"


def duration(seconds: float) -> str:
    """The two largest units: 45 s, 12 min, 2 h 10 min, 3 d 4 h."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def percent(share: float) -> str:
    """With a digit more where it is near the end, as 98.68 %."""
    return f"{100 * share:.{2 if 0.9 < share < 1 else 1}f}{NO_BREAK}%"


def percent_tick(share: float) -> str:
    """A share on an axis."""
    return f"{100 * share:g} %"


def metres(value: float) -> str:
    """A distance."""
    if value >= 10_000:
        return f"{value / 1000:,.0f}{NO_BREAK}km"
    return f"{value:,.{0 if value >= 100 else 1}f}{NO_BREAK}m"


def exponent(value: float) -> str:
    """A learning rate: 0.001, 5e-5."""
    if value == 0 or abs(value) >= 1e-3:
        return f"{value:.3g}"
    mantissa, power = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(power)}"


def rounded(value: float) -> str:
    """At least three digits: 1,234 or 1.23."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def counted(value: int) -> str:
    """With thousands apart."""
    return f"{value:,}"


def plural(count: int, noun: str) -> str:
    """`1 epoch`, `40 epochs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def setting_value(value: object) -> str:
    """A setting as `--set` takes it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def short_name(name: str) -> str:
    """The last two parts of a path."""
    return "/".join(PurePath(name).parts[-2:])
