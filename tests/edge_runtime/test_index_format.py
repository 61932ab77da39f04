import json
from dataclasses import asdict
from typing import Any

import pytest

from edge_runtime.errors import InputError
from edge_runtime.index_format import (
    SearchPlan,
    TileLevel,
    levels_from_json,
    search_from_json,
)

LEVELS = (
    TileLevel(size_m=80.0, stride_m=40.0, headings_deg=(0.0, 90.0), rows=10),
    TileLevel(size_m=160.0, stride_m=80.0, first_row=10, rows=3),
)
PLAN = SearchPlan(
    kind="graph", connectivity=16, expansion_add=128, expansion=64, recall_at_10=0.995, queries=256
)


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def test_levels_come_back_from_json() -> None:
    assert levels_from_json(through_json([asdict(level) for level in LEVELS])) == LEVELS


@pytest.mark.parametrize("plan", [PLAN, SearchPlan(), SearchPlan(dtype="i8", recall_at_10=0.99)])
def test_a_plan_comes_back_from_json(plan: SearchPlan) -> None:
    assert search_from_json(through_json(asdict(plan))) == plan


def test_an_index_without_a_plan_is_searched_exactly() -> None:
    assert search_from_json(None) == SearchPlan(kind="exact")


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"kind": "magic"}, id="unknown kind"),
        pytest.param({"dtype": "f8"}, id="unknown type"),
        pytest.param({"kind": "graph"}, id="graph without expansion"),
        pytest.param({"kind": "graph", "expansion": 0}, id="graph with expansion 0"),
        pytest.param({"breadth": 3}, id="unknown name"),
        pytest.param("graph", id="no object"),
        pytest.param({"kind": "graph", "expansion": "64"}, id="expansion as text"),
    ],
)
def test_what_is_no_plan_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match=r"expected one of|another version"):
        search_from_json(value)


@pytest.mark.parametrize("stride_m", [0.0, -1.0, 81.0, float("nan")])
def test_strides_that_make_no_sense_are_refused(stride_m: float) -> None:
    with pytest.raises(InputError, match="0 < stride <= size"):
        TileLevel(size_m=80.0, stride_m=stride_m)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        pytest.param([], "no level", id="none"),
        pytest.param([asdict(LEVELS[1])], "begins at row 10; expected 0", id="a gap"),
        pytest.param([{"size_m": 80.0}], "not levels of tiles", id="names missing"),
        pytest.param([asdict(LEVELS[0]) | {"colour": 1}], "not levels", id="unknown name"),
    ],
)
def test_what_is_no_levels_is_refused(value: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        levels_from_json(value)
