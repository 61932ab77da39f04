"""Telemetry with gaps, nonsense, jumps and wrong clocks: said, never believed, not the end."""

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.flight_log import RunSettings, read_log
from edge_runtime.run import run

Row = Callable[[float], str | None]


def during(began_s: float, ended_s: float, row: str | None) -> Row:
    """Rows of a time are replaced; `{t}` stands for it."""

    def change(t: float) -> str | None:
        if not began_s <= t <= ended_s:
            return f"{t},100,0,0,0"
        return None if row is None else row.format(t=t)

    return change


FAULTS: dict[str, tuple[Row, str]] = {
    "a gap": (during(1.9, 4.9, None), "no height above ground within 1 s"),
    "not a number": (during(1.9, 4.9, "{t},nan,nan,,inf"), "no height above ground within 1 s"),
    "a spike of the height": (during(2.9, 3.1, "{t},400,0,0,0"), "height above ground jumps from"),
    "a jump of the height that stays a while": (
        during(1.9, 2.3, "{t},190,0,0,0"),
        "height above ground jumps from",
    ),
    "a height that no drone has": (during(1.9, 4.9, "{t},-90000,0,0,0"), "which no drone has"),
    "an angle that is none": (during(1.9, 4.9, "{t},100,9000,0,0"), "which no drone has"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_rows_are_told_and_the_flight_is_right_after_them(
    settings: RunSettings,
    telemetry: Callable[..., Path],
    tmp_path: Path,
    flown: Any,
    events: Callable[[Sequence[Fix]], str],
    fault: str,
) -> None:
    change, event = FAULTS[fault]
    summary = run(replace(settings, telemetry=str(telemetry(change))), tmp_path / "fixes.jsonl")
    fixes = list(read_log(tmp_path / "fixes.jsonl"))
    assert summary.frames == len(fixes) == len(flown.images)
    flown.assert_never_wrong(fixes)
    assert {fix.status for fix in fixes[:3]} == {"OK"}
    assert fixes[-1].status == "OK"
    assert event in events(fixes)


def test_positions_of_zero_are_none_and_change_nothing(
    settings: RunSettings,
    telemetry: Callable[..., Path],
    tmp_path: Path,
    events: Callable[[Sequence[Fix]], str],
) -> None:
    rows = telemetry(
        lambda t: f"{t},100,0,0,0,0,0", "t_s,height_m,yaw_deg,pitch_deg,roll_deg,lat_deg,lon_deg"
    )
    summary = run(replace(settings, telemetry=str(rows)), tmp_path / "fixes.jsonl")
    assert summary.ok == summary.frames
    assert "which means that there is none" in events(list(read_log(tmp_path / "fixes.jsonl")))


def test_a_telemetry_clock_that_is_set_back_gives_no_wrong_state(
    settings: RunSettings,
    telemetry: Callable[..., Path],
    tmp_path: Path,
    flown: Any,
    events: Callable[[Sequence[Fix]], str],
) -> None:
    """After four seconds the logger's clock went back by an hour; the heights after are others."""
    rows = telemetry(lambda t: f"{t},100,0,0,0" if t < 4 else f"{t - 3600:.1f},60,90,0,0")
    run(replace(settings, telemetry=str(rows)), tmp_path / "fixes.jsonl")
    fixes = list(read_log(tmp_path / "fixes.jsonl"))
    flown.assert_never_wrong(fixes)
    assert [fix.status for fix in fixes[:8]] == ["OK"] * 8
    assert "the clock was set back by 3599.8 s after 3.80 s" in events(fixes)
    assert "no height above ground within 1 s" in events(fixes)


def test_rows_of_another_time_altogether_give_nothing(
    settings: RunSettings,
    telemetry: Callable[..., Path],
    tmp_path: Path,
    events: Callable[[Sequence[Fix]], str],
) -> None:
    rows = telemetry(lambda t: f"{t + 500},100,0,0,0")
    summary = run(replace(settings, telemetry=str(rows)), tmp_path / "fixes.jsonl")
    fixes = list(read_log(tmp_path / "fixes.jsonl"))
    assert (summary.ok, len(fixes)) == (0, summary.frames)
    assert all("no height above ground" in fix.reason for fix in fixes)
    assert "no height above ground within 1 s" in events(fixes)


def test_no_telemetry_at_all_is_refused_with_what_to_give(
    settings: RunSettings, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="telemetry"):
        run(replace(settings, telemetry=settings.source), tmp_path / "fixes.jsonl")


def test_an_autopilot_that_never_speaks_ends_nothing(
    settings: RunSettings,
    tmp_path: Path,
    events: Callable[[Sequence[Fix]], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("pymavlink")
    monkeypatch.setattr("edge_runtime.states.mavlink_reading._HEARTBEAT_LOST_S", 0.1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

    def watch(fix: Fix, done: int, total: int | None) -> None:
        if done == 8:
            time.sleep(0.2)

    flight = replace(settings, telemetry=f"mavlink:udpin:127.0.0.1:{port}")
    summary = run(flight, tmp_path / "fixes.jsonl", watch=watch)
    fixes = list(read_log(tmp_path / "fixes.jsonl"))
    assert (summary.ok, len(fixes)) == (0, summary.frames)
    assert all("no height above ground" in fix.reason for fix in fixes)
    assert "heartbeat" in events(fixes)
