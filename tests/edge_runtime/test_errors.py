import inspect

import pytest

from edge_runtime import errors
from edge_runtime.errors import ArtefactError, BundleError, InputError, SkyfixError

ALL = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__]


@pytest.mark.parametrize("error", ALL)
def test_every_deliberate_error_is_caught_by_the_base(error: type[Exception]) -> None:
    assert issubclass(error, SkyfixError)


@pytest.mark.parametrize("error", ALL)
def test_every_error_stands_in_the_drawn_tree_and_says_when(error: type[Exception]) -> None:
    assert errors.__doc__ is not None
    assert error.__name__ in errors.__doc__
    assert error.__doc__


def test_a_wrong_input_is_a_value_error_too() -> None:
    assert issubclass(InputError, ValueError)


def test_a_bundle_error_is_an_artefact_error() -> None:
    assert issubclass(BundleError, ArtefactError)
