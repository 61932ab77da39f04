"""Rows that were read back, as the records they were written from."""

from dataclasses import is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from edge_runtime.errors import InputError

Record = TypeVar("Record")


def record(kind: type[Record], row: dict[str, Any], where: str) -> Record:
    """Build a frozen dataclass from what `asdict` and JSON made of one.

    Args:
        kind: a dataclass of plain values, other dataclasses, dicts and tuples.
        row: its fields by name; those that have a default may be missing.
        where: file and line, for the error.

    Raises:
        InputError: a field is missing, unknown, or not of its type.
    """
    try:
        built: Record = _built(kind, row)
    except (TypeError, KeyError, AttributeError) as error:
        msg = f"{where} is no {kind.__name__} of this checkout ({error}); measure it again"
        raise InputError(msg) from error
    return built


def _built(kind: Any, row: dict[str, Any]) -> Any:
    hints = _hints(kind)
    return kind(**{name: _value(hints[name], value, name) for name, value in row.items()})


def _value(hint: Any, value: Any, name: str) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        if value is None and NoneType in inner:
            return None
        return _value(next(i for i in inner if i is not NoneType), value, name)
    if is_dataclass(hint):
        return _built(hint, value)
    if origin is dict:
        return {key: _value(inner[1], item, name) for key, item in value.items()}
    if origin is tuple:
        return tuple(_value(inner[0], item, name) for item in value)
    expected = _JSON.get(hint)
    if expected is not None and not isinstance(value, expected):
        msg = f"{name} is {value!r}, expected {hint.__name__}"
        raise TypeError(msg)
    return value


_JSON: dict[Any, tuple[type, ...]] = {float: (int, float), int: (int,), str: (str,)}
"""What JSON makes of a type."""


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
