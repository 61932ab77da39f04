"""Type stubs made from a recorded interface, so that mypy checks our code against it.

What pybind11 and Boost.Python convert by themselves is allowed for: sequences where shapes are
expected, arrays for weights, objects with the buffer protocol. Whole numbers must be `int`, though
newer bindings take more. Arguments without a name of their own (`arg0`) may only be given by
position.
"""

import builtins
import re
import typing
from typing import Any

Record = dict[str, Any]

_HEADER = """\
# mypy: disable-error-code="override, misc, overload-overlap, overload-cannot-match, assignment"
import builtins
import collections.abc
import typing
import typing_extensions
import numpy
"""
_CONVERTED = {
    "Dims": "Dims | collections.abc.Sequence[builtins.int]",
    "Weights": "Weights | numpy.ndarray[typing.Any, typing.Any]",
}
"""Argument types for which the bindings register an implicit conversion."""
_ARRAY = "numpy.ndarray[typing.Any, typing.Any]"
_PAGELOCKED = ("pagelocked_", "aligned_", "managed_")
"""pycuda functions that give arrays, which their signatures call objects."""
_NARROWED = {"typing.SupportsInt": "builtins.int", "typing.SupportsFloat": "builtins.float"}
_WORD = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?:\.\w+)*")
_NAMESPACE = re.compile(r"(?:\w+::)+(?=\w+$)")
"""C++ names of classes that were registered after the function that takes or gives them."""
_SIGNATURE = re.compile(r"^(?P<static>static )?\((?P<arguments>.*)\)(?: -> (?P<returns>.*))?$")
_ENUM = """\
class {name}:
    def __init__(self, value: builtins.int) -> None: ...
    def __int__(self) -> builtins.int: ...
    def __index__(self) -> builtins.int: ...
    def __hash__(self) -> builtins.int: ...
    name: builtins.str
    value: builtins.int
    __members__: typing.ClassVar[builtins.dict[builtins.str, {full}]]
"""


def typing_stub(record: Record) -> str:
    """The text of a `.pyi` file for a record's module."""
    return _Stub(record).text()


class _Stub:
    def __init__(self, record: Record) -> None:
        self._record = record
        self._known: set[str] = {*record["classes"], *record["enums"]}
        self._short: dict[str, str] = {name.rpartition(".")[2]: name for name in self._known}

    def text(self) -> str:
        lines = [_HEADER]
        for name, members in self._record["enums"].items():
            if "." not in name:
                lines += self._enum(name, members)
        for name in self._in_order():
            lines += self._class(name, self._record["classes"][name])
        for name, signatures in self._record["functions"].items():
            lines += self._function(name, signatures, method=False)
        for name, kind in self._record["constants"].items():
            lines.append(f"{name}: {self._type(kind)}")
        return "\n".join(lines) + "\n"

    def _in_order(self) -> list[str]:
        """Bases before what derives from them."""
        ordered: list[str] = []

        def place(name: str) -> None:
            if name in self._record["classes"] and name not in ordered:
                for base in self._record["classes"][name].get("bases", []):
                    place(base)
                ordered.append(name)

        for name in self._record["classes"]:
            place(name)
        return ordered

    def _enum(self, name: str, members: list[str]) -> list[str]:
        text = _ENUM.format(name=name.rpartition(".")[2], full=name)
        return [text, *(f"    {member}: typing.ClassVar[{name}]" for member in members)]

    def _class(self, name: str, entry: Record) -> list[str]:
        known = [b for b in entry.get("bases", []) if b in self._known or hasattr(builtins, b)]
        lines = [f"class {name}({', '.join(known)}):", "    ..."]
        if name == "IHostMemory":
            lines.append(
                "    def __buffer__(self, flags: builtins.int) -> builtins.memoryview: ..."
            )
        for enum, members in self._record["enums"].items():
            if enum.rpartition(".")[0] == name:
                lines += [
                    f"    {line}"
                    for text in self._enum(enum, members)
                    for line in text.splitlines()
                ]
        for attribute, kind in entry.get("constants", {}).items():
            if not attribute.isidentifier():
                continue
            if kind.startswith("type["):
                lines.append(f"    {attribute}: typing.TypeAlias = {kind[5:-1]}")
            else:
                lines.append(f"    {attribute}: typing.ClassVar[{self._type(kind)}]")
        for attribute, text in entry.get("properties", {}).items():
            kind, _, read_only = text.partition(" (")
            shown = self._type(kind)
            lines += ["    @builtins.property", f"    def {attribute}(self) -> {shown}: ..."]
            if not read_only:
                lines += [
                    f"    @{attribute}.setter",
                    f"    def {attribute}(self, value: {self._argument_type(kind)}) -> None: ...",
                ]
        for attribute, signatures in entry.get("methods", {}).items():
            lines += [f"    {line}" for line in self._function(attribute, signatures, method=True)]
            if attribute == "__getitem__":  # Python iterates over anything with indices from 0 on.
                item = self._type(signatures[0].rpartition("->")[2].strip())
                lines.append(f"    def __iter__(self) -> collections.abc.Iterator[{item}]: ...")
        return lines

    def _function(self, name: str, signatures: list[str], *, method: bool) -> list[str]:
        lines = []
        for signature in signatures:
            match = _SIGNATURE.match(signature)
            if match is None:
                msg = f"cannot read the recorded signature {name}{signature}"
                raise ValueError(msg)
            if len(signatures) > 1:
                lines.append("@typing.overload")
            if match["static"]:
                lines.append("@builtins.staticmethod")
            arguments = _split(match["arguments"])
            parameters = [self._parameter(text) for text in arguments]
            if method and not match["static"]:
                parameters[0] = "self"
            returns = match["returns"]
            shown = self._type(returns) if returns is not None else "typing.Any"
            if name.startswith(_PAGELOCKED):
                shown = _ARRAY
            lines.append(f"def {name}({', '.join(parameters)}) -> {shown}: ...")
        return lines

    def _parameter(self, text: str) -> str:
        declared, _, default = (part.strip() for part in text.partition("="))
        name, _, kind = (part.strip() for part in declared.partition(":"))
        if re.fullmatch(r"arg\d+", name):
            name = f"__{name}"
        kind = kind or "object"
        shown = self._argument_type(kind) + (" | None" if default == "None" else "")
        return f"{name}: {shown}" + (" = ..." if default else "")

    def _argument_type(self, kind: str) -> str:
        return _CONVERTED.get(kind) or self._type(kind)

    def _type(self, text: str) -> str:
        """A recorded type as mypy can read it; what it cannot know is Any."""

        def word(match: re.Match[str]) -> str:
            name = match[0]
            if name in self._known:
                return name
            if name.startswith("I") and name[1:] in self._known:  # IParserError and the like.
                return name[1:]
            if name in self._short:  # Nested classes are recorded with and without their owner.
                return self._short[name]
            if name in ("Buffer", "buffer"):
                return "typing_extensions.Buffer"
            if name in _NARROWED:
                return _NARROWED[name]
            if name == "None" or name.startswith(("typing.", "collections.abc.")):
                return name
            if name.startswith("numpy.ndarray"):
                return _ARRAY
            if name != "object" and hasattr(builtins, name):
                return f"builtins.{name}"
            if hasattr(typing, name):
                return f"typing.{name}"
            return "typing.Any"

        plain = _NAMESPACE.sub("", text)
        return "typing.Any" if "::" in plain else _WORD.sub(word, plain)


def _split(arguments: str) -> list[str]:
    """Split at commas that are inside no bracket."""
    parts, depth = [""], 0
    for letter in arguments:
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]
