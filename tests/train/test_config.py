import json
from dataclasses import asdict, fields

import pytest

from edge_runtime.errors import InputError
from train.config import MARGIN, TrainConfig, config_from_json
from train.settings import with_settings


def test_settings_change_what_they_name_and_nothing_else() -> None:
    found = with_settings(TrainConfig(), ["epochs=3", "learning_rate=1e-4", "sampling=gps"])
    assert (found.epochs, found.learning_rate, found.sampling) == (3, 1e-4, "gps")
    kept = {k: v for k, v in asdict(found).items() if v != asdict(TrainConfig())[k]}
    assert set(kept) == {"epochs", "learning_rate", "sampling"}


def test_settings_have_the_type_of_their_field() -> None:
    found = with_settings(
        TrainConfig(), ["epochs=3", "flip=1", "threads=2", "architecture=test_resnet"]
    )
    assert isinstance(found.epochs, int)
    assert isinstance(found.flip, float)
    assert found.threads == 2
    assert found.architecture == "test_resnet"


def test_optional_settings_and_lists_are_read() -> None:
    found = with_settings(
        TrainConfig(chunk_size=8),
        ["chunk_size=none", "ema_decay=0.99", "embedding_sizes=64,128", "compile=true"],
    )
    assert found.chunk_size is None
    assert found.ema_decay == 0.99
    assert found.embedding_sizes == (64, 128)
    assert found.compile is True


def test_the_last_of_equal_settings_counts() -> None:
    assert with_settings(TrainConfig(), ["epochs=3", "epochs=5"]).epochs == 5


def test_no_setting_is_the_default() -> None:
    assert with_settings(TrainConfig(), []) == TrainConfig()


def test_a_config_survives_json() -> None:
    config = TrainConfig(embedding_sizes=(64, 256), ema_decay=0.999)
    assert config_from_json(json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize(
    ("item", "near"),
    [("epoch=3", "epochs"), ("lerning_rate=1", "learning_rate"), ("batchsize=8", "batch_size")],
)
def test_an_unknown_setting_names_the_nearest(item: str, near: str) -> None:
    with pytest.raises(InputError, match=f"did you mean {near}\\?"):
        with_settings(TrainConfig(), [item])


def test_an_unknown_setting_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="Known: ") as caught:
        with_settings(TrainConfig(), ["zzz=1"])
    for field in fields(TrainConfig):
        assert field.name in str(caught.value)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        pytest.param("epochs=1.5", "expected int", id="a fraction of an epoch"),
        pytest.param("epochs=", "expected int", id="nothing"),
        pytest.param("flip=often", "expected float", id="a word"),
        pytest.param("threads=all", "expected int", id="threads by name"),
        pytest.param("epochs", "is not NAME=VALUE", id="no value"),
        pytest.param("sampling=hard", "expected one of .*similarity", id="unknown sampling"),
        pytest.param("compile=perhaps", "expected true or false", id="neither"),
        pytest.param("embedding_sizes=64,big", "embedding_sizes is '64,big'", id="a size by name"),
    ],
)
def test_a_value_of_another_type_is_refused(item: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        with_settings(TrainConfig(), [item])


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        pytest.param("batch_size=1", "batch_size is 1; expected 2 to", id="no negatives"),
        pytest.param("epochs=0", "epochs is 0; expected 1 to", id="no epoch"),
        pytest.param(
            "learning_rate=0", "learning_rate is 0.0; expected 1e-09 to 1", id="no learning"
        ),
        pytest.param("learning_rate=nan", "learning_rate is nan", id="learning rate not a number"),
        pytest.param("shift_m=-1", "shift_m", id="negative shift"),
        pytest.param("shift_m=30", "shift_m", id="shift out of the view"),
        pytest.param("shift_m=nan", "shift_m", id="shift not a number"),
        pytest.param("ground_size_m=0", "ground_size_m", id="no ground"),
    ],
)
def test_a_value_that_cannot_train_is_refused(item: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        with_settings(TrainConfig(), [item])


@pytest.mark.parametrize(
    "item",
    [
        "size_px=0",
        "size_px=-32",
        "refresh_epochs=0",
        "threads=0",
        "neighbours=0",
        "select=-2",
        "recolour=5",
        "flip=2",
        "rotate=-1",
        "label_smoothing=2",
        "weight_decay=-1",
        "warmup_epochs=nan",
        "clip_value=0",
        "learning_rate=inf",
        "seed=-1",
    ],
)
def test_a_value_out_of_its_range_is_refused(item: str) -> None:
    with pytest.raises(InputError, match=item.partition("=")[0]):
        with_settings(TrainConfig(), [item])


def test_a_shift_up_to_the_margin_is_accepted_and_no_more() -> None:
    assert with_settings(TrainConfig(), ["ground_size_m=48", "shift_m=6"]).shift_m == 6
    expected = "shift_m is 6.1; expected 0 to 6, the margin that pairs have around .* 48"
    with pytest.raises(InputError, match=expected):
        with_settings(TrainConfig(), ["ground_size_m=48", "shift_m=6.1"])


def test_the_default_shift_fits_into_the_margin_of_the_pairs() -> None:
    config = TrainConfig()
    assert config.largest_shift_m == (MARGIN - 1) / 2 * config.ground_size_m


def test_an_unknown_sampling_is_refused_where_the_config_is_made() -> None:
    with pytest.raises(InputError, match="similarity"):
        TrainConfig(sampling="hard")  # type: ignore[arg-type]
