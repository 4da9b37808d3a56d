"""Observers of MRML and VTK objects that end with the widget: in Slicer, qvtkConnect does it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

from .rules import shiboken


def whileAlive(method: Callable[..., None]) -> Callable[[Any, Any], None]:
    """An observer that calls the widget's method; it neither keeps the widget alive nor outlives it."""
    reference = weakref.WeakMethod(method)

    def call(_caller: Any, _event: Any) -> None:
        bound = reference()
        if bound is not None and shiboken.isValid(bound.__self__):  # type: ignore[attr-defined]
            bound()

    return call


class Observers:
    """The observers of one widget that belong together: `watch` replaces the former ones."""

    def __init__(self, method: Callable[..., None]) -> None:
        self._call = whileAlive(method)
        self._tags: list[tuple[Any, int]] = []

    def watch(self, observed: Iterable[tuple[Any, Any]]) -> None:
        """Call the method after these events: pairs of an object and an event."""
        for source, tag in self._tags:
            source.RemoveObserver(tag)
        self._tags = [(source, source.AddObserver(event, self._call)) for source, event in observed]
