import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from edge_runtime.errors import InputError
from edge_runtime.geodesy import distance_m
from train.config import TrainConfig
from train.evaluation import Evaluation
from train.fit import EpochReport
from train.loss import training_loss
from train.pair_table import ImageSet, ImageSource, RetrievalTask, UnreadableImageError
from train.presets import CVUSA
from train.retrieval_metrics import rank_queries, summarise
from train.run_summary import (
    MOST_BYTES,
    Answer,
    Example,
    Step,
    TrainingData,
    examples_of,
    loss_floor,
    loss_of_a_guess,
    write_run_summary,
)
from train.run_summary_text import DASH, duration, exponent, metres, percent
from train.svg_plots import Curve, Level, line_chart, thinned

U8 = npt.NDArray[np.uint8]

DATA = TrainingData(name="cvusa/train", pairs=1000, sha256="0123456789abcdef" * 4)
TASK = "cvusa/street-to-satellite"
NASTY = "<script>alert(\"1\")</script> & 'Co'"


class Page(HTMLParser):
    """What a page consists of; fails on tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def retrieval(r_at_1: float, *, median_m: float | None = None) -> dict[str, Any]:
    return {
        "queries": 500, "gallery": 2000, "gallery_kind": "all",
        "r_at_1": r_at_1, "r_at_5": r_at_1 + 0.02, "r_at_10": r_at_1 + 0.03,
        "r_at_1_percent": 0.99, "k_of_1_percent": 20, "median_rank": 1.0,
        "average_precision": r_at_1 + 0.01, "hit_rate": None, "queries_without_true": 0,
        "metres": None if median_m is None else {"median_m": median_m, "success_at_20_m": 0.61},
    }  # fmt: skip


def epochs(count: int, *, steps: int = 7, **values: Any) -> list[dict[str, Any]]:
    """A history as the checkpoint keeps it."""
    rng = np.random.default_rng(count)
    reports = [
        EpochReport(
            epoch=k + 1,
            loss=float(3.0 / (k + 1) + rng.uniform(1, 2)),
            steps=steps,
            pairs_per_s=float(rng.uniform(300, 400)),
            sampler="distance on the ground" if k < 4 else f"similarity after epoch {k // 4 * 4}",
            learning_rate=float(rng.uniform(1e-5, 1e-3)),
            temperature=float(rng.uniform(0.01, 0.07)),
            wall_s=0.0,
            waiting=float(rng.uniform(0, 0.2)),
        )
        for k in range(count)
    ]
    # Without `wall_s`, as histories of before it was kept.
    rows = [{k: v for k, v in asdict(report).items() if k != "wall_s"} for report in reports]
    return [{**row, **values} for row in rows]


def steps_of(history: Sequence[dict[str, Any]], *, more: int = 0) -> list[Step]:
    count = sum(report["steps"] for report in history) + more
    return [Step(k + 1, 2.0 + math.cos(k), 1e-3, 0.07) for k in range(count)]


def picture(rng: np.random.Generator, height: int = 160, width: int = 160) -> U8:
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def example(rng: np.random.Generator, task: str = TASK, name: str = "a/b/1.jpg") -> Example:
    answers = tuple(
        Answer(image=picture(rng), name=name, place=k + 1, similarity=0.5, is_true=k == 0)
        for k in range(3)
    )
    return Example(
        task=task, query=picture(rng), query_name=name, answers=answers, rank=1, gallery=9
    )


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def page_of(history: Sequence[dict[str, Any]], **values: Any) -> str:
        path = tmp_path / "ckpt.run" / "summary.html"
        given = {
            "title": "A run",
            "config": CVUSA,
            "data": DATA,
            "checkpoint": tmp_path / "ckpt",
            **values,
        }
        write_run_summary(path, history=history, **given)
        assert [p.name for p in path.parent.iterdir()] == ["summary.html"]
        return path.read_text()

    return page_of


def test_every_figure_of_the_history_is_in_its_epochs_row(write: Any) -> None:
    history = epochs(9)
    for report in history[3::4]:
        report["retrieval"] = {TASK: retrieval(0.1 * report["epoch"], median_m=120.0)}
    history[5]["unreadable"] = 3
    rows = {row[0]: row for row in Page(write(history)).rows if len(row) > 10}
    assert rows.pop("epoch")[-1] == "median distance"
    assert len(rows) == len(history)
    for report in history:
        found = report["retrieval"].get(TASK)
        assert rows[str(report["epoch"])] == [
            str(report["epoch"]),
            f"{report['loss']:.4f}",
            "7",
            exponent(report["learning_rate"]),
            f"{report['temperature']:.4f}",
            f"{report['pairs_per_s']:.0f}",
            percent(report["waiting"]),
            str(report["unreadable"]),
            report["sampler"],
            *(
                percent(found[name]) if found else DASH
                for name in ("r_at_1", "r_at_5", "r_at_10", "average_precision")
            ),
            metres(120.0) if found else DASH,
        ]


def test_the_last_evaluation_and_the_best_one_are_told_apart(write: Any) -> None:
    history = epochs(3)
    for report, value in zip(history, (0.4, 0.75, 0.5), strict=True):
        report["retrieval"] = {TASK: retrieval(value)}
    page = Page(write(history))
    assert "best after epoch 2: 75.0" in page.text
    assert ["R@1", percent(0.5)] in page.rows
    assert "chance finds 0.05 % at once" in page.text  # 1 of 2,000.
    history[2]["retrieval"] = {TASK: retrieval(0.8)}
    assert "best after" not in Page(write(history)).text


def test_the_page_needs_no_other_host(write: Any) -> None:
    rng = np.random.default_rng(1)
    html = write(epochs(2), examples=[example(rng)], steps=steps_of(epochs(2)))
    bare = re.sub(r"base64,[\w+/=]+", "", html)
    assert not re.search(r"(?:https?:)?//[a-z0-9]|url\(|@import", bare)
    assert "<script" not in html
    assert "default-src 'none'" in html
    assert {a["src"][:5] for tag, a in Page(html).seen if tag == "img" and a["src"]} == {"data:"}


def test_names_are_shown_and_never_obeyed(write: Any) -> None:
    rng = np.random.default_rng(1)
    tasks = {f"{data}/{NASTY}": retrieval(0.5, median_m=3.0) for data in ("set", "other")}
    history = epochs(2, sampler=NASTY, retrieval=tasks)
    html = write(
        history,
        title=NASTY,
        data=replace(DATA, name=NASTY),
        checkpoint=Path(NASTY),
        command_line=NASTY,
        examples=[example(rng, task=f"set/{NASTY}", name=NASTY)],
    )
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 12
    page = Page(html)  # Well formed, whatever the names.
    assert page.text.count(NASTY) >= 8
    assert any(a.get("alt") == f"Query {NASTY}" for _, a in page.seen)


def test_every_picture_and_chart_tells_what_it_shows(write: Any) -> None:
    rng = np.random.default_rng(1)
    history = epochs(2, retrieval={TASK: retrieval(0.5, median_m=3.0)})
    page = Page(write(history, examples=[example(rng)], steps=steps_of(history)))
    assert all(a["alt"] for tag, a in page.seen if tag == "img")
    charts = [a["aria-label"] or "" for tag, a in page.seen if tag == "svg"]
    assert len(charts) == 2 + 2 + 4
    assert "R@1: 50 % at first, 50 % at last. R@5: 52 % at first" in charts[2]
    assert all("at last" in label for label in charts)


def test_an_unfinished_run_says_so(write: Any) -> None:
    html = write(epochs(5, wall_s=60.0))
    assert "<title>5 of 40 epochs: A run</title>" in html
    text = Page(html).text
    assert "Unfinished 5 of 40 epochs in 5 min, about 35 min left at this pace." in text
    assert "to come" in text
    assert "--resume" in text
    assert "width:12.5%" in html


def test_a_finished_run_does_not_look_unfinished(write: Any) -> None:
    html = write(epochs(40, wall_s=195.0))
    text = Page(html).text
    assert "<title>A run</title>" in html
    assert "Finished 40 of 40 epochs in 2 h 10 min." in text
    for word in ("Unfinished", "to come", " left ", "--resume"):
        assert word not in text


def test_an_epoch_under_way_counts_by_its_steps(write: Any) -> None:
    history = epochs(10)
    html = write(history, steps=steps_of(history, more=14))  # Twice the 7 of the last epoch.
    assert "14 steps into epoch 11" in Page(html).text
    assert "width:30.0%" in html


def test_a_run_without_a_whole_epoch_shows_its_steps(write: Any) -> None:
    html = write([], config=replace(CVUSA, epochs=1, batch_size=10), steps=steps_of([], more=25))
    text = Page(html).text
    assert "0 of 1 epoch, 25 steps into epoch 1." in text
    assert "width:25.0%" in html  # 1,000 pairs are 100 batches of 10.
    assert "to come" in text
    for part in ("Next", "Speed", "epoch by epoch"):
        assert part not in text


def test_a_run_that_has_done_nothing_is_refused(write: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no epoch and no step to show; write the summary after"):
        write([])
    assert not (tmp_path / "ckpt.run").exists()


def test_a_report_without_a_figure_is_refused(write: Any) -> None:
    (report,) = epochs(1)
    del report["temperature"]
    with pytest.raises(InputError, match="has no 'temperature'; expected"):
        write([report])


def test_what_a_run_has_not_got_is_left_out(write: Any) -> None:
    plain = Page(write(epochs(3))).text
    for part in ("Retrieval", "R@1", "What it finds", "How far off", "Unreadable", "nan", "None"):
        assert part not in plain
    measured = Page(write(epochs(3, retrieval={TASK: retrieval(0.5)}))).text
    assert "R@1" in measured
    for part in ("How far off", "hit rate", "within", "without a true"):
        assert part not in measured
    assert "Unreadable 12 pairs" in Page(write(epochs(3, unreadable=4))).text


def test_the_sampler_of_every_epoch_is_in_the_band(write: Any) -> None:
    html = write(epochs(14))
    said = Page(html).text
    assert "distance on the ground, epochs 1 to 4" in said
    assert "similarity, epochs 5 to 14, renewed 2 times" in said
    wide = html[html.index('class="wide"') : html.index('class="narrow"')]
    bands = [
        (css, float(x), float(width))
        for css, x, width in re.findall(
            r'<rect class="f (g-\w+)" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', wide
        )
    ]
    assert [css for css, _, _ in bands] == ["g-ground"] + 3 * ["g-similarity"]
    for (_, x, width), (_, following, _) in pairwise(bands):
        assert 0 < following - x - width < 2
    epoch_px = bands[0][2] / 4
    assert bands[-1][2] == pytest.approx(2 * epoch_px, abs=2)


def test_settings_that_differ_are_told_from_those_that_do_not(write: Any) -> None:
    config = TrainConfig(epochs=3, embedding_sizes=(64, 256), ema_decay=0.5, compile=True)
    page = Page(write(epochs(3), config=config))
    changed = [row for row in page.rows if len(row) == 3]
    assert sorted(changed) == sorted(
        [
            ["setting", "here", "default"],
            ["epochs", "3", "16"],
            ["embedding_sizes", "64,256", "none"],
            ["ema_decay", "0.5", "none"],
            ["compile", "true", "false"],
        ]
    )
    everything = [row[0] for row in page.rows if len(row) == 2]
    assert set(asdict(config)) <= set(everything)
    assert "All are the defaults." in Page(write(epochs(3), config=TrainConfig())).text


def test_the_next_command_takes_any_folder_name(write: Any) -> None:
    html = write(epochs(1), checkpoint=Path("my runs/it's"))
    (command,) = re.findall(r"<code>(python -m export.*?)</code>", html)
    words = shlex.split(unescape(command))
    assert words[:5] == ["python", "-m", "export", "bundle", "--checkpoint"]
    assert words[5:] == ["my runs/it's", "--out", "bundle"]
    assert DATA.sha256 in html


@pytest.mark.parametrize(("count", "shown"), [(64, 64), (300, 150)])
def test_the_page_stays_small_whatever_it_is_given(write: Any, count: int, shown: int) -> None:
    """Noise is the worst there is for JPEG."""
    history = epochs(40)
    long = [Step(k + 1, 1.0 + math.sin(k), 1e-3, 0.07) for k in range(50_000)]
    rng = np.random.default_rng(1)
    few = [example(rng, task=f"sues200/{k}") for k in range(8)]
    html = write(history, steps=long, examples=(few * (count // 8 + 1))[:count])
    assert len(html.encode()) < MOST_BYTES
    assert html.count('class="card"') <= shown
    assert html.count('class="card"') >= min(shown, 64)


def test_a_long_history_shows_its_last_epochs_in_the_table(write: Any) -> None:
    page = Page(write(epochs(400)))
    numbers = [row[0] for row in page.rows if len(row) > 5]
    assert numbers[1:] == [str(k) for k in range(101, 401)]
    assert "The last 300 of 400 epochs" in page.text


@pytest.mark.parametrize(("batch", "floor"), [(128, 0.804), (8, 0.467)])
def test_the_floor_of_label_smoothing_is_the_known_one(batch: int, floor: float) -> None:
    assert loss_floor(TrainConfig(batch_size=batch)) == pytest.approx(floor, abs=5e-4)
    assert loss_floor(TrainConfig(batch_size=batch, label_smoothing=0.0)) == 0.0


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"label_smoothing": 0.3},
        {"photo_negatives": True},
        {"embedding_sizes": (12, 14)},
        {"distillation": "embeddings", "distillation_weight": 0.5},
        {"distillation": "relations"},
    ],
)
def test_no_loss_is_below_the_floor_and_the_best_reaches_it(settings: dict[str, Any]) -> None:
    """Of perfect embeddings, over all temperatures: they are orthogonal, and the teacher's too."""
    config = TrainConfig(batch_size=12, **settings)
    perfect = F.pad(torch.eye(12), (0, 4))
    teacher = None if config.distillation == "none" else (perfect, perfect)
    losses = [
        float(training_loss(perfect, perfect, scale, config, teacher=teacher))
        for scale in torch.linspace(0.5, 12, 400)
    ]
    floor = loss_floor(config)
    assert min(losses) >= floor - 1e-5
    # Two views with different numbers of negatives want slightly different temperatures.
    assert min(losses) <= floor + (0.01 if config.photo_negatives else 1e-3)


@pytest.mark.parametrize("photo_negatives", [False, True])
def test_a_guess_costs_what_is_said(photo_negatives: bool) -> None:
    config = TrainConfig(batch_size=12, photo_negatives=photo_negatives)
    same = F.normalize(torch.ones(12, 16))
    loss = float(training_loss(same, same, torch.tensor(14.0), config))
    assert loss_of_a_guess(config) == pytest.approx(loss, abs=1e-5)
    assert loss_of_a_guess(replace(config, distillation="relations")) is None


def test_thinning_keeps_every_extreme_in_order() -> None:
    rng = np.random.default_rng(2)
    points = [(float(k), float(v)) for k, v in enumerate(rng.normal(size=12_345))]
    kept = thinned(points, most=100)
    assert len(kept) <= 100
    assert kept == sorted(kept)
    assert set(kept) <= set(points)
    at, values = (np.array(column) for column in zip(*kept, strict=True))
    for x, value in points[::7]:
        near = values[np.abs(at - x) <= len(points) / 50]
        assert near.min() <= value <= near.max()
    assert thinned(points[:100], most=100) == points[:100]


@pytest.mark.parametrize(
    ("y_span", "log"),
    [((0, 1), False), ((10, 21), False), ((0.5, 0.56), False), ((8, 300), True), ((50, 70), True)],
)
def test_labels_stand_where_a_curve_has_their_value(y_span: tuple[float, float], log: bool) -> None:
    def chart(values: Sequence[float]) -> str:
        points = [(float(k), value) for k, value in enumerate(values)]
        return line_chart(
            [Curve("a", "c1", points)], title="t", x_label="x", y_label="y",
            x_span=(0, 3), y_span=y_span, log=log,
        )  # fmt: skip

    labels = re.findall(r'y="([\d.]+)" text-anchor="end" class="">([\d.,]+)<', chart([1]))
    assert len(labels) >= 3
    values = [float(text.replace(",", "")) for _, text in labels]
    assert len(set(values)) == len(values)
    (path,) = re.findall(r'class="line c1" d="M([^"]*)"', chart(values))
    drawn = [float(point.split()[1]) for point in path.split("L")]
    assert drawn == pytest.approx([float(y) - 4 for y, _ in labels], abs=0.11)


def test_a_value_that_is_not_finite_interrupts_the_line() -> None:
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, math.nan), (3.0, 1.0), (4.0, math.inf)]
    svg = line_chart(
        [Curve("a", "c1", points)], title="t", x_label="x", y_label="y",
        x_span=(0, 4), y_span=(0, 2), levels=[Level(1.5, "so much")],
    )  # fmt: skip
    (path,) = re.findall(r'class="line c1" d="([^"]*)"', svg)
    assert re.sub(r"[\d. ]+", "", path) == "MLM"
    assert svg.count("h0") == 3
    assert "nan" not in svg
    assert "a: 1 at first, 1 at last. so much." in svg


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0 s"),
        (59.6, "1 min"),
        (3599, "1 h 0 min"),
        (7800, "2 h 10 min"),
        (3 * 86400 + 4 * 3600, "3 d 4 h"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


# Examples


class SpiedImages(ImageSource):
    """Image k is grey of value k, 20 x 20 with a black margin; remembers what was read."""

    def __init__(self, count: int, name: str, broken: Sequence[int] = ()) -> None:
        self.count, self.kind, self.broken = count, name, broken
        self.read_rows: list[int] = []

    def __len__(self) -> int:
        return self.count

    def read(self, row: int, rng: np.random.Generator) -> U8:
        self.read_rows.append(row)
        if row in self.broken:
            msg = f"{self.name(row)} is broken"
            raise UnreadableImageError(msg)
        image = np.zeros((20, 20, 3), np.uint8)
        image[2:-2, 2:-2] = row
        return image

    def name(self, row: int) -> str:
        return f"{self.kind} {row}"


CONFIG = TrainConfig(size_px=16, shift_m=0.0)
QUERIES, GALLERY = 40, 90


def evaluation(
    *, seed: int = 0, noise: float = 1.0, per_place: int = 1, broken: Sequence[int] = ()
) -> Evaluation:
    """Queries of random places; the last references show none of them, nor do queries 0 and 1."""
    rng = np.random.default_rng(seed)
    gallery_labels = np.arange(GALLERY, dtype=np.int64) // per_place
    labels = rng.permutation(30 // per_place)[np.arange(QUERIES) % (30 // per_place)]
    labels = labels.astype(np.int64)
    labels[:2] = 1000
    places = rng.normal(size=(2000, 16))
    gallery = places[gallery_labels] + 0.1 * rng.normal(size=(GALLERY, 16))
    queries = places[labels] + noise * rng.normal(size=(QUERIES, 16))
    lat_deg, lon_deg = rng.uniform(10, 10.01, (2, QUERIES + GALLERY))
    task = RetrievalTask(
        name="set/task",
        queries=ImageSet(
            images=SpiedImages(QUERIES, "query", broken),
            view="photo",
            lat_deg=lat_deg[:QUERIES],
            lon_deg=lon_deg[:QUERIES],
        ),
        gallery=ImageSet(
            images=SpiedImages(GALLERY, "reference"),
            view="tile",
            lat_deg=lat_deg[QUERIES:],
            lon_deg=lon_deg[QUERIES:],
        ),
        query_labels=labels,
        gallery_labels=gallery_labels,
        semi_positives=rng.integers(0, GALLERY, (QUERIES, 30)),
    )
    ranks = rank_queries(
        np.asarray(queries / np.linalg.norm(queries, axis=1, keepdims=True), np.float32),
        np.asarray(gallery / np.linalg.norm(gallery, axis=1, keepdims=True), np.float32),
        labels,
        gallery_labels,
        query_lat_deg=task.queries.lat_deg,
        query_lon_deg=task.queries.lon_deg,
        gallery_lat_deg=task.gallery.lat_deg,
        gallery_lon_deg=task.gallery.lon_deg,
    )
    return Evaluation(
        task=task,
        metrics=summarise(ranks),
        without_distractors=None,
        ranks=ranks,
        query_rows=np.arange(QUERIES),
    )


def row_of(name: str) -> int:
    return int(name.split()[1])


@pytest.mark.parametrize("per_place", [1, 5])
def test_examples_mark_as_true_what_the_labels_say(per_place: int) -> None:
    given = evaluation(per_place=per_place)
    task, ranks = given.task, given.ranks
    assert len(task.semi_positives)
    kinds = set()
    for shown in examples_of(given, CONFIG, count=QUERIES, margin=1.25):
        query = row_of(shown.query_name)
        true = ranks.true_references[query] > 0
        assert shown.rank == (ranks.best_rank[query] + 1 if true else None)
        assert shown.gallery == GALLERY
        assert any(answer.is_true for answer in shown.answers) == true
        for answer in shown.answers:
            row = row_of(answer.name)
            assert answer.is_true == (task.gallery_labels[row] == task.query_labels[query])
            expected = row in task.semi_positives[query] and not answer.is_true
            assert answer.overlaps == expected
            assert (answer.image == row).all()
            kinds.add((answer.is_true, answer.overlaps))
        assert (shown.query == query).all()  # Without the margin.
    assert kinds == {(True, False), (False, True), (False, False)}


def test_examples_name_the_place_the_similarity_and_the_distance_of_answers() -> None:
    given = evaluation(noise=3.0)
    ranks, task = given.ranks, given.task
    unknown = 0
    for shown in examples_of(given, CONFIG, count=QUERIES):
        query = row_of(shown.query_name)
        for answer in shown.answers:
            row = row_of(answer.name)
            assert answer.place is not None
            if answer.place <= 10:
                assert ranks.top_rows[query, answer.place - 1] == row
                places = [
                    column[k]
                    for columns, k in ((task.queries, query), (task.gallery, row))
                    for column in (columns.lat_deg, columns.lon_deg)
                    if column is not None
                ]
                assert answer.distance_m == pytest.approx(float(distance_m(*places)))
            else:
                assert answer.place == shown.rank
                assert answer.distance_m is None
                unknown += 1
            if answer.place == 1:
                assert answer.similarity == ranks.top_score[query]
            elif answer.is_true:
                assert answer.similarity == ranks.true_score[query]
            else:
                assert answer.similarity is None
    assert unknown


def test_a_true_answer_beyond_those_kept_has_no_place_where_there_are_several() -> None:
    given = evaluation(per_place=5, noise=30.0)
    missed = [e for e in examples_of(given, CONFIG, count=QUERIES) if (e.rank or 0) > 10]
    assert missed
    for shown in missed:
        last = shown.answers[-1]
        assert last.is_true
        assert (last.place, last.similarity, last.distance_m) == (None, None, None)


@pytest.mark.parametrize(("noise", "found"), [(0.05, 6), (1.0, 4), (60.0, None)])
def test_examples_are_half_found_and_half_missed_where_there_are_both(
    noise: float, found: int | None
) -> None:
    """With little noise only the two queries without a true reference are missed."""
    given = evaluation(noise=noise)
    shown = examples_of(given, CONFIG, count=8)
    expected = found if found is not None else int((given.ranks.best_rank == 0).sum())
    assert expected <= 6
    assert [e.rank == 1 for e in shown] == expected * [True] + (8 - expected) * [False]
    assert len({e.query_name for e in shown}) == 8


def test_examples_are_drawn_by_their_seed() -> None:
    def names(seed: int) -> list[str]:
        return [e.query_name for e in examples_of(evaluation(), CONFIG, seed=seed)]

    assert names(1) == names(1)
    drawn = [names(seed) for seed in range(40)]
    assert len({tuple(d) for d in drawn}) > 30
    # Fair: no query of a kind is left out for good.
    assert len({name for d in drawn for name in d}) == QUERIES


def test_no_image_is_read_but_those_shown() -> None:
    given = evaluation()
    shown = examples_of(given, CONFIG, count=4)
    queries, gallery = given.task.queries.images, given.task.gallery.images
    assert isinstance(queries, SpiedImages)
    assert isinstance(gallery, SpiedImages)
    assert queries.read_rows == [row_of(e.query_name) for e in shown]
    assert gallery.read_rows == [row_of(a.name) for e in shown for a in e.answers]


def test_an_image_that_is_gone_costs_its_example_alone() -> None:
    names = [e.query_name for e in examples_of(evaluation(), CONFIG)]
    gone = [row_of(name) for name in names[2:4]]
    left = [e.query_name for e in examples_of(evaluation(broken=gone), CONFIG)]
    assert left == names[:2] + names[4:]


def test_examples_of_large_images_are_reduced_in_their_proportions() -> None:
    config = replace(CVUSA, photo_height_px=140, photo_width_px=768)
    for shown in examples_of(evaluation(), config, count=2):
        height, width = shown.query.shape[:2]
        assert height * width == pytest.approx(160 * 160, rel=0.02)
        assert width / height == pytest.approx(768 / 140, rel=0.02)
        assert shown.answers[0].image.shape == (160, 160, 3)


def test_examples_reach_the_page_with_their_truth(write: Any) -> None:
    shown = examples_of(evaluation(), CONFIG, count=6)
    html = write(epochs(4), examples=shown)
    answers = [answer for e in shown for answer in e.answers]
    assert html.count('class="shot true"') == sum(a.is_true for a in answers)
    assert html.count('class="shot overlaps"') == sum(a.overlaps for a in answers)
    assert html.count('class="shot query"') == 6
    text = Page(html).text
    for e in shown:
        assert e.query_name in text
        if e.rank is not None and e.rank > 1:
            assert f"the true one is number {e.rank} of {GALLERY}" in text
