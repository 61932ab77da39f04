import json
import math
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import InputError
from edge_runtime.fix import STAGES, Fix, fix_from_json

FIX = Fix(
    seq=3,
    frame="000003.jpg",
    t_exposure_s=1.5,
    t_fix_s=1.61,
    status="OK",
    mode="TRACK",
    reason="",
    lat_deg=47.123456789012,
    lon_deg=-179.999999999,
    eph_m=4.25,
    probability=0.98,
    tile_id=0,
    latency_ms=dict.fromkeys(STAGES, 12.345),
    shed=("refine", "features"),
    bundle_id="0123456789ab",
)
NUMBER = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@given(NUMBER, NUMBER, st.text(), st.lists(st.text(), max_size=3), st.integers(0, 2**40))
def test_a_fix_survives_json_exactly(
    lat: float | None, ncc: float | None, frame: str, shed: list[str], seq: int
) -> None:
    fix = replace(FIX, lat_deg=lat, ncc=ncc, frame=frame, shed=tuple(shed), seq=seq)
    line = fix.to_json()
    assert "\n" not in line
    assert fix_from_json(line) == fix


def test_every_field_is_written_by_its_name() -> None:
    assert list(json.loads(FIX.to_json())) == [f.name for f in fields(Fix)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["lat_deg", "eph_m", "similarity", "margin"])
def test_what_is_not_finite_becomes_null(name: str, value: float) -> None:
    change: dict[str, Any] = {name: value}
    written = json.loads(replace(FIX, **change).to_json())
    assert written[name] is None


def test_a_latency_that_is_not_finite_becomes_null() -> None:
    written = json.loads(replace(FIX, latency_ms={"total": math.nan}).to_json())
    assert written["latency_ms"] == {"total": None}


def test_no_position_is_none_and_not_zero() -> None:
    empty = Fix(
        seq=0, frame="", t_exposure_s=0, t_fix_s=0, status="ABSTAIN", mode="GLOBAL", reason="start"
    )
    written = json.loads(empty.to_json())
    assert written["lat_deg"] is written["lon_deg"] is written["eph_m"] is None


def test_times_are_written_to_a_microsecond() -> None:
    line = replace(FIX, latency_ms={"total": 1.23456}).to_json()
    assert json.loads(line)["latency_ms"] == {"total": 1.235}


def edited(**changes: Any) -> str:
    return json.dumps(json.loads(FIX.to_json()) | changes)


def without(name: str) -> str:
    value = json.loads(FIX.to_json())
    del value[name]
    return json.dumps(value)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("", id="empty"),
        pytest.param(FIX.to_json()[:-9], id="torn"),
        pytest.param("[]", id="a list"),
        pytest.param("7", id="a number"),
        pytest.param("null", id="null"),
        pytest.param(edited(altitude_m=3), id="an unknown name"),
        pytest.param(without("eph_m"), id="a missing name"),
        pytest.param(without("shed"), id="a missing tuple"),
        pytest.param(edited(status="FINE"), id="an unknown status"),
        pytest.param(
            edited(mode="LOCAL"),
            id="an unknown mode",
        ),
    ],
)
def test_what_is_not_a_fix_record_is_refused(line: str) -> None:
    with pytest.raises(InputError, match=r"not a fix record .* one JSON object per line"):
        fix_from_json(line)


def test_an_unknown_status_is_named() -> None:
    with pytest.raises(InputError, match="FINE"):
        fix_from_json(edited(status="FINE"))
