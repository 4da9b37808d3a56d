"""How a value is written to, and read from, a vtkMRMLScriptedModuleNode: as Slicer writes and reads it."""

from __future__ import annotations

import enum
import pathlib
from typing import Any

import slicer

from .annotations import Validator, splitAnnotations, unionMembers


class Serializer:
    """Stores values of one type as text, under the parameter's own name."""

    def __init__(self, datatype: Any, validators: list[Validator]) -> None:
        self.datatype = datatype
        self.validators = validators

    def default(self) -> Any:
        return self.datatype()

    def check(self, value: Any) -> None:
        """Raise TypeError or ValueError if the parameter cannot have that value."""
        if value is None:
            raise ValueError("the value must not be None")
        accepted = (int, float) if self.datatype is float else self.datatype
        if not isinstance(value, accepted):
            raise TypeError(f"the value must be a {self.datatype.__name__}, not {value!r}")
        for validator in self.validators:
            validator.validate(value)

    def isIn(self, node: Any, name: str) -> bool:
        return bool(node.HasParameter(name))

    def write(self, node: Any, name: str, value: Any) -> None:
        node.SetParameter(name, self.toText(value))

    def read(self, node: Any, name: str) -> Any:
        return self.fromText(node.GetParameter(name))

    def remove(self, node: Any, name: str) -> None:
        node.UnsetParameter(name)

    def toText(self, value: Any) -> str:
        return str(value)

    def fromText(self, text: str) -> Any:
        return self.datatype(text)


class BoolSerializer(Serializer):
    """`True` or `False` as text."""

    def fromText(self, text: str) -> bool:
        return text == "True"


class EnumSerializer(Serializer):
    """The enumerator's name."""

    def default(self) -> Any:
        return next(iter(self.datatype))

    def toText(self, value: Any) -> str:
        return str(value.name)

    def fromText(self, text: str) -> Any:
        return self.datatype[text]


class NodeSerializer(Serializer):
    """A node reference, and an empty parameter that says that the reference was set (None is a value)."""

    def default(self) -> None:
        return None

    def check(self, value: Any) -> None:
        if value is not None:
            super().check(value)

    def write(self, node: Any, name: str, value: Any) -> None:
        node.SetParameter(name, "")
        node.SetNodeReferenceID(name, value.GetID() if value is not None else None)

    def read(self, node: Any, name: str) -> Any:
        return node.GetNodeReference(name)

    def remove(self, node: Any, name: str) -> None:
        node.UnsetParameter(name)
        node.RemoveNodeReferenceIDs(name)


class NoneSerializer(Serializer):
    """The value None, as a member of a union."""

    def check(self, value: Any) -> None:
        if value is not None:
            raise TypeError(f"the value must be None, not {value!r}")

    def toText(self, value: Any) -> str:
        return "True"

    def fromText(self, text: str) -> None:
        return None


class UnionSerializer(Serializer):
    """`A | B`: the value of the n-th type stands under `<name>.<n>`."""

    def __init__(self, datatype: Any, validators: list[Validator]) -> None:
        super().__init__(datatype, validators)
        self.members = [createSerializer(each) for each in unionMembers(datatype)]

    def default(self) -> Any:
        last = self.members[-1]
        return (
            None if isinstance(last, NoneSerializer) and len(self.members) == 2 else self.members[0].default()
        )

    def check(self, value: Any) -> None:
        self._member(value)
        if value is not None:
            for validator in self.validators:
                validator.validate(value)

    def _member(self, value: Any) -> int:
        """The index of the type that takes the value. None is NoneType's, if the union has it."""
        for index, member in enumerate(self.members):
            if value is not None or isinstance(member, NoneSerializer):
                try:
                    member.check(value)
                except (TypeError, ValueError):
                    continue
                return index
        raise TypeError(f"{value!r} is of none of the types {self.datatype}")

    def isIn(self, node: Any, name: str) -> bool:
        return any(each.isIn(node, f"{name}.{index}") for index, each in enumerate(self.members))

    def write(self, node: Any, name: str, value: Any) -> None:
        index = self._member(value)
        with slicer.util.NodeModify(node):
            self.remove(node, name)
            self.members[index].write(node, f"{name}.{index}", value)

    def read(self, node: Any, name: str) -> Any:
        for index, member in enumerate(self.members):
            if member.isIn(node, f"{name}.{index}"):
                return member.read(node, f"{name}.{index}")
        raise KeyError(name)

    def remove(self, node: Any, name: str) -> None:
        for index, member in enumerate(self.members):
            member.remove(node, f"{name}.{index}")


def createSerializer(datatype: Any) -> Serializer:
    """The serializer for a type, possibly annotated.

    Raises:
        TypeError: if a parameter cannot be of that type.
    """
    plain, annotations = splitAnnotations(datatype)
    validators = [each for each in annotations if isinstance(each, Validator)]
    return serializerClass(plain)(plain, validators)


def serializerClass(plain: Any) -> type[Serializer]:
    if unionMembers(plain):
        return UnionSerializer
    if plain is type(None):
        return NoneSerializer
    if plain is bool:
        return BoolSerializer
    if plain in (int, float, str, pathlib.Path, pathlib.PurePath):
        return Serializer
    if isinstance(plain, type) and issubclass(plain, enum.Enum):
        return EnumSerializer
    if isinstance(plain, type) and issubclass(plain, slicer.vtkMRMLNode):
        return NodeSerializer
    raise TypeError(f"a parameter cannot be of type {plain}")
