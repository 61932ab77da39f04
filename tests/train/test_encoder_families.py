"""Every fact stated about a family is checked on the network itself, with random weights."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edge_runtime.errors import InputError
from train.encoder import Encoder, new_encoder
from train.encoder_families import (
    FAMILIES,
    EncoderFamily,
    derived_family,
    family_of,
)
from train.timm_import import timm

NAMES = [family.architecture for family in FAMILIES]


def tile_px(family: EncoderFamily) -> int:
    """Small, and a multiple of what the family needs."""
    return 6 * family.size_multiple_px if family.size_multiple_px > 1 else 96


def photo_px(family: EncoderFamily) -> tuple[int, int]:
    """As wide as a panorama; where the family allows, odd as the paper's 140 px is for strides."""
    step = family.size_multiple_px
    return (2 * step, 9 * step) if step > 1 else (35, 192)


def pictures(count: int, height_px: int, width_px: int) -> Tensor:
    rng = np.random.default_rng(1)
    return torch.from_numpy(rng.integers(0, 256, (count, height_px, width_px, 3), np.uint8))


@torch.no_grad()
def lived_in(encoder: Encoder) -> Encoder:
    """Statistics and scales as after training; fresh ones would hide what a layer does."""
    generator = torch.Generator().manual_seed(3)
    for module in encoder.body.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.2, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            module.weight.uniform_(0.5, 1.5, generator=generator)
            module.bias.uniform_(-0.3, 0.3, generator=generator)
    return encoder


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda f: f.architecture)
def built(request: pytest.FixtureRequest) -> tuple[EncoderFamily, Encoder]:
    """A family and an encoder of it for two sizes; one at a time, because the large ones are."""
    family: EncoderFamily = request.param
    torch.manual_seed(0)
    encoder = new_encoder(
        family.architecture, size_px=tile_px(family), photo_size_px=photo_px(family)
    )
    return family, lived_in(encoder).eval()


@torch.inference_mode()
def embedded(encoder: Encoder, images: Tensor) -> Any:
    return encoder(images).numpy()


def test_tiles_and_photos_become_finite_rows_of_unit_length(
    built: tuple[EncoderFamily, Encoder],
) -> None:
    family, encoder = built
    for height_px, width_px in ((tile_px(family), tile_px(family)), photo_px(family)):
        found = embedded(encoder, pictures(2, height_px, width_px))
        assert found.shape == (2, family.embedding_size)
        assert np.isfinite(found).all()
        assert np.linalg.norm(found, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_the_stated_size_is_that_of_the_network(built: tuple[EncoderFamily, Encoder]) -> None:
    family, encoder = built
    counted = sum(p.numel() for p in encoder.body.parameters()) / 1e6
    # Position embeddings grow with the image.
    assert counted == pytest.approx(family.parameters_m, rel=0.05)
    assert encoder.spec.embedding_size == family.embedding_size


def test_an_embedding_depends_on_its_batch_in_training_only_where_batch_norm_is_stated(
    built: tuple[EncoderFamily, Encoder],
) -> None:
    family, encoder = built
    images = pictures(4, tile_px(family), tile_px(family))
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder.train()
    with torch.no_grad():
        together = encoder(images)[:2]
        in_pairs = encoder(images[:2])
    encoder.eval()
    encoder.load_state_dict(state)  # Running statistics have moved.
    assert torch.allclose(together, in_pairs, atol=1e-4) == (not family.has_batch_norm)


def test_recomputing_activations_keeps_fewer_of_them_and_changes_no_gradient(
    built: tuple[EncoderFamily, Encoder],
) -> None:
    family, encoder = built
    images = pictures(1, tile_px(family), tile_px(family))

    def kept_and_gradient(on: bool) -> tuple[int, Tensor]:
        kept = 0

        def count(value: Tensor) -> Tensor:
            nonlocal kept
            kept += value.numel()
            return value

        encoder.body.set_grad_checkpointing(on)  # type: ignore[operator]
        encoder.zero_grad()
        encoder.train()  # timm's networks recompute in training only.
        for module in encoder.body.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
            loss = encoder(images)[0, :7].sum()
        loss.backward()
        first = next(p for p in encoder.body.parameters() if p.grad is not None)
        assert first.grad is not None
        return kept, first.grad.clone()

    kept, gradient = kept_and_gradient(False)
    kept_again, gradient_again = kept_and_gradient(True)
    encoder.body.set_grad_checkpointing(False)  # type: ignore[operator]
    encoder.eval()
    assert family.has_grad_checkpointing
    assert kept_again < 0.7 * kept
    assert torch.allclose(gradient, gradient_again, atol=1e-6)


def test_fused_branches_embed_the_same_with_fewer_layers(
    built: tuple[EncoderFamily, Encoder],
) -> None:
    family, encoder = built
    images = pictures(2, tile_px(family), tile_px(family))
    expected = embedded(encoder, images)
    original = encoder.body
    encoder.body = timm.models.reparameterize_model(original)
    found = embedded(encoder, images)
    layers = [len(list(body.modules())) for body in (encoder.body, original)]
    encoder.body = original
    assert (layers[0] < layers[1]) == family.fuses
    assert (found * expected).sum(axis=1) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES, ids=NAMES)
def test_what_is_stated_is_what_timm_and_the_network_say(family: EncoderFamily) -> None:
    assert derived_family(family.architecture) == family


def test_every_family_says_where_it_may_fly() -> None:
    for family in FAMILIES:
        assert family.licence_is_open == (not family.licence_note)
    closed = {f.architecture.split(".")[0]: f.licence_note for f in FAMILIES if f.licence_note}
    assert set(closed) == {"fastvit_t8", "fastvit_sa12", "vit_small_patch16_dinov3"}
    assert "no military use" in closed["vit_small_patch16_dinov3"]
    assert derived_family("convnext_tiny.dinov3_lvd1689m").licence == "dinov3-license"


@pytest.mark.parametrize(
    ("architecture", "learning_rate"),
    [
        ("convnext_base", 1e-3),  # Deuser et al. 2023, section 4.
        ("mobilenetv4_conv_small", 1e-3),
        ("fastvit_sa12", 1e-3),
        ("resnet50", 1e-3),
        ("vit_small_patch14_dinov2", 1e-4),
        ("vit_small_patch16_dinov3", 1e-4),
        ("vit_tiny_patch16_224", 1e-4),
        ("swin_tiny_patch4_window7_224", 1e-4),
    ],
)
def test_transformers_start_at_a_tenth_of_the_papers_learning_rate(
    architecture: str, learning_rate: float
) -> None:
    assert family_of(architecture).learning_rate == learning_rate


def test_a_name_without_a_tag_means_the_recommended_weights_else_timms_choice() -> None:
    assert family_of("convnext_base").architecture == "convnext_base.fb_in22k_ft_in1k_384"
    assert family_of("repvit_m0_9").architecture == "repvit_m0_9.dist_450e_in1k"
    assert family_of("resnet50").architecture == "resnet50.a1_in1k"
    other = family_of("convnext_base.fb_in1k")
    assert (other.architecture, other.pretrained_size_px) == ("convnext_base.fb_in1k", 224)


def test_normalisation_is_that_of_the_tag() -> None:
    # timm's configuration of Meta's weights for satellite images.
    satellite = family_of("vit_large_patch16_dinov3.sat493m")
    assert satellite.mean == (0.43, 0.411, 0.296)
    assert satellite.std == (0.213, 0.156, 0.143)
    assert satellite.parameters_m == pytest.approx(303, rel=0.01)


def test_asking_for_facts_neither_draws_random_numbers_nor_takes_memory() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    derived_family.cache_clear()
    assert derived_family("vit_giant_patch14_dinov2").parameters_m > 1000
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("architecture", "sizes", "multiple"),
    [
        ("resnet50", "any", 1),
        ("mobileone_s0", "any", 1),  # Takes an img_size, but does not need it.
        ("deit_tiny_distilled_patch16_224", "given", 16),
        ("eva02_tiny_patch14_224", "given", 14),
        ("beit_base_patch16_224", "one", 16),
    ],
)
def test_sizes_of_other_networks_are_found_by_trying(
    architecture: str, sizes: str, multiple: int
) -> None:
    family = family_of(architecture)
    assert (family.sizes, family.size_multiple_px) == (sizes, multiple)


def test_transformers_are_told_their_sizes_and_convolutions_nothing() -> None:
    vit = family_of("vit_small_patch14_dinov2")
    assert vit.model_args((224, 224)) == {"img_size": [224, 224]}
    assert vit.model_args((224, 224), (224, 224)) == {"img_size": [224, 224]}
    assert vit.model_args((224, 224), (140, 770)) == {
        "img_size": [224, 224],
        "dynamic_img_size": True,
    }
    assert family_of("convnext_atto").model_args((384, 384), (140, 768)) == {}


@pytest.mark.parametrize(
    ("size_px", "said"),
    [
        ((224, 225), r"224x225 is not\. Try 224x224 or 224x238"),
        ((140, 768), r"140x768 is not\. Try 140x756 or 140x770"),
        ((7, 14), r"7x14 is not\. Try 14x14 or 14x14"),
        ((0, 14), r"0x14 is not\. Try 14x14"),
    ],
)
def test_sizes_that_patches_do_not_divide_are_refused_with_the_nearest(
    size_px: tuple[int, int], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        family_of("vit_small_patch14_dinov2").model_args((224, 224), size_px)


def test_unknown_names_are_refused_with_near_ones() -> None:
    with pytest.raises(InputError, match=r"near names: .*'fastvit_t8'"):
        family_of("fastvit_t9")
    with pytest.raises(
        InputError, match=r"cannot build convnext_atto\.nonsense: Invalid pretrained tag"
    ):
        family_of("convnext_atto.nonsense")


def test_families_are_records_that_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FAMILIES[0].embedding_size = 1  # type: ignore[misc]


# --- export --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture",
    [
        "convnext_atto",
        "convnext_tiny",
        "mobilenetv4_conv_small",
        "repvit_m0_9",
        "fastvit_t8",
        "vit_small_patch14_dinov2",
        "vit_small_patch16_dinov3",
    ],
)
def test_onnx_runtime_embeds_as_pytorch_does(architecture: str, tmp_path: Path) -> None:
    import onnxruntime

    from export.onnx_encoder import export_onnx

    family = family_of(architecture)
    torch.manual_seed(0)
    encoder = new_encoder(
        family.architecture, size_px=tile_px(family), photo_size_px=photo_px(family)
    )
    lived_in(encoder).eval()
    images = pictures(3, tile_px(family), tile_px(family))
    export_onnx(encoder, tmp_path / "e.onnx", "fp32")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(tmp_path / "e.onnx"), sess_options=options, providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(["embeddings"], {"images": images.numpy()})
    assert (found * embedded(encoder, images)).sum(axis=1).min() > 0.9999


# --- documentation -------------------------------------------------------------------------------


def test_the_documented_table_states_these_families_and_these_facts() -> None:
    page = (Path(__file__).parents[2] / "docs" / "encoders.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if line.startswith("| `")
    ]
    stated = [(row[0].split("`")[1], *row[1:8], row[9]) for row in rows]
    assert stated == [
        (
            family.architecture,
            f"{family.parameters_m:.2f}",
            str(family.embedding_size),
            str(family.pretrained_size_px),
            f"{family.learning_rate:.0e}".replace("e-0", "e-"),
            "any" if family.size_multiple_px == 1 else f"x {family.size_multiple_px}",
            "yes" if family.has_batch_norm else "no",
            "yes" if family.fuses else "no",
            family.licence,
        )
        for family in FAMILIES
    ]
