"""Learned matchers: which files are taken, what they are given, and that none ends a flight.

The matcher of these tests is a small one that really matches: descriptors of fixed random filters
on a grid of every second pixel, and their mutual nearest neighbours.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.backends.protocol import BackendInfo
from edge_runtime.correlation import GreyPatch
from edge_runtime.errors import BackendError, InputError
from edge_runtime.feature_agreement import FeatureMatch
from edge_runtime.learned_matcher import CELL_PX, LearnedMatcher
from edge_runtime.local_features import FeatureMatcher
from edge_runtime.matcher_formats import MatcherFormat, PointPairs, format_of
from edge_runtime.matcher_opening import (
    ResilientMatcher,
    check,
    matcher_sha256,
    open_matcher,
    require_matcher,
)

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
MakeMatcher = Callable[..., Path]

SIDE_PX = 96
MOVED = np.array([3.0, 1.0])
CPU = "CPUExecutionProvider"
ENCODER = BackendInfo(
    name="ort-cpu", provider=CPU, precision="fp32", library="onnxruntime", threads=1
)


# --- a matcher -------------------------------------------------------------------------------

_CORE = """
    real = Cast <to = 1> (images)
    dense = Conv <strides = [2, 2], pads = [5, 5, 5, 5]> (real, filters)
    flat = Reshape (dense, flat_shape)
    length = ReduceL2 <axes = [1], keepdims = 1> (flat)
    floored = Add (length, floor)
    unit = Div (flat, floored)
    left, right = Split <axis = 0> (unit, ones)
    left_rows = Transpose <perm = [0, 2, 1]> (left)
    cosines = MatMul (left_rows, right)
    there = ArgMax <axis = 2, keepdims = 0> (cosines)
    back = ArgMax <axis = 1, keepdims = 0> (cosines)
    again = GatherElements <axis = 1> (back, there)
    shape = Shape (flat)
    count = Gather (shape, two)
    every = Range (zero, count, one)
    mutual = Equal (again, every)
    score = ReduceMax <axes = [2], keepdims = 0> (cosines)
    sure = Greater (score, enough)
    kept = And (mutual, sure)
    found = NonZero (kept)
    rows = Gather (found, one)
    there_flat = Reshape (there, minus_one)
    others = Gather (there_flat, rows)
    score_flat = Reshape (score, minus_one)
    believed = Gather (score_flat, rows)
    dense_shape = Shape (dense)
    wide = Gather (dense_shape, three)
    column = Mod (every, wide)
    line = Div (every, wide)
    columns = Unsqueeze (column, minus_one)
    lines = Unsqueeze (line, minus_one)
    halves = Concat <axis = 1> (columns, lines)
    grid = Mul (halves, two)
    rows_1 = Unsqueeze (rows, minus_one)
    others_1 = Unsqueeze (others, minus_one)
"""
_ONE_INPUT = """
    points = Unsqueeze (grid, zero_1)
    keypoints = Concat <axis = 0> (points, points)
    pair = Sub (rows_1, rows_1)
    matches = Concat <axis = 1> (pair, rows_1, others_1)
    mscores = Identity (believed)
"""
_END2END = """
    kpts0 = Unsqueeze (grid, zero_1)
    kpts1 = Identity (kpts0)
    matches0 = Concat <axis = 1> (rows_1, others_1)
    mscores0 = Identity (believed)
"""
_PAIRS = """
    whole0 = Gather (grid, rows)
    whole1 = Gather (grid, others)
    points0 = Cast <to = 1> (whole0)
    points1 = Cast <to = 1> (whole1)
    confidence = Identity (believed)
"""
_JOIN = "    images = Concat <axis = 0> (image0, image1)\n"


def _signature(form: str, kind: str, channels: int, height: str, width: str) -> str:
    one, two = (f"{kind}[{n}, {channels}, {height}, {width}]" for n in (1, 2))
    return {
        "pipeline": f"({two} images) => "
        "(int64[2, n, 2] keypoints, int64[m, 3] matches, float[m] mscores)",
        "end2end": f"({one} image0, {one} image1) => (int64[1, n, 2] kpts0, int64[1, n, 2] kpts1, "
        "int64[m, 2] matches0, float[m] mscores0)",
        "pairs": f"({one} image0, {one} image1) => "
        "(float[m, 2] points0, float[m, 2] points1, float[m] confidence)",
    }[form]


@pytest.fixture(scope="module")
def make_matcher(tmp_path_factory: pytest.TempPathFactory) -> MakeMatcher:
    """Writes the small matcher in one of the formats."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("matchers")
    rng = np.random.default_rng(2)
    steps = np.arange(-5, 6)
    window = np.exp(-np.add.outer(steps**2, steps**2) / 18.0)
    filters = rng.normal(size=(48, 1, 11, 11)) * window
    filters -= window * filters.sum(axis=(2, 3), keepdims=True) / window.sum()

    def make(
        form: str = "pipeline",
        *,
        kind: str = "float",
        channels: int = 1,
        size: tuple[object, object] = ("h", "w"),
        alter: Callable[[str], str] = str,
    ) -> Path:
        body = _CORE if form == "pipeline" else _JOIN + _CORE
        body += {"pipeline": _ONE_INPUT, "end2end": _END2END, "pairs": _PAIRS}[form]
        signature = _signature(form, kind, channels, str(size[0]), str(size[1]))
        text = f'<ir_version: 8, opset_import: ["" : 17]>\nmatcher {signature} {{{body}}}'
        model = onnx.parser.parse_model(alter(text))
        constants: dict[str, npt.NDArray[Any]] = {
            "filters": np.repeat(filters / channels, channels, axis=1).astype(np.float32),
            "flat_shape": np.array([0, 0, -1], np.int64),
            "floor": np.array(1e-3, np.float32),
            "enough": np.array(0.9, np.float32),
            "ones": np.array([1, 1], np.int64),
            "minus_one": np.array([-1], np.int64),
            "zero_1": np.array([0], np.int64),
            **{n: np.array(k, np.int64) for k, n in enumerate(("zero", "one", "two", "three"))},
        }
        for name, array in constants.items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        path = folder / f"matcher{len(list(folder.iterdir()))}.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return make


@pytest.fixture(scope="module")
def matcher_file(make_matcher: MakeMatcher) -> Path:
    return make_matcher()


def ground(seed: int) -> U8:
    """(256, 256) grey noise of several sizes."""
    rng = np.random.default_rng(seed)
    total = np.zeros((256, 256))
    for sigma in (1.5, 4.0, 15.0):
        layer = cv2.GaussianBlur(rng.normal(size=total.shape), (0, 0), sigma)
        total += layer / layer.std()
    return np.clip(128 + 30 * total, 0, 255).astype(np.uint8)


def cut(world: U8, right: float = 0, down: float = 0, turn_deg: float = 0, zoom: float = 1) -> (
    GreyPatch
):  # fmt: skip
    """Look at the world's middle from `right`, `down`: turned clockwise and magnified."""
    a = np.radians(turn_deg)
    r = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) / zoom
    middle = np.array([127.5 + right, 127.5 + down])
    matrix = np.column_stack([r, middle - r @ np.full(2, (SIDE_PX - 1) / 2)])
    size = (SIDE_PX, SIDE_PX)
    image = cv2.warpAffine(world, matrix, size, flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
    return GreyPatch(np.asarray(image, np.uint8), np.full(size, 255, np.uint8))


# --- what it finds ---------------------------------------------------------------------------

FORMS = [
    pytest.param("pipeline", {}, id="pipeline of open size"),
    pytest.param("pipeline", {"channels": 3}, id="pipeline that wants colours"),
    pytest.param("pipeline", {"kind": "float16"}, id="pipeline in half precision"),
    pytest.param("pipeline", {"size": (128, 128)}, id="pipeline of a larger size"),
    pytest.param("pipeline", {"size": (128, 192)}, id="pipeline of a wide size"),
    pytest.param("pipeline", {"size": (128, "w")}, id="pipeline of half an open size"),
    pytest.param("end2end", {}, id="end to end"),
    pytest.param("pairs", {}, id="pairs"),
    pytest.param("pairs", {"size": (96, 96)}, id="pairs of the very size"),
]


@pytest.mark.parametrize(("form", "options"), FORMS)
@pytest.mark.parametrize(
    ("right", "down", "turn", "zoom"), [(6.0, -6.0, 0.0, 1.0), (-3.0, 5.0, 4.0, 1.04)]
)
def test_a_known_similarity_is_recovered(
    make_matcher: MakeMatcher,
    form: str,
    options: dict[str, Any],
    right: float,
    down: float,
    turn: float,
    zoom: float,
) -> None:
    matcher = LearnedMatcher(make_matcher(form, **options), provider=CPU, threads=1)
    assert matcher.format.name == form
    world = ground(1)
    view = cut(world, right, down, -turn, 1 / zoom)
    match = matcher.match(view, cut(world), reach_px=20.0)
    assert match is not None
    assert (match.column, match.row) == pytest.approx((right, down), abs=0.4)
    assert match.yaw_deg == pytest.approx(turn, abs=0.6)
    assert match.scale == pytest.approx(zoom, abs=0.01)
    assert match.inliers >= 15
    assert match.log_evidence > 10


def test_points_come_back_in_the_pixels_of_the_patch(make_matcher: MakeMatcher) -> None:
    """A file of twice the size sees each pixel as two: its pixels 2 x and 2 x + 1 are x ± 1/4."""
    double = LearnedMatcher(make_matcher(size=(192, 192)), provider=CPU, threads=1)
    patch = cut(ground(4)).image
    found = double.pairs(patch, patch)
    assert len(found.first) > 50
    np.testing.assert_allclose(found.first, found.second)
    np.testing.assert_allclose((found.first * 2 + 0.5) % 2, 0, atol=1e-9)
    assert found.first.min() >= -0.25
    assert found.first.max() <= SIDE_PX - 0.75


def test_unrelated_places_give_nothing(matcher_file: Path) -> None:
    matcher = LearnedMatcher(matcher_file, provider=CPU, threads=1)
    for seed in range(6):
        pair = cut(ground(seed)), cut(ground(100 + seed))
        assert matcher.match(*pair, reach_px=12.0) is None


def test_a_view_of_nothing_gives_nothing(matcher_file: Path) -> None:
    matcher = LearnedMatcher(matcher_file, provider=CPU, threads=1)
    plain = GreyPatch(
        np.full((SIDE_PX, SIDE_PX), 128, np.uint8), np.full((SIDE_PX, SIDE_PX), 255, np.uint8)
    )
    assert matcher.match(plain, plain, reach_px=12.0) is None


def test_what_the_camera_did_not_see_is_not_matched(matcher_file: Path) -> None:
    """The border of what was seen is in the same place in both pictures, whatever they show."""
    matcher = LearnedMatcher(matcher_file, provider=CPU, threads=1)
    one, other = cut(ground(1)), cut(ground(2))
    frame = np.full((SIDE_PX, SIDE_PX), 255, np.uint8)
    frame[20:-20, 20:-20] = 0
    same = ground(3)[:SIDE_PX, :SIDE_PX]
    for patch in (one, other):
        patch.image[frame > 0] = same[frame > 0]
    hidden = (GreyPatch(p.image, np.where(frame, 0, 255).astype(np.uint8)) for p in (one, other))
    assert matcher.match(one, other, reach_px=12.0) is not None
    assert matcher.match(*hidden, reach_px=12.0) is None


# --- judging ---------------------------------------------------------------------------------


class Scripted(LearnedMatcher):
    """Finds what it was told."""

    def __init__(self, pairs: PointPairs) -> None:
        self.found = pairs
        self._mask_eater = np.ones((3, 3), np.uint8)

    def pairs(self, first: U8, second: U8) -> PointPairs:
        return self.found


WIDE_PX = 300


def spread_points() -> F64:
    """One in each of 100 squares."""
    corners = np.stack(np.meshgrid(*2 * [np.arange(2, 12) * CELL_PX]), axis=-1).reshape(-1, 2)
    return corners + np.random.default_rng(8).uniform(0, CELL_PX, corners.shape)


def blank() -> GreyPatch:
    return GreyPatch(
        np.zeros((WIDE_PX, WIDE_PX), np.uint8), np.full((WIDE_PX, WIDE_PX), 255, np.uint8)
    )


def test_many_points_on_one_spot_are_one_witness() -> None:
    crowd = np.random.default_rng(1).uniform(42.1, 47.9, (500, 2))
    pairs = PointPairs(crowd, crowd + MOVED, np.ones(500))
    assert 42 // CELL_PX == 48 // CELL_PX
    assert Scripted(pairs).match(blank(), blank(), reach_px=12.0) is None
    alone = spread_points()
    pairs = PointPairs(alone, alone + MOVED, np.ones(100))
    once = Scripted(pairs).match(blank(), blank(), reach_px=12.0)
    ten_times = PointPairs(*(np.repeat(values, 10, axis=0) for values in pairs))
    again = Scripted(ten_times).match(blank(), blank(), reach_px=12.0)
    assert once is not None
    assert again is not None
    assert again.log_evidence == pytest.approx(once.log_evidence)


def test_of_points_on_one_spot_the_surest_counts() -> None:
    points = spread_points()
    wrong = np.random.default_rng(9).uniform(-8, 8, points.shape)
    for sure, inliers in ((0.9, True), (0.1, False)):
        pairs = PointPairs(
            np.concatenate([points, points]),
            np.concatenate([points + MOVED, points + wrong]),
            np.repeat([sure, 0.5], 100),
        )
        match = Scripted(pairs).match(blank(), blank(), reach_px=12.0)
        assert (match is not None and match.inliers == 100) == inliers


def test_points_farther_apart_than_the_reach_are_not_compared() -> None:
    points = spread_points()
    pairs = PointPairs(points, points + 3 * MOVED, np.ones(100))
    assert Scripted(pairs).match(blank(), blank(), reach_px=9.0) is None
    assert Scripted(pairs).match(blank(), blank(), reach_px=10.0) is not None


def test_chance_is_judged_as_for_sift() -> None:
    rng = np.random.default_rng(10)
    believed = 0
    for _ in range(200):
        points = rng.uniform(20, 280, (150, 2))
        angle, radius = rng.uniform(0, 2 * np.pi, 150), 12 * np.sqrt(rng.uniform(0, 1, 150))
        off = np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None]
        pairs = PointPairs(points, points + off, rng.uniform(0, 1, 150))
        believed += Scripted(pairs).match(blank(), blank(), reach_px=12.0) is not None
    assert believed <= 200 * np.exp(-2)


# --- formats ---------------------------------------------------------------------------------


@dataclass
class Described:
    name: str
    shape: Sequence[int | str | None]
    type: str = "tensor(float)"


def recognised(
    inputs: Sequence[Described], outputs: str = "keypoints matches mscores"
) -> MatcherFormat:
    return format_of(inputs, [Described(name, ["n"]) for name in outputs.split()], "m.onnx")


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        ([("images", [2, 1, 512, 512])], "keypoints matches mscores", ("pipeline", 1, 512, 512)),
        ([("images", ["b", 3, "h", None])], "mscores keypoints matches x", ("pipeline", 3, 0, 0)),
        (
            [("image0", [1, 1, "a", "b"]), ("image1", [1, 1, "c", "d"])],
            "kpts0 kpts1 matches0 mscores0",
            ("end2end", 1, 0, 0),
        ),
        (
            [("image1", [1, 1, 256, 256]), ("image0", [1, 1, 256, 256])],
            "points0 points1 confidence",
            ("pairs", 1, 256, 256),
        ),
    ],
)
def test_files_are_known_by_the_names_of_what_goes_in_and_out(
    inputs: list[tuple[str, list[int | str | None]]],
    outputs: str,
    expected: tuple[str, int, int, int],
) -> None:
    form = recognised([Described(*i) for i in inputs], outputs)
    height, width = form.fixed_px
    assert (form.name, form.channels, height or 0, width or 0) == expected


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        ([Described("kpts0", [1, "n", 2])], "matches0 mscores0", "Export extractor and matcher"),
        ([Described("images", [2, 1, 64, 64])], "keypoints matches", "has images -> keypoints"),
        ([Described("images", [4, 1, 64, 64])], "keypoints matches mscores", r"of \(2, 1 or 3"),
        ([Described("images", [2, 4, 64, 64])], "keypoints matches mscores", r"of \(2, 1 or 3"),
        ([Described("images", [2, 64, 64])], "keypoints matches mscores", r"of \(2, 1 or 3"),
        (
            [Described("images", [2, 1, 64, 64], "tensor(uint8)")],
            "keypoints matches mscores",
            r"images tensor\(uint8\) \[2, 1, 64, 64\], expected float",
        ),
        (
            [Described("image0", [1, 1, 64, 64]), Described("image1", [1, 3, 64, 64])],
            "points0 points1 confidence",
            "expected two alike",
        ),
    ],
)
def test_other_files_are_refused_with_what_they_have(
    inputs: list[Described], outputs: str, said: str
) -> None:
    with pytest.raises(BackendError, match=said):
        recognised(inputs, outputs)


def whole(values: object) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)


def test_a_pipeline_is_read_as_it_is_written_down() -> None:
    form = recognised([Described("images", [2, 1, "h", "w"])])
    points = whole([[[1, 2], [3, 4], [5, 6]], [[10, 20], [30, 40], [50, 60]]])
    found = form.read([points, whole([[0, 2, 0], [0, 0, 1]]), np.array([0.9, 0.4], np.float32)])
    assert found.first.tolist() == [[5, 6], [1, 2]]
    assert found.second.tolist() == [[10, 20], [30, 40]]
    assert found.confidence == pytest.approx([0.9, 0.4])


@pytest.mark.parametrize(
    ("points", "matches", "scores", "said"),
    [
        (np.zeros((2, 3, 2)), whole([[0, 0, 3]]), [1.0], "rows that keypoints, with 3 of them"),
        (np.zeros((2, 3, 2)), whole([[0, -1, 0]]), [1.0], "rows that keypoints"),
        (np.zeros((2, 3, 2)), whole([[1, 0, 0]]), [1.0], "pair of images other than 0"),
        (np.zeros((2, 3, 2)), whole([[0, 0]]), [1.0], "matches is of shape"),
        (np.zeros((3, 2)), whole([[0, 0, 0]]), [1.0], "keypoints is of shape"),
        (np.zeros((2, 3, 2)), whole([[0, 0, 0]]), [1.0, 1.0], "mscores is of shape"),
        (np.zeros((2, 3, 2)), np.zeros((1, 3)), [1.0], "expected whole numbers"),
        (np.full((2, 3, 2), np.nan), whole([[0, 0, 0]]), [1.0], "not finite"),
        (np.zeros((2, 3, 2)), whole([[0, 0, 0]]), [np.inf], "not finite"),
    ],
)
def test_an_answer_that_breaks_the_format_is_an_error(
    points: F64, matches: npt.NDArray[Any], scores: list[float], said: str
) -> None:
    form = recognised([Described("images", [2, 1, "h", "w"])])
    with pytest.raises(BackendError, match=said):
        form.read([points, matches, np.array(scores)])


def test_no_match_at_all_is_an_answer() -> None:
    form = recognised([Described("images", [2, 1, "h", "w"])])
    found = form.read([np.zeros((2, 3, 2)), np.zeros((0, 3), np.int64), np.zeros(0)])
    assert len(found.first) == len(found.second) == len(found.confidence) == 0


@pytest.mark.parametrize(
    ("size", "side", "canvas"),
    [
        (["h", "w"], 96, (96, 96, 96)),
        (["h", "w"], 107, (128, 128, 107)),
        ([512, 512], 107, (512, 512, 512)),
        ([480, 640], 107, (480, 640, 480)),
        ([64, 64], 107, (64, 64, 64)),
        (["h", 200], 107, (224, 200, 200)),
    ],
)
def test_pictures_are_filled_up_or_resized_to_what_the_file_takes(
    size: list[int | str | None], side: int, canvas: tuple[int, int, int]
) -> None:
    height, width, inside = recognised([Described("images", [2, 1, *size])]).canvas(side)
    assert inside <= min(height, width)
    assert (height, width, inside) == canvas


# --- opening ---------------------------------------------------------------------------------


def opened(path: Path, encoder: BackendInfo = ENCODER) -> ResilientMatcher:
    return open_matcher(path, encoder, sides_px=[64, SIDE_PX], reach_px=12.0, threads=1)


def test_a_sound_file_is_opened_and_said_to_be(matcher_file: Path) -> None:
    matcher = opened(matcher_file)
    (said,) = matcher.events()
    assert said.startswith(f"local features by matcher {matcher_file.name} (pipeline) on {CPU}, ")
    assert said.endswith(" ms a pair")
    assert matcher.events() == []
    matcher.close()
    matcher.close()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("Concat <axis = 1> (columns, lines)", "Concat <axis = 1> (lines, columns)",
         "moved by 6, -4 pixels moved by"),
        ("grid = Mul (halves, two)", "grid = Identity (halves)", "in pixels of its input"),
        ("sure = Greater (score, enough)", "sure = Greater (floor, score)", "moved by nothing"),
        ("again = GatherElements <axis = 1> (back, there)", "again = Add (there, count)",
         "moved by nothing"),
        ("matches = Concat <axis = 1> (pair, rows_1, others_1)",
         "odd = Concat <axis = 1> (pair, rows_1, others_1)\n    matches = Add (odd, count)",
         "pair of images other than 0"),
    ],
    ids=["rows before columns", "not in pixels", "matches nothing", "no mutual", "rows too large"],
)  # fmt: skip
def test_a_file_that_does_not_match_is_found_on_the_ground(
    make_matcher: MakeMatcher, before: str, after: str, said: str
) -> None:
    def alter(text: str) -> str:
        assert before in text
        return text.replace(before, after)

    with pytest.raises(BackendError, match=said):
        opened(make_matcher(alter=alter))


def test_tiles_too_small_to_prove_anything_are_refused(matcher_file: Path) -> None:
    with pytest.raises(BackendError, match="compared at 60 pixels, which hold too few"):
        open_matcher(matcher_file, ENCODER, sides_px=[60, SIDE_PX], reach_px=12.0)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "weights.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(BackendError, match=r"cannot load matcher .*weights\.onnx"):
        opened(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for use in (opened, matcher_sha256):
        with pytest.raises(InputError, match=r"none\.onnx cannot be read \(No such file"):
            cast("Callable[[Path], object]", use)(tmp_path / "none.onnx")


def test_the_encoder_itself_is_no_matcher(
    tmp_path: Path, make_encoder_onnx: Callable[[], bytes]
) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "encoder.onnx"
    path.write_bytes(make_encoder_onnx())
    with pytest.raises(BackendError, match="has images -> embeddings, expected one of: images ->"):
        opened(path)


@pytest.mark.parametrize("name", ["ort-cuda", "tensorrt", "ort-tensorrt"])
def test_an_encoder_on_a_gpu_has_its_matcher_there_or_none(
    matcher_file: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    info = BackendInfo(name=name, provider="x", precision="fp16", library="x", threads=None)
    with pytest.raises(BackendError, match="no CUDAExecutionProvider for matcher"):
        opened(matcher_file, info)


def test_a_digest_tells_files_apart(matcher_file: Path, make_matcher: MakeMatcher) -> None:
    require_matcher(matcher_file, matcher_sha256(matcher_file))
    with pytest.raises(InputError, match="put the flight's file there"):
        require_matcher(make_matcher("pairs"), matcher_sha256(matcher_file))


# --- in flight -------------------------------------------------------------------------------


class Failing(LearnedMatcher):
    """Fails on every second pair."""

    def __init__(self) -> None:
        self.asked = 0
        self.closed = False

    def match(self, view: GreyPatch, imagery: GreyPatch, *, reach_px: float) -> FeatureMatch | None:
        self.asked += 1
        if self.asked % 2:
            msg = "out of memory"
            raise BackendError(msg)
        return None

    def close(self) -> None:
        self.closed = True


def test_where_a_matcher_fails_sift_answers_and_it_is_said_once() -> None:
    world = ground(5)
    pair = cut(world, 3.0, 2.0), cut(world)
    by_sift = FeatureMatcher().match(*pair, reach_px=12.0)
    assert by_sift is not None
    failing = Failing()
    matcher = ResilientMatcher(failing, "hello")
    answers = [matcher.match(*pair, reach_px=12.0) for _ in range(6)]
    assert answers == [by_sift, None] * 3
    assert matcher.events() == ["hello", "out of memory; SIFT matches where it fails"]
    assert matcher.failures == 3
    matcher.close()
    assert failing.closed


def test_a_closed_session_is_an_error_and_no_crash(matcher_file: Path) -> None:
    matcher = LearnedMatcher(matcher_file, provider=CPU, threads=1)
    matcher.close()
    with pytest.raises(BackendError, match="was closed"):
        check(matcher, SIDE_PX, reach_px=12.0)


@pytest.fixture
def flight(
    scene: Any, tmp_path: Path, flight_dir: Path, bundle_dir: Path, index_dir: Path
) -> list[str]:
    """Arguments of `skyfix run` over six photographs."""
    folder = tmp_path / "photos"
    folder.mkdir()
    lines = ["filename,t_s,height_m,yaw_deg,pitch_deg,roll_deg"]
    for k in range(6):
        rgb = scene.photo(-30.0 + 8 * k, 10.0 + 2 * k)
        assert cv2.imwrite(str(folder / f"{k:03d}.png"), rgb[..., ::-1])
        lines.append(f"{k:03d}.png,{0.5 * k},100,0,0,0")
    (tmp_path / "telemetry.csv").write_text("\n".join(lines) + "\n")
    return [
        "run", "--bundle", str(bundle_dir), "--index", str(index_dir), "--source", str(folder),
        "--telemetry", str(tmp_path / "telemetry.csv"), "--threads", "1", "--backend", "ort-cpu",
        "--camera", str(flight_dir / "camera.json"), "--out", str(tmp_path / "fixes.jsonl"),
    ]  # fmt: skip


def test_a_flight_with_a_matcher_replays_the_same_and_with_no_other_file(
    flight: list[str],
    make_matcher: MakeMatcher,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from edge_runtime.cli import main
    from edge_runtime.flight_log import read_log
    from edge_runtime.replaying import NOT_COMPARED

    log, mine = tmp_path / "fixes.jsonl", tmp_path / "mine.onnx"
    assert main(flight) == 0
    plain = list(read_log(log))
    mine.write_bytes(make_matcher("pairs").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert main([*flight, "--matcher", "mine.onnx", "--record", "recording"]) == 0
    learned = list(read_log(log))
    settings = json.loads((tmp_path / "fixes.run.json").read_text())
    assert settings["options"]["matcher"] == str(mine)
    assert settings["options"]["matcher_sha256"] == matcher_sha256(mine)
    assert [fix.status for fix in learned] == [fix.status for fix in plain]
    assert any("matcher mine.onnx (pairs)" in event for event in learned[0].events)
    names = [f.name for f in fields(learned[0]) if f.name not in NOT_COMPARED]
    assert any(getattr(a, n) != getattr(b, n) for a, b in zip(plain, learned, strict=True)
               for n in names)  # fmt: skip
    assert max(fix.inliers for fix in learned) >= 8
    for what in ("fixes.jsonl", "recording"):
        assert main(["replay", what]) == 0
    mine.write_bytes(make_matcher("pipeline").read_bytes())
    for what in ("fixes.jsonl", "recording"):
        capsys.readouterr()
        assert main(["replay", what]) == 2
        assert "put the flight's file there" in capsys.readouterr().err


def test_a_matcher_that_fails_in_flight_is_told_in_the_log_and_stops_nothing(
    flight: list[str], matcher_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_runtime.cli import main
    from edge_runtime.flight_log import read_log

    log = tmp_path / "fixes.jsonl"
    assert main(flight) == 0
    plain = list(read_log(log))
    before = MatcherFormat.read
    calls = [0]

    def read(self: MatcherFormat, outputs: Sequence[npt.NDArray[np.generic]]) -> PointPairs:
        calls[0] += 1
        # Sound while it is opened and warmed up, then never again.
        if calls[0] > sound:
            outputs = [outputs[0], outputs[1] + 7, outputs[2]]
        return before(self, outputs)

    monkeypatch.setattr(MatcherFormat, "read", read)
    sound = 2
    assert main([*flight, "--matcher", str(matcher_file)]) == 0
    fixes = list(read_log(log))
    said = [line for fix in fixes for line in fix.events if "SIFT matches where it fails" in line]
    assert len(said) == 1
    assert "pair of images other than 0" in said[0]
    assert [(f.lat_deg, f.lon_deg, f.inliers) for f in fixes] == [
        (f.lat_deg, f.lon_deg, f.inliers) for f in plain
    ]


def test_a_matcher_that_is_not_there_is_one_line_before_anything_is_opened(
    flight: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from edge_runtime.cli import main

    assert main([*flight, "--matcher", str(tmp_path / "none.onnx")]) == 2
    assert "none.onnx cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "fixes.jsonl").exists()
