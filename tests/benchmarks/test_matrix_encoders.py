from pathlib import Path

import pytest

from benchmarks.matrix.encoders import CHOICES, chosen
from edge_runtime.errors import InputError


def test_all_encoders_are_measured_unless_some_are_named() -> None:
    assert chosen([], [], {}, [], []) == sorted(CHOICES, key=lambda choice: -choice.gmac)
    (one,) = chosen(["resnet18-224"], [], {}, [], [])
    assert (one.architecture, one.size_px) == ("resnet18", 224)


def test_any_network_of_timm_can_be_named_with_its_size() -> None:
    (one,) = chosen(["fastvit_t8:256"], [], {}, [], [])
    assert (one.name, one.architecture, one.size_px) == ("fastvit_t8-256", "fastvit_t8", 256)


def test_sizes_take_the_place_of_each_encoders_own() -> None:
    found = chosen(["resnet18-224"], [128, 256], {}, [], [])
    assert [choice.name for choice in found] == ["resnet18-256", "resnet18-128"]
    # Convolutions cost as much as there are pixels.
    assert found[0].gmac == pytest.approx(4 * found[1].gmac)


def test_weights_go_to_the_encoder_they_are_for(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    found = chosen(["resnet18-224", "mobilenetv2_100-224"], [], {"resnet18-224": file}, [], [])
    assert {choice.name: choice.weights for choice in found} == {
        "resnet18-224": file,
        "mobilenetv2_100-224": None,
    }


def test_weights_for_an_encoder_that_is_not_measured_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names 'resnet50-224', which is not measured"):
        chosen(["resnet18-224"], [], {"resnet50-224": tmp_path}, [], [])


def test_a_name_without_a_size_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(InputError, match=r"expected one of convnext_base-384, .*ARCHITECTURE:SIZE"):
        chosen(["resnet18"], [], {}, [], [])


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    from benchmarks.matrix.encoders import _weights_sha256

    with pytest.raises(InputError, match=r"no model\.safetensors; expected a folder of python -m"):
        _weights_sha256(tmp_path)
