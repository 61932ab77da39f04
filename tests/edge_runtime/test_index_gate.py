from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.backends.protocol import Backend, open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.errors import GateError, ImageryError
from edge_runtime.geodesy import enu_offset_m
from edge_runtime.index_gate import (
    PlaceQuality,
    PlaceQueries,
    Places,
    embed_queries,
    gate_places,
    place_quality,
    place_queries,
    places_of,
)
from edge_runtime.satellite_index import SatelliteIndex

pytest.importorskip("onnxruntime")

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]


@pytest.fixture
def index(index_dir: Path) -> Iterator[SatelliteIndex]:
    opened = SatelliteIndex.open(index_dir)
    yield opened
    opened.close()


@pytest.fixture
def backend(bundle: Bundle) -> Iterator[Backend]:
    opened = open_backend(bundle, "ort-cpu", threads=1)
    yield opened
    opened.close()


def quality(value: float) -> PlaceQuality:
    return PlaceQuality(recall_at_1=value, recall_at_10=value, success_20m=value)


def looked_up(
    index: SatelliteIndex, bundle: Bundle, backend: Backend, embed: Callable[[U8], F32]
) -> PlaceQuality:
    places = places_of(index, bundle.weights_sha256, bundle.spec, backend.embed)
    queries = place_queries(index, places, bundle.spec, count=60, seed=3)
    embeddings = embed_queries(embed, queries, stage="views", progress=lambda *_: None)
    return place_quality(embeddings, queries, places)


def test_the_encoder_that_made_the_index_finds_most_places(
    index: SatelliteIndex, bundle: Bundle, backend: Backend
) -> None:
    found = looked_up(index, bundle, backend, backend.embed)
    assert found.recall_at_10 > 0.5
    assert found.recall_at_1 <= found.recall_at_10
    gate_places(found, found, "fp32")


def test_an_index_of_another_encoder_is_embedded_anew_in_part(
    index: SatelliteIndex, bundle: Bundle, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.index_gate.MAX_REEMBEDDED_TILES", 50)
    places = places_of(index, "cd" * 32, bundle.spec, backend.embed)
    assert len(places.lat_deg) == 50
    queries = place_queries(index, places, bundle.spec, count=40)
    embeddings = backend.embed(queries.images)
    assert place_quality(embeddings, queries, places).recall_at_10 > 0.5


def test_an_encoder_that_confuses_colours_finds_less_and_is_refused(
    index: SatelliteIndex, bundle: Bundle, backend: Backend
) -> None:
    right = looked_up(index, bundle, backend, backend.embed)
    wrong = looked_up(index, bundle, backend, lambda x: backend.embed(x[..., ::-1].copy()))
    with pytest.raises(GateError, match=r"^int8: recall@1 on the index is .*%, the trained"):
        gate_places(wrong, right, "int8")


@pytest.mark.parametrize(("drop", "passes"), [(0.0, True), (0.01, True), (0.02, False)])
def test_the_limit_of_a_precision_decides(drop: float, passes: bool) -> None:
    if passes:
        gate_places(quality(0.9 - drop), quality(0.9), "fp16")
    else:
        with pytest.raises(GateError, match=r"expected a loss of at most 1\.0%"):
            gate_places(quality(0.9 - drop), quality(0.9), "fp16")


@pytest.mark.parametrize("name", ["recall_at_1", "recall_at_10", "success_20m"])
def test_each_of_the_three_is_a_gate_and_nan_passes_none(name: str) -> None:
    for value in (0.5, float("nan")):
        with pytest.raises(GateError):
            gate_places(replace(quality(0.9), **{name: value}), quality(0.9), "fp32")


def test_ranks_and_metres_are_counted_by_hand() -> None:
    # Four tiles 100 m apart on a meridian; answers are made up.
    lat_deg = 47.0 + np.arange(4) * 100 / 111_320
    lon_deg = np.full(4, 8.0)
    ranked = np.array([[0, 1], [0, 1], [3, 2], [-1, -1]])
    places = Places(lat_deg=lat_deg, lon_deg=lon_deg, search=lambda _e, _k: ranked)
    queries = PlaceQueries(
        images=np.zeros((4, 2, 2, 3), np.uint8),
        lat_deg=lat_deg + np.array([10, 5, 0, 0]) / 111_320,
        lon_deg=lon_deg,
    )
    found = place_quality(np.zeros((4, 3), np.float32), queries, places)
    assert found == PlaceQuality(recall_at_1=0.25, recall_at_10=0.75, success_20m=0.25)


def test_views_lie_within_half_a_stride_of_their_tiles_and_are_the_same_every_time(
    index: SatelliteIndex, bundle: Bundle, backend: Backend
) -> None:
    places = places_of(index, bundle.weights_sha256, bundle.spec, backend.embed)
    queries = place_queries(index, places, bundle.spec, count=30, seed=1)
    again = place_queries(index, places, bundle.spec, count=30, seed=1)
    assert np.array_equal(queries.images, again.images)
    assert queries.images.shape == (30, 32, 32, 3)
    for lat, lon in zip(queries.lat_deg, queries.lon_deg, strict=True):
        offset = enu_offset_m(lat, lon, places.lat_deg, places.lon_deg)
        assert np.hypot(offset.east_m, offset.north_m).min() <= 25 / 2 * np.sqrt(2) + 0.1


def test_a_map_without_imagery_is_refused(
    index: SatelliteIndex, bundle: Bundle, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = places_of(index, bundle.weights_sha256, bundle.spec, backend.embed)
    monkeypatch.setattr("edge_runtime.index_gate._MIN_COVERAGE", 1.1)
    with pytest.raises(ImageryError, match="only 0 of 200 places"):
        place_queries(index, places, bundle.spec, count=10)
