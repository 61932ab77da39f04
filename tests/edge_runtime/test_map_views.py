from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.bundle import Bundle
from edge_runtime.errors import IndexFolderError, InputError
from edge_runtime.geodesy import haversine_m
from edge_runtime.index_format import EMBEDDINGS
from edge_runtime.map_views import ViewTrial, view_trial
from edge_runtime.satellite_index import SatelliteIndex

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
Trial = Callable[..., ViewTrial]


@pytest.fixture
def trial(index_dir: Path, bundle: Bundle) -> Trial:
    index = SatelliteIndex.open(index_dir)

    def run(embed: Callable[[U8], F32], views: int = 60) -> ViewTrial:
        return view_trial(index, bundle, embed, far_m=60.0, views=views)

    return run


def stored(index_dir: Path) -> F32:
    """What an encoder must have given for every tile: the centre put back."""
    moved = np.load(index_dir / EMBEDDINGS).astype(np.float32) + np.load(index_dir / "centre.npy")
    return np.asarray(moved, np.float32)


def test_an_encoder_that_sees_one_place_everywhere_is_wrong_nearly_everywhere(
    trial: Trial, index_dir: Path
) -> None:
    one = stored(index_dir)[0]
    found = trial(lambda images: np.repeat(one[None], len(images), axis=0))
    tiles = SatelliteIndex.open(index_dir).tiles
    near = haversine_m(tiles["lat_deg"][0], tiles["lon_deg"][0], tiles["lat_deg"], tiles["lon_deg"])
    assert found.wrong == pytest.approx(1 - np.mean(near <= 60.0), abs=0.15)
    assert found.views == 60


def test_views_of_the_map_by_its_own_encoder_are_mostly_found(
    index_dir: Path, bundle: Bundle
) -> None:
    pytest.importorskip("onnxruntime")
    from edge_runtime.backends.protocol import open_backend

    backend = open_backend(bundle, "ort-cpu", threads=1)
    index = SatelliteIndex.open(index_dir)
    found = view_trial(index, bundle, backend.embed, views=80)
    again = view_trial(index, bundle, backend.embed, views=80)
    backend.close()
    assert found == again
    assert 0.2 < found.likeness_p10 < found.likeness_median <= 1.0
    assert found.wrong < 0.5
    # Both are shares of wrong answers at one likeness: of the same order, no more is claimed.
    assert found.predicted == pytest.approx(found.wrong, abs=0.25)


def test_an_index_of_another_encoder_is_refused(index_dir: Path, bundle: Bundle) -> None:
    other = replace(bundle, weights_sha256="cd" * 32)
    index = SatelliteIndex.open(index_dir)
    with pytest.raises(IndexFolderError, match="was made by encoder"):
        view_trial(index, other, lambda images: np.zeros((len(images), 1), np.float32))


def test_no_views_are_refused(trial: Trial) -> None:
    with pytest.raises(InputError, match="expected at least 1"):
        trial(lambda images: np.zeros((len(images), 12), np.float32), views=0)
