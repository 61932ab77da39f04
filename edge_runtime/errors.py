"""Every error skyfix raises on purpose.

    SkyfixError                 a mistake the user can mend: one clear line, exit status 2
    ├── ArtefactError           a checkpoint, bundle or index folder is missing or altered
    │   ├── BundleError
    │   └── IndexFolderError    (also: made by another encoder than the bundle's)
    ├── BackendError            an inference library is missing or cannot run the encoder here
    │   └── EngineError         a TensorRT engine cannot be built, is altered or stale
    ├── ImageryError            satellite imagery without georeference, empty, or unreadable
    ├── InputError              a frame, telemetry, camera file or option is wrong (ValueError too)
    └── GateError               an exported encoder answers differently from the trained one

Messages say what was seen, what was expected and what to do, in this order.
"""


class SkyfixError(Exception):
    """Base of every deliberate error. Command lines print it as one line and exit with 2."""


class ArtefactError(SkyfixError):
    """A folder with a manifest is missing, incomplete, altered or of another schema."""


class BundleError(ArtefactError):
    """A bundle cannot be used as it is."""


class IndexFolderError(ArtefactError):
    """A satellite index cannot be used as it is, or belongs to another encoder."""


class BackendError(SkyfixError):
    """A backend is not installed, not available on this machine, or fails its probes."""


class EngineError(BackendError):
    """A TensorRT engine cannot be built or refitted, or the one at hand is not for this use."""


class ImageryError(SkyfixError):
    """Satellite imagery cannot be read or has no usable georeference."""


class InputError(SkyfixError, ValueError):
    """Something handed in by the user (file, column, value, option) is not usable."""


class GateError(SkyfixError):
    """An exported encoder did not pass a gate, so it is not written as shippable."""
