"""What makes a class a message: slots from its annotations, a constructor, equality, and its number on the wire.

These classes are like dataclasses, but to make thirty of those would take most of the time in which a program of ours
starts: the module `dataclasses` alone imports a dozen others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, ClassVar, Final, dataclass_transform

from netfutures.fields import Check

MESSAGES: Final[dict[int, type[Message]]] = {}
"""Every kind of message, by the number that stands for it on the wire."""
CHECKS: Final[dict[type[Message], tuple[Check, ...]]] = {}
"""What a received field must pass, for each field of a message, in order."""
FIELDS: Final[dict[type[Message], Callable[[Any], Any]]] = {}
"""Takes the values out of a message, in order."""
KINDS: Final[dict[type[Message], int]] = {}


@dataclass_transform(eq_default=True)
class _MessageType(type):
    """Makes message classes; their annotations are names of kinds of fields, from `netfutures.fields`."""

    def __new__(
        cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], kind: int | None = None
    ) -> _MessageType:
        if kind is None:
            return super().__new__(cls, name, bases, namespace)
        assert kind not in MESSAGES
        annotations: dict[str, str] = namespace.get("__annotations__", {})
        names = tuple(annotations)
        known = vars(sys.modules[namespace["__module__"]])
        message: Any = super().__new__(
            cls,
            name,
            bases,
            {**namespace, "__slots__": names, "__match_args__": names, "__init__": _constructor(names)},
        )
        MESSAGES[kind] = message
        KINDS[message] = kind
        CHECKS[message] = tuple(known[annotation].__metadata__[0] for annotation in annotations.values())
        FIELDS[message] = _fields_of(names)
        return message  # type: ignore[no-any-return]  # an `Any`, since a type checker cannot see it made

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], kind: int | None = None) -> None:
        super().__init__(name, bases, namespace)


def _constructor(names: Sequence[str]) -> Callable[..., None]:
    """Assigns its arguments to the fields; compiled, since every message of every task passes here."""
    body = "\n".join(f"    self.{name} = {name}" for name in names) or "    pass"
    made: dict[str, Any] = {}
    exec(f"def __init__({', '.join(('self', *names))}):\n{body}", made)
    return made["__init__"]  # type: ignore[no-any-return]


def _fields_of(names: Sequence[str]) -> Callable[[Any], Any]:
    if len(names) > 1:
        return attrgetter(*names)
    if names:
        only = attrgetter(names[0])
        return lambda message: (only(message),)
    return lambda message: ()


class Message(metaclass=_MessageType):
    """Any message of the protocol. Nobody changes one after it was made; to freeze it would cost twice the time."""

    __slots__ = ()
    __match_args__: ClassVar[tuple[str, ...]] = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return bool(FIELDS[type(self)](self) == FIELDS[type(self)](other))

    def __hash__(self) -> int:
        raise TypeError("messages hold lists and cannot be hashed")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__match_args__)})"
