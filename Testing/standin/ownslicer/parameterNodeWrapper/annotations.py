"""What may stand in `Annotated[type, ...]`: limits, defaults, hints for widgets."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


class Validator:
    """Refuses values; subclasses raise ValueError in `validate`."""

    def validate(self, value: Any) -> None:
        raise NotImplementedError  # abstract: each subclass has its own


@dataclass
class WithinRange(Validator):
    """The value lies between two numbers, both included."""

    minimum: float
    maximum: float

    def validate(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not within [{self.minimum}, {self.maximum}]")


@dataclass
class Minimum(Validator):
    """The value is not less than a number."""

    minimum: float

    def validate(self, value: Any) -> None:
        if value < self.minimum:
            raise ValueError(f"{value} is less than {self.minimum}")


@dataclass
class Maximum(Validator):
    """The value is not more than a number."""

    maximum: float

    def validate(self, value: Any) -> None:
        if value > self.maximum:
            raise ValueError(f"{value} is more than {self.maximum}")


@dataclass
class Choice(Validator):
    """The value is one of several."""

    choices: list[Any]

    def validate(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"{value!r} is none of {self.choices}")


@dataclass
class Exclude(Validator):
    """The value is none of several."""

    excludedValues: list[Any]

    def validate(self, value: Any) -> None:
        if value in self.excludedValues:
            raise ValueError(f"{value!r} is excluded")


@dataclass
class Decimals:
    """Digits behind the point, in the widget."""

    value: int


@dataclass
class SingleStep:
    """The widget's step."""

    value: float


class Default:
    """The value of a parameter that was never set; a `generator` is asked each time."""

    def __init__(self, value: Any = None, *, generator: Callable[[], Any] | None = None) -> None:
        self._value = value
        self._generator = generator

    @property
    def value(self) -> Any:
        return self._generator() if self._generator else self._value


def splitAnnotations(datatype: Any) -> tuple[Any, list[Any]]:
    """`Annotated[int, a, b]` as (int, [a, b]); any other type with an empty list."""
    if typing.get_origin(datatype) is typing.Annotated:
        return datatype.__origin__, list(datatype.__metadata__)
    return datatype, []


def findAnnotation(annotations: Iterable[Any], kind: type) -> Any:
    """The first annotation of that kind, or None."""
    return next((each for each in annotations if isinstance(each, kind)), None)


def unionMembers(datatype: Any) -> tuple[Any, ...]:
    """The types of `A | B` or `Union[A, B]`; an empty tuple for any other type."""
    if typing.get_origin(datatype) in (typing.Union, types.UnionType):
        return typing.get_args(datatype)
    return ()
