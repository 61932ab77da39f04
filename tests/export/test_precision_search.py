import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from benchmarks.loading import textured
from benchmarks.parity import live_in
from edge_runtime.errors import GateError
from export.activation_ranges import ActivationRanges, activation_ranges
from export.half_arithmetic import embed_in_half_arithmetic
from export.mixed_precision import to_mixed_precision
from export.onnx_encoder import encoder_to_onnx
from export.precision_search import mixed_precision_that_holds
from train.encoder import new_encoder

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Setting = tuple[onnx.ModelProto, ActivationRanges, U8, F32]


@pytest.fixture(scope="module")
def setting() -> Setting:
    torch.manual_seed(1)
    encoder = new_encoder("test_resnet", size_px=64).eval()
    images = np.stack([textured(64, 64, seed) for seed in range(8)])
    live_in(encoder, images)
    with torch.inference_mode():
        reference = encoder(torch.from_numpy(images)).numpy()
    model = encoder_to_onnx(encoder)
    return model, activation_ranges(model, images, threads=1), images, reference


def lowest(model: onnx.ModelProto, setting: Setting) -> float:
    found = embed_in_half_arithmetic(model, setting[2], threads=1)
    return float((found * setting[3]).sum(axis=1).min())


def test_where_ranges_are_enough_nothing_more_is_kept(setting: Setting) -> None:
    plain = to_mixed_precision(*setting[:2])
    found = mixed_precision_that_holds(*setting, min_cosine=0.9, threads=1)
    assert found.kept == plain.kept


def test_the_fewest_early_nodes_that_hold_are_kept_and_listed(setting: Setting) -> None:
    plain = to_mixed_precision(*setting[:2])
    base = lowest(plain.model, setting)
    asked = 1 - (1 - base) / 2  # Half of the error, which the ranges alone do not give.
    found = mixed_precision_that_holds(
        *setting, min_cosine=asked, shares=(0.0, 0.3, 0.6, 0.9), threads=1
    )
    assert lowest(found.model, setting) >= asked > base
    early = [node.name for node in found.kept if node.reason.startswith("rounding")]
    assert early
    order = [node.name for node in setting[0].graph.node]
    assert len(found.kept) - len(plain.kept) == len(early)
    kept = {node.name for node in found.kept}
    # All of them lie before the first node of FP16.
    first_half = min(k for k, name in enumerate(order) if name not in kept)
    assert max(order.index(name) for name in early) < first_half


def test_what_cannot_be_reached_is_refused_with_what_was_measured(setting: Setting) -> None:
    with pytest.raises(GateError, match=r"lowest cosine .* 0\.9\d+ .*30% of the nodes.* ship fp32"):
        mixed_precision_that_holds(*setting, min_cosine=1.1, shares=(0.0, 0.3), threads=1)
