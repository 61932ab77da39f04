"""Import timm where torchvision's compiled operators do not fit torch.

timm needs torchvision at import. A torchvision wheel built for CUDA beside a CPU build of torch
fails while registering shape functions for operators that its library would have declared;
declaring their schemas first lets the import pass. Nothing here uses those operators.
"""

import torch

_SCHEMAS = (
    ("torchvision::nms", "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
    (
        "torchvision::qnms",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ),
)


def _declare_missing_operators() -> list[torch.library.Library]:
    """Declare what is missing; the returned libraries must stay alive."""
    import importlib.util

    if importlib.util.find_spec("torchvision") is None:
        return []
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        libraries = []
        for _, schema in _SCHEMAS:
            library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
            library.define(schema)  # type: ignore[no-untyped-call]
            libraries.append(library)
        import sys

        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        return libraries
    return []


_LIBRARIES = _declare_missing_operators()

import timm  # noqa: E402  (only importable after the declarations above)

__all__ = ["timm"]
