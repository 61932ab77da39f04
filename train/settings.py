"""`NAME=VALUE` on a command line to fields of a frozen config, read by each field's type."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin

from edge_runtime.errors import InputError

Config = TypeVar("Config")


def with_settings(config: Config, settings: Sequence[str]) -> Config:
    """A config with settings applied; `none` clears an optional one.

    Args:
        config: an instance of a dataclass of numbers, booleans, choices and tuples of numbers.
        settings: each `NAME=VALUE`; tuples as `64,256`.

    Raises:
        InputError: an unknown name (the nearest and the known ones are listed), a value of another
            type, or what the config itself refuses.
    """
    hints = typing.get_type_hints(type(config))
    values: dict[str, Any] = {}
    for item in settings:
        name, text = name_value(item)
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            msg = f"there is no setting {name!r}; {hint}Known: {', '.join(hints)}"
            raise InputError(msg)
        values[name] = _read(name, text, hints[name])
    changed: Config = dataclasses.replace(config, **values)  # type: ignore[type-var]
    return changed


def name_value(item: str) -> tuple[str, str]:
    """Both sides of `NAME=VALUE`.

    Raises:
        InputError: there is no `=`.
    """
    name, separator, text = (part.strip() for part in item.partition("="))
    if not separator:
        msg = f"{item!r} is not NAME=VALUE"
        raise InputError(msg)
    return name, text


def _read(name: str, text: str, annotation: Any) -> Any:
    """One value from its text."""
    if isinstance(annotation, types.UnionType) or get_origin(annotation) is typing.Union:
        if text.lower() in ("none", ""):
            return None
        (annotation,) = (kind for kind in get_args(annotation) if kind is not type(None))
    if get_origin(annotation) is Literal:
        return text  # The config checks the choice.
    try:
        if annotation is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if get_origin(annotation) is tuple:
            kind = get_args(annotation)[0]
            return tuple(kind(part) for part in text.split(",") if part.strip())
        return annotation(text)
    except (KeyError, ValueError) as error:
        expected = "true or false" if annotation is bool else getattr(annotation, "__name__", "")
        msg = f"setting {name} is {text!r}; expected {expected}"
        raise InputError(msg) from error
