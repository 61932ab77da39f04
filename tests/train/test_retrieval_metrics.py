import csv
import json
import tracemalloc
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import InputError
from edge_runtime.geodesy import distance_m, haversine_m, move_lat_lon
from train import exact_similarity
from train.retrieval_metrics import QueryRanks, rank_queries, summarise, write_per_query

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

SEEDED = settings(derandomize=True, deadline=None, max_examples=80)


def grid_rows(seed: int, rows: int, size: int = 4) -> F32:
    """Small integers: scalar products are exact and tie often."""
    return np.random.default_rng(seed).integers(-2, 3, (rows, size)).astype(np.float32)


def unit_rows(seed: int, rows: int, size: int) -> F32:
    found = np.random.default_rng(seed).normal(size=(rows, size))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def own(queries: F32, gallery: F32, **more: int) -> QueryRanks:
    """Query n is shown by reference n."""
    return rank_queries(
        queries, gallery, np.arange(len(queries)), np.arange(len(gallery)), top_k=more.get("k", 10)
    )


def order_slowly(scores: list[float], true: list[bool]) -> list[int]:
    """References best first; of equal ones the false first, then the lower row."""
    return sorted(range(len(scores)), key=lambda n: (-scores[n], true[n], n))


def precision_slowly(order: list[int], true: list[bool]) -> float:
    """Walks down the list as the published evaluator's definition does."""
    places = [place for place, row in enumerate(order) if true[row]]
    total = 0.0
    for n, place in enumerate(places):
        before = n / place if place else 1.0
        total += (before + (n + 1) / (place + 1)) / 2 / len(places)
    return total


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks with many borders and part-filled last ones."""
    monkeypatch.setattr(exact_similarity, "REFERENCE_BLOCK", 19)
    monkeypatch.setattr("train.retrieval_metrics.QUERY_BLOCK", 11)


@SEEDED
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 30),
    gallery=st.integers(1, 60),
    places=st.integers(1, 40),
    top_k=st.integers(1, 12),
    semi=st.integers(0, 3),
    without_distractors=st.booleans(),
)
def test_every_figure_of_every_query_equals_a_walk_down_its_sorted_list(
    seed: int,
    queries: int,
    gallery: int,
    places: int,
    top_k: int,
    semi: int,
    without_distractors: bool,
) -> None:
    rng = np.random.default_rng(seed)
    query_rows, gallery_rows = grid_rows(seed, queries), grid_rows(seed + 1, gallery)
    query_labels, gallery_labels = (
        rng.integers(0, places, queries),
        rng.integers(0, places, gallery),
    )
    gallery_labels[0] = query_labels[0]
    semi_positives = rng.integers(-1, gallery, (queries, semi))
    found = rank_queries(
        query_rows,
        gallery_rows,
        query_labels,
        gallery_labels,
        semi_positives=semi_positives,
        top_k=top_k,
        gallery_kind="without distractors" if without_distractors else "all",
    )
    kept = [
        row
        for row in range(gallery)
        if not without_distractors or gallery_labels[row] in query_labels
    ]
    assert found.gallery == len(kept)
    for q in range(queries):
        scores = [float(gallery_rows[row] @ query_rows[q]) for row in kept]
        true = [bool(gallery_labels[row] == query_labels[q]) for row in kept]
        order = order_slowly(scores, true)
        assert found.top_rows[q].tolist() == [kept[n] for n in order[:top_k]]
        assert found.top_score[q] == max(scores)
        assert found.true_references[q] == sum(true)
        if not any(true):
            assert found.best_rank[q] == len(kept)
            assert found.average_precision[q] == 0
            assert found.true_score[q] == -np.inf
            assert found.hit is None or not found.hit[q]
            continue
        best = next(place for place, n in enumerate(order) if true[n])
        assert found.best_rank[q] == best
        assert found.true_score[q] == scores[order[best]]
        assert found.average_precision[q] == pytest.approx(precision_slowly(order, true))
        others = [kept[n] for n in order[:best] if kept[n] not in semi_positives[q]]
        assert found.hit is None or found.hit[q] == (not others)
    assert (found.hit is None) == (semi == 0)


@pytest.mark.parametrize(
    ("true_places", "expected"),
    [
        pytest.param([0], 1.0, id="first"),
        pytest.param([1], 0.25, id="second"),
        pytest.param([9], 0.05, id="tenth"),
        # By hand; the last is a step of 1 and one from 1/2 to 2/3, so (1 + 7/12) / 2.
        pytest.param([0, 1], 1.0, id="both first"),
        pytest.param([0, 2], 19 / 24, id="first and third"),
        # The steps: from 0 to 1/2, from 1/3 to 2/4, from 2/4 to 3/5.
        pytest.param([1, 3, 4], (0.25 + 5 / 12 + 0.55) / 3, id="three"),
    ],
)
def test_average_precision_is_the_trapezoid_of_university_1652(
    true_places: list[int], expected: float
) -> None:
    gallery = np.linspace(1, 0.1, 10, dtype=np.float32)[:, None]
    labels = np.array([7 if place in true_places else 100 + place for place in range(10)])
    found = rank_queries(np.ones((1, 1), np.float32), gallery, np.array([7]), labels)
    assert found.average_precision[0] == pytest.approx(expected)


def test_a_tie_with_a_false_reference_lowers_average_precision() -> None:
    # True and false score alike, so the true one is second.
    found = rank_queries(
        np.ones((1, 1), np.float32), np.ones((2, 1), np.float32), np.array([5]), np.array([5, 6])
    )
    assert found.average_precision[0] == 0.25
    assert found.top_rows[0].tolist() == [1, 0]


def test_a_hit_needs_no_reference_but_semi_positives_before_the_true_one() -> None:
    gallery = np.array([[0.9], [0.8], [0.7], [0.6], [0.6]], np.float32)
    query = np.ones((1, 1), np.float32)

    def hit(true: int, semi: list[int]) -> bool:
        labels = np.arange(5)
        found = rank_queries(
            query, gallery, labels[[true]], labels, semi_positives=np.array([semi])
        )
        assert found.hit is not None
        return bool(found.hit[0])

    assert hit(0, [1, 2, 3]), "first anyway"
    assert hit(2, [0, 1, 4]), "only semi-positives before it"
    assert hit(2, [0, 0, 1]), "one named twice counts once"
    assert not hit(2, [0, 3, 4]), "another before it"
    assert not hit(2, [0, 0, 3]), "one named twice hides no other"
    assert not hit(3, [0, 1, 2]), "another that ties with it"
    assert hit(3, [0, 1, 2, 4]), "a semi-positive that ties with it"


@pytest.mark.parametrize("size", [1, 64, 1023])
@pytest.mark.parametrize("gallery", [2, 20, 150])
def test_a_constant_embedding_finds_nothing(gallery: int, size: int) -> None:
    # The published evaluators give it R@1 = 100 %. 18, 19 and 20 references end a block.
    constant = np.tile(unit_rows(1, 1, size), (gallery, 1))
    ranks = own(constant, constant)
    assert ranks.best_rank.tolist() == [gallery - 1] * gallery
    found = summarise(ranks)
    assert found.r_at_1 == found.r_at_1_percent == 0.0
    assert found.median_rank == gallery
    assert found.average_precision == pytest.approx(0.5 / gallery)


def test_copies_of_the_true_reference_come_before_it_in_whatever_block() -> None:
    # 300 numbers: in float32 the last bit of a copy's score depends on where it stands.
    queries, gallery = unit_rows(1, 40, 300), unit_rows(2, 200, 300)
    queries = (gallery[:40] + 0.01 * queries).astype(np.float32)
    gallery[120:160] = gallery[199:159:-1] = gallery[:40]
    found = own(queries, gallery)
    assert found.best_rank.tolist() == [2] * 40
    for row in range(40):
        assert found.top_rows[row, :3].tolist() == [120 + row, 199 - row, row]


def test_no_figure_depends_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, gallery = unit_rows(1, 100, 64), unit_rows(2, 90, 64)
    labels = np.random.default_rng(3).integers(0, 50, 190)
    reference = rank_queries(queries, gallery, labels[:100], labels[100:])
    for rows, columns in ((7, 90), (100, 1), (4096, 4096)):
        monkeypatch.setattr(exact_similarity, "REFERENCE_BLOCK", columns)
        monkeypatch.setattr("train.retrieval_metrics.QUERY_BLOCK", rows)
        found = rank_queries(queries, gallery, labels[:100], labels[100:])
        for name in ("best_rank", "average_precision", "true_score", "top_score", "top_rows"):
            assert np.array_equal(getattr(found, name), getattr(reference, name)), name


@pytest.mark.slow
def test_memory_does_not_grow_with_queries_times_references(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exact_similarity, "REFERENCE_BLOCK", 4096)
    monkeypatch.setattr("train.retrieval_metrics.QUERY_BLOCK", 2048)
    queries, gallery = unit_rows(1, 15_000, 8), unit_rows(2, 15_000, 8)
    tracemalloc.start()
    own(queries, gallery)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 250 * 2**20 < 15_000**2 * 4 / 3


def test_shuffling_the_gallery_changes_no_rank() -> None:
    queries, gallery = grid_rows(1, 40), grid_rows(2, 60)
    labels = np.random.default_rng(5).integers(0, 30, 60)
    order = np.random.default_rng(4).permutation(60)
    found, again = (
        rank_queries(queries, gallery[rows], np.arange(40), labels[rows])
        for rows in (np.arange(60), order)
    )
    assert np.array_equal(found.best_rank, again.best_rank)
    assert np.array_equal(found.average_precision, again.average_precision)


def test_a_perfect_encoder_is_perfect() -> None:
    eye = np.eye(20, dtype=np.float32)
    found = summarise(own(eye, eye))
    assert (found.r_at_1, found.r_at_5, found.r_at_10, found.median_rank) == (1, 1, 1, 1)
    assert (found.queries, found.gallery, found.average_precision) == (20, 20, 1)
    assert (found.hit_rate, found.metres) == (None, None)


def test_recall_counts_the_first_k() -> None:
    # Query n scores its own match 0.5 and n other references 1: its rank is n.
    gallery = np.eye(21, dtype=np.float32)
    queries = np.array([[*np.ones(n), *np.zeros(21 - n)] for n in range(20)], np.float32)
    queries[:, 20] = 0.5
    found = summarise(rank_queries(queries, gallery, np.full(20, 20), np.arange(21)))
    assert found.r_at_1 == 1 / 20
    assert found.r_at_5 == 5 / 20
    assert found.r_at_10 == 10 / 20
    assert found.median_rank == 10.5


@pytest.mark.parametrize(("gallery", "k"), [(1, 1), (99, 1), (100, 1), (199, 1), (250, 2)])
def test_one_percent_is_rounded_down_but_never_to_none(gallery: int, k: int) -> None:
    rows = unit_rows(6, gallery, 8)
    assert summarise(own(rows[:1], rows)).k_of_1_percent == k


def test_recall_at_one_percent_uses_its_k() -> None:
    gallery = np.eye(250, dtype=np.float32)
    queries = np.zeros((3, 250), np.float32)
    for rank, query in enumerate(queries):
        query[:rank] = 1.0
        query[249] = 0.5
    found = summarise(rank_queries(queries, gallery, np.full(3, 249), np.arange(250)))
    assert found.r_at_1 == pytest.approx(1 / 3)
    assert found.r_at_1_percent == pytest.approx(2 / 3)


def test_a_query_that_nothing_is_true_for_counts_as_not_found() -> None:
    eye = np.eye(4, dtype=np.float32)
    found = summarise(rank_queries(eye, eye, np.array([0, 1, 2, 9]), np.arange(4)))
    assert found.r_at_1 == found.r_at_10 == found.average_precision == 0.75
    assert found.queries_without_true == 1


def test_both_galleries_are_named_with_their_size() -> None:
    # Two distractors of three score above every true reference.
    queries = np.eye(3, dtype=np.float32)
    gallery = np.concatenate([queries, np.full((2, 3), 2, np.float32), -queries[:1]])
    labels = np.arange(3), np.array([0, 1, 2, 50, 51, 52])
    everything = summarise(rank_queries(queries, gallery, *labels))
    fewer = summarise(rank_queries(queries, gallery, *labels, gallery_kind="without distractors"))
    assert (everything.r_at_1, everything.gallery, everything.gallery_kind) == (0, 6, "all")
    assert (fewer.r_at_1, fewer.gallery, fewer.gallery_kind) == (1, 3, "without distractors")
    assert str(everything).endswith("3 queries, 6 references (all)")
    assert str(fewer).endswith("3 queries, 3 references (without distractors)")
    assert "R@1% 100.00% (K = 1)" in str(fewer)


def located(east_m: list[float], k: int = 10) -> QueryRanks:
    """One query at the origin; answers in this order, each so far east."""
    gallery = np.linspace(1, 0.1, len(east_m), dtype=np.float32)[:, None]
    lat, lon = move_lat_lon(52.0, 179.9999, np.array(east_m), np.zeros(len(east_m)))
    return rank_queries(
        np.ones((1, 1), np.float32),
        gallery,
        np.array([0]),
        np.arange(len(east_m)),
        top_k=k,
        query_lat_deg=np.array([52.0]),
        query_lon_deg=np.array([179.9999]),
        gallery_lat_deg=lat,
        gallery_lon_deg=lon,
    )


def test_distances_of_the_answers_are_averaged_over_the_first_k() -> None:
    found = summarise(located([4.0, 10.0, 1.0, 30.0, 5.0, 2.0, 2.0, 2.0, 2.0, 2.0])).metres
    assert found is not None
    assert found.dis_at_1_m == found.median_m == pytest.approx(4.0)
    assert found.dis_at_3_m == pytest.approx(5.0)
    assert found.dis_at_5_m == pytest.approx(10.0)
    assert found.dis_at_10_m == pytest.approx(6.0)


def test_success_is_a_share_of_all_queries() -> None:
    # Query n is answered by reference n, this far off; the last one by something far away.
    off = np.array([0.5, 2.0, 4.0, 9.0, 19.0, 49.0, 99.0, 5e6])
    eye = np.eye(8, dtype=np.float32)
    lat, lon = np.full(8, 10.0), np.full(8, 20.0)
    east = move_lat_lon(10.0, 20.0, off, np.zeros(8))
    ranks = rank_queries(
        eye,
        eye,
        np.arange(8),
        np.arange(8),
        query_lat_deg=lat,
        query_lon_deg=lon,
        gallery_lat_deg=east.lat_deg,
        gallery_lon_deg=east.lon_deg,
    )
    found = summarise(ranks).metres
    assert found is not None
    names = ("1", "3", "5", "10", "20", "50", "100")
    shares = [getattr(found, f"success_at_{name}_m") for name in names]
    assert shares == [n / 8 for n in range(1, 8)]
    assert found.median_m == pytest.approx(14.0)


def test_distances_are_on_the_ellipsoid_near_and_on_the_sphere_far() -> None:
    rng = np.random.default_rng(1)
    lat, lon = rng.uniform(-80, 80, 30), rng.uniform(-180, 180, 30)
    lat[:10], lon[:10] = move_lat_lon(lat[10:20], lon[10:20], *rng.uniform(-500, 500, (2, 10)))
    rows = unit_rows(1, 30, 8)
    found = rank_queries(
        rows,
        rows,
        np.arange(30),
        np.arange(30),
        top_k=30,
        query_lat_deg=lat,
        query_lon_deg=lon,
        gallery_lat_deg=lat,
        gallery_lon_deg=lon,
    )
    assert found.distances_m is not None
    for query in range(30):
        for place, row in enumerate(found.top_rows[query]):
            ends = lat[query], lon[query], lat[row], lon[row]
            far = haversine_m(*ends) > 20_000
            expected = haversine_m(*ends) if far else distance_m(*ends)
            assert found.distances_m[query, place] == pytest.approx(float(expected))


def test_metrics_are_plain_json_values() -> None:
    values = summarise(located([1.0, 2.0])).to_json()
    assert json.loads(json.dumps(values)) == values
    assert values["metres"]["dis_at_10_m"] == pytest.approx(1.5), "all there are"


def test_a_line_is_written_for_every_query(tmp_path: Path) -> None:
    queries, gallery = grid_rows(1, 30), grid_rows(2, 40)
    labels = np.arange(30), np.arange(40) + 1  # No reference shows the place of query 0.
    semi = np.random.default_rng(1).integers(0, 40, (30, 3))
    ranks = rank_queries(
        queries,
        gallery,
        *labels,
        semi_positives=semi,
        top_k=3,
        query_lat_deg=np.zeros(30),
        query_lon_deg=np.zeros(30),
        gallery_lat_deg=np.zeros(40),
        gallery_lon_deg=np.full(40, 0.001),
    )
    for path in (tmp_path / "q.jsonl", tmp_path / "q.csv"):
        write_per_query(
            path, ranks, query_name=lambda row: f"photo {row}", gallery_name="tile {}, b".format
        )
    lines = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    assert [line["query"] for line in lines] == [f"photo {row}" for row in range(30)]
    assert lines[0]["rank"] is None
    assert lines[0]["true_score"] is None
    for row, line in list(enumerate(lines))[1:]:
        assert line["rank"] == ranks.best_rank[row] + 1
        assert ranks.hit is not None
        assert line["hit"] == ranks.hit[row]
        assert line["top"] == [f"tile {top}, b" for top in ranks.top_rows[row]]
        assert line["top_1_distance_m"] == pytest.approx(111.319, abs=1e-2)
    with (tmp_path / "q.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [row["rank"] for row in table] == [
        "" if x["rank"] is None else str(x["rank"]) for x in lines
    ]
    assert [row["top_3"] for row in table] == [line["top"][2] for line in lines]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["q.csv", "q.jsonl"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_an_embedding_that_is_not_finite_is_refused(value: float, which: int) -> None:
    views = [grid_rows(1, 10), grid_rows(2, 10)]
    views[which][4, 1] = value
    with pytest.raises(InputError, match="check the training"):
        own(views[0], views[1])


def test_what_cannot_be_ranked_is_refused() -> None:
    rows, ten = grid_rows(1, 10), np.arange(10)
    with pytest.raises(InputError, match="do not fit; expected"):
        rank_queries(rows, grid_rows(2, 10, size=5), ten, ten)
    with pytest.raises(InputError, match="expected one label of each"):
        rank_queries(rows, rows, ten, ten[:9])
    with pytest.raises(InputError, match="and some"):
        rank_queries(rows, rows[:0], ten, ten[:0])
    with pytest.raises(InputError, match="check the labels"):
        rank_queries(rows, rows, ten, ten + 10)
    with pytest.raises(InputError, match="expected at least 1 answer"):
        rank_queries(rows, rows, ten, ten, top_k=0)
    with pytest.raises(InputError, match="expected -1 to 9"):
        rank_queries(rows, rows, ten, ten, semi_positives=np.full((10, 3), 10))
    with pytest.raises(InputError, match=r"expected \(Q, S\)"):
        rank_queries(rows, rows, ten, ten, semi_positives=np.zeros((9, 3), np.int64))


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        ("query_lat_deg", np.zeros(9), "10 queries, but latitudes"),
        ("gallery_lon_deg", np.zeros(11), "10 references, but latitudes"),
        ("query_lat_deg", np.full(10, 91.0), "latitude 91"),
        ("gallery_lon_deg", np.full(10, np.nan), "longitude nan"),
    ],
)
def test_positions_that_cannot_be_are_refused(column: str, value: F64, match: str) -> None:
    rows, ten = grid_rows(1, 10), np.arange(10)
    sides = ("query_lat_deg", "query_lon_deg", "gallery_lat_deg", "gallery_lon_deg")
    columns = {**dict.fromkeys(sides, np.zeros(10)), column: value}
    with pytest.raises(InputError, match=match):
        rank_queries(
            rows,
            rows,
            ten,
            ten,
            query_lat_deg=columns["query_lat_deg"],
            query_lon_deg=columns["query_lon_deg"],
            gallery_lat_deg=columns["gallery_lat_deg"],
            gallery_lon_deg=columns["gallery_lon_deg"],
        )


def test_distances_need_ten_answers() -> None:
    with pytest.raises(InputError, match="needs a top_k of 10"):
        summarise(located([float(n) for n in range(12)], k=9))
