"""What `--source` may be: a folder, a video file, a device, a stream, a pipeline."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from edge_runtime.errors import InputError

Kind = Literal["file", "v4l2", "csi", "network", "gst"]

_NETWORK = ("rtsp", "rtsps", "udp", "tcp", "http", "https")
_SCHEMES = ("file", "v4l2", "usb", "csi", *_NETWORK, "gst")

_KNOWN: Mapping[Kind, tuple[str, ...]] = {
    "file": ("realtime",),
    "v4l2": ("width", "height", "fps", "fourcc", "buffers", "latency_ms", "open_s"),
    "csi": ("width", "height", "fps", "flip", "latency_ms", "open_s"),
    "network": ("backend", "transport", "latency_ms", "open_s"),
    "gst": (),
}


@dataclass(frozen=True, kw_only=True)
class SourceUri:
    """A source as it was given, taken apart."""

    kind: Kind
    shown: str
    """As it was given, without a password."""
    target: str
    """Path, device, sensor number, address or pipeline."""
    options: Mapping[str, str] = field(default_factory=dict)
    """From the query; of streams only those that are ours, the rest stays in the address."""

    def number(self, name: str, default: float | None = None) -> float | None:
        """An option as a positive number, or zero for a latency.

        Raises:
            InputError: it is something else.
        """
        text = self.options.get(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not (0 < value < 1e6 or (value == 0 and name in {"latency_ms", "flip"})):
            msg = f"{self.shown}: {name}={text} is no positive number; give one as {name}=30"
            raise InputError(msg)
        return value

    def whole(self, name: str) -> int | None:
        """An option as a whole number.

        Raises:
            InputError: it is something else.
        """
        value = self.number(name)
        if value is not None and value != int(value):
            msg = f"{self.shown}: {name}={value:g} is no whole number"
            raise InputError(msg)
        return None if value is None else int(value)

    def truth(self, name: str) -> bool:
        """An option that is 1 or 0.

        Raises:
            InputError: it is something else.
        """
        text = self.options.get(name, "0")
        if text not in {"0", "1"}:
            msg = f"{self.shown}: {name}={text} is not understood; give {name}=1 or leave it out"
            raise InputError(msg)
        return text == "1"

    def one_of(self, name: str, choices: tuple[str, ...]) -> str:
        """An option that is one of a few words; the first where it is not given.

        Raises:
            InputError: it is something else.
        """
        text = self.options.get(name, choices[0])
        if text not in choices:
            msg = f"{self.shown}: {name}={text} is not known; give one of {', '.join(choices)}"
            raise InputError(msg)
        return text


def parse_source(text: str) -> SourceUri:
    """Take a source apart.

    Raises:
        InputError: a scheme or an option that is not known; the nearest known one is named.
    """
    if Path(text).exists() and not text.startswith("/dev/"):
        return SourceUri(kind="file", shown=text, target=text)
    if text.startswith("gst:"):
        return _pipeline(text)
    if text.startswith("/dev/"):
        target, _, query = text.partition("?")
        return _checked("v4l2", text, target, query)
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):(/*)", text)
    if match is None:
        target, _, query = text.partition("?")
        return _checked("file", text, target, query)
    scheme, slashes = match[1].lower(), match[2]
    if scheme not in _SCHEMES:
        near = difflib.get_close_matches(scheme, _SCHEMES, 1, 0.5)
        mean = f"did you mean {near[0]}:" if near else f"known: {', '.join(_SCHEMES)}"
        shown = without_password(text)
        msg = f"{shown}: there is no kind of source {scheme!r}; {mean}"
        raise InputError(msg)
    if len(slashes) < 2:
        msg = f"{without_password(text)}: expected {scheme}:// with two slashes"
        raise InputError(msg)
    rest = text[match.end(1) + 3 :]
    if scheme in _NETWORK:
        return _stream(text)
    target, _, query = rest.partition("?")
    if scheme == "file":
        return _checked("file", text, unquote(target.removeprefix("localhost")), query)
    if scheme == "csi":
        return _checked("csi", text, _sensor(text, target), query)
    device = f"/dev/video{target}" if target.isdigit() else "/" + target.lstrip("/")
    return _checked("v4l2", text, device, query)


def without_password(text: str) -> str:
    """An address with what stands before its host replaced."""
    return re.sub(r"(//)[^/@?#\s]*@(?=[^/\s])", r"\1***@", text)


def _checked(kind: Kind, text: str, target: str, query: str) -> SourceUri:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in _KNOWN[kind]:
            near = difflib.get_close_matches(name, _KNOWN[kind], 1, 0.5)
            mean = f"did you mean {near[0]}?" if near else f"known: {', '.join(_KNOWN[kind])}"
            msg = f"{without_password(text)}: there is no option {name!r} here; {mean}"
            raise InputError(msg)
    return SourceUri(kind=kind, shown=without_password(text), target=target, options=options)


def _sensor(text: str, target: str) -> str:
    if not target.isdigit():
        msg = f"{text}: expected the number of the sensor, as csi://0"
        raise InputError(msg)
    return target


def _stream(text: str) -> SourceUri:
    parts = urlsplit(text)
    if not parts.netloc:
        msg = f"{text}: expected a host, as {parts.scheme}://192.168.1.20:8554/main"
        raise InputError(msg)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    ours = {name: value for name, value in pairs if name in _KNOWN["network"]}
    # Cameras have options of their own in their addresses; those are left as they were written.
    target = text
    if ours:
        theirs = [(name, value) for name, value in pairs if name not in ours]
        target = urlunsplit(parts._replace(query=urlencode(theirs)))
    return SourceUri(kind="network", shown=without_password(text), target=target, options=ours)


def _pipeline(text: str) -> SourceUri:
    pipeline = text.removeprefix("gst:").removeprefix("//").strip()
    if not re.search(r"!\s*appsink\b", pipeline):
        msg = (
            f"{without_password(text)}: the pipeline has no appsink to take frames from; end it "
            "with ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1"
        )
        raise InputError(msg)
    return SourceUri(kind="gst", shown=without_password(text), target=pipeline)
