"""Properties and setters for stand-in widgets, with little writing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .rules import PropertyAsAttribute, QtCore


def stored(name: str, kind: Any, default: Any, changed: str = "") -> Any:
    """A property that the widget merely keeps; `changed` names the method to call after a change."""

    def read(self: Any) -> Any:
        return self.__dict__.get("_" + name, default)

    def write(self: Any, value: Any) -> None:
        # Straight into __dict__: the property is declared, its store is not.
        self.__dict__["_" + name] = tuple(value) if isinstance(value, list) else value
        if changed:
            getattr(self, changed)()

    return QtCore.Property(kind, read, write)


def forwarded(part: str, name: str, kind: Any) -> Any:
    """A property that a part of the widget has: `forwarded("_spinBox", "decimals", int)`."""

    def read(self: Any) -> Any:
        return getattr(getattr(self, part), name)

    def write(self: Any, value: Any) -> None:
        setattr(getattr(self, part), name, value)

    return QtCore.Property(kind, read, write)


class Setters:
    """Gives a stand-in the slot `setX(value)` for each property `x`, unless it writes one itself."""

    def __getattr__(self, name: str) -> Callable[[Any], None]:
        if name.startswith("set") and len(name) > 3:
            propertyName = name[3].lower() + name[4:]
            declared = getattr(type(self), propertyName, None)
            if isinstance(declared, (QtCore.Property, PropertyAsAttribute)):
                return lambda value: setattr(self, propertyName, value)
        raise AttributeError(f"'{name}' does not exist on {type(self).__name__}")
