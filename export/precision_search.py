"""Mixed precision that is known to hold: more is kept in FP32 until half arithmetic agrees.

Ranges say where FP16 overflows, not where rounding grows. It grows with depth: what an early layer
rounds, all later ones pass on and enlarge. So the first part of the network is kept, a larger one
each time; a network whose weights are trained seldom needs any.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx

from edge_runtime.errors import GateError
from export.activation_ranges import ActivationRanges
from export.half_arithmetic import embed_in_half_arithmetic
from export.mixed_precision import MixedPrecision, to_mixed_precision

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

SHARES = (0.0, 0.125, 0.25, 0.5)
"""Of the graph's nodes, from the input on, that are kept in one trial after the other."""


def mixed_precision_that_holds(
    model: onnx.ModelProto,
    ranges: ActivationRanges,
    images: U8,
    reference: F32,
    *,
    min_cosine: float,
    shares: Sequence[float] = SHARES,
    threads: int | None = None,
) -> MixedPrecision:
    """The mixed precision with the fewest early nodes in FP32 that agrees with the encoder.

    On GPUs with TF32 the builder must be told not to use it, else convolutions that are kept here
    round their inputs to as few bits as FP16 does.

    Args:
        model: FP32, of `encoder_to_onnx`.
        ranges: of `activation_ranges`.
        images: (N, H, W, 3) uint8, RGB, to judge on.
        reference: (N, D) their embeddings by the trained encoder, unit length.
        min_cosine: that every picture must reach in half arithmetic.
        shares: of the nodes to keep, in the order they are tried.
        threads: CPU threads; None for all of this machine's.

    Returns:
        The first that holds.

    Raises:
        GateError: none holds.
    """
    nodes = [node.name for node in model.graph.node]
    lowest = float("nan")
    for share in shares:
        first = nodes[: round(share * len(nodes))]
        mixed = to_mixed_precision(
            model, ranges, keep=first, keep_because="rounding here grows on the way"
        )
        found = embed_in_half_arithmetic(mixed.model, images, threads=threads)
        lowest = float(np.min(np.sum(found * reference, axis=1)))
        if lowest >= min_cosine:
            return mixed
    msg = (
        f"fp16: lowest cosine to the trained encoder {lowest:.6f} in half arithmetic with "
        f"{max(shares):.0%} of the nodes in FP32, expected >= {min_cosine}; ship fp32"
    )
    raise GateError(msg)
