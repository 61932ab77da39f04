"""Describe a loaded extension module's Python interface as plain data, one JSON object on stdout.

Runs in a process of its own, because what it imports is native code: `python introspection.py
MODULE`. Signatures come from the first lines of docstrings, where pybind11 and Boost.Python write
them when the module is loaded; what has none is an error, never a guess.
"""

import importlib
import inspect
import json
import re
import sys
from types import ModuleType
from typing import Any

LEFT_OUT = re.compile(
    r"I\w*Layer$|I?Plugin|IPlugin|Quick|\w*Registry$|KernelLaunch|IExpr|IDim|ISym"
)
"""Classes for building networks by hand and for writing plugins: not recorded."""
_OVERLOAD = re.compile(r"^\d+\. (?P<name>\w+)(?P<signature>\(.*)$", re.MULTILINE)
_PREFIX = re.compile(
    r"\b(tensorrt(_bindings)?\.tensorrt\.|nvinfer1::|(typing_extensions|collections\.abc)\.(?=Buffer))"
)
"""Module names in signatures; that of Buffer depends on the version of Python."""
_DEFAULT_MEMBER = re.compile(r"<([\w.]+): -?\w+>")
_BOOST = re.compile(r"^(?P<name>\w+)\((?P<arguments>.*)\) -> (?P<returns>[\w.]+) :$", re.MULTILINE)
_BOOST_ARGUMENT = re.compile(
    r"\((?P<type>[\w.]+)\)(?P<name>\w+)(=(?P<default>'[^']*'|[^\s,\[\]]+))?"
)
_DEFAULT_OBJECT = re.compile(r"<[^<>]* object at 0x[0-9a-f]+>")


def describe(module: ModuleType) -> dict[str, Any]:
    """The interface of a native module: classes, enumerations, functions and constants.

    Raises:
        ValueError: a function without a signature in its docstring.
    """
    found: dict[str, Any] = {"classes": {}, "enums": {}, "functions": {}, "constants": {}}
    for name, value in sorted(vars(module).items()):
        if isinstance(value, ModuleType) or _private(name) or name.startswith("common_"):
            continue
        if inspect.isclass(value):
            _describe_class(value, name, found)
        elif callable(value):
            found["functions"][name] = _signatures(value)
        else:
            found["constants"][name] = type(value).__qualname__
    return found


def _describe_class(cls: type, name: str, found: dict[str, Any]) -> None:
    if LEFT_OUT.match(name):
        return
    members = getattr(cls, "__members__", None)
    if members is None and cls.__bases__[0].__qualname__ == "enum":  # Boost.Python's
        members = vars(cls)["names"]
    if members is not None:
        found["enums"][name] = list(members)
        return
    entry: dict[str, Any] = {"methods": {}, "properties": {}, "constants": {}}
    if bases := [b.__qualname__ for b in cls.__bases__ if not _of_the_binder(b)]:
        entry["bases"] = bases
    for attribute, value in sorted(vars(cls).items()):
        if _private(attribute) and attribute not in _KEPT:
            continue
        if attribute.startswith("add_") and name == "INetworkDefinition":
            continue
        if isinstance(value, property):
            entry["properties"][attribute] = _property(value)
        elif inspect.isclass(value):
            if name == value.__qualname__.rpartition(".")[0]:
                _describe_class(value, f"{name}.{attribute}", found)
            else:
                entry["constants"][attribute] = f"type[{value.__qualname__}]"
        elif callable(value) or isinstance(value, staticmethod):
            if signatures := _signatures(value):
                entry["methods"][attribute] = signatures
        else:
            entry["constants"][attribute] = type(value).__qualname__
    found["classes"][name] = {key: value for key, value in entry.items() if value}


_KEPT = {"__init__", "__getitem__", "__setitem__", "__len__", "__int__", "__index__"}


def _of_the_binder(base: type) -> bool:
    return base is object or base.__module__ in ("pybind11_builtins", "Boost.Python")


def _private(name: str) -> bool:
    return name.startswith("_") and name != "__version__"


def _signatures(function: Any) -> list[str]:
    """Each overload as `(self, name: type = default) -> type`; empty for a slot's own docstring."""
    if isinstance(function, staticmethod):
        return [f"static {text}" for text in _signatures(function.__func__)]
    if inspect.isfunction(function):
        return [str(inspect.signature(function))]
    document = function.__doc__ or ""
    if document.startswith(("Initialize self.", "Raises an exception")):
        return []  # Not constructible from Python: pybind11 and Boost.Python say so in their ways.
    if type(function).__module__ == "Boost.Python" and (boost := _boost_signatures(document)):
        return boost
    first = document.split("\n", 1)[0]
    if "Overloaded function." in document:
        texts = [match["signature"] for match in _OVERLOAD.finditer(document)]
    else:
        texts = [first[first.find("(") :]] if "(" in first and "->" in first else []
    if not texts:
        msg = f"{function!r} has no signature in its docstring: {first!r}"
        raise ValueError(msg)
    return [_tidy(text) for text in texts]


def _boost_signatures(document: str) -> list[str]:
    """`f( (int)a [, (object)b=None]) -> T :` as `(a: int, b: object = None) -> T`."""
    texts = []
    for match in _BOOST.finditer(document):
        arguments = ", ".join(
            f"{a['name']}: {a['type']}" + (f" = {a['default']}" if a["default"] else "")
            for a in _BOOST_ARGUMENT.finditer(match["arguments"])
        )
        texts.append(f"({arguments}) -> {match['returns']}")
    return texts


def _property(value: property) -> str:
    """The property's type, with ` (read-only)` where it cannot be set."""
    getter = (value.fget.__doc__ if value.fget is not None else None) or ""
    kind = _tidy(getter.split("\n", 1)[0].rpartition("->")[2].strip()) or "object"
    return kind if value.fset is not None else f"{kind} (read-only)"


def _tidy(text: str) -> str:
    text = _PREFIX.sub("", text.strip())
    text = _DEFAULT_MEMBER.sub(r"\1", text)
    return _DEFAULT_OBJECT.sub("...", text)


if __name__ == "__main__":
    json.dump(describe(importlib.import_module(sys.argv[1])), sys.stdout)
