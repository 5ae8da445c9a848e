"""Requests from the descriptors: number `index` of seed `seed` has always the same shape.

A request has a heat: how many of its fields hold what nobody expects. A third has none, so that
what lies behind validation is reached; names, ids and tokens are then those of things that exist.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from fuzz import _api_values
from fuzz._api_fields import REQUIRED, make_consistent, typical, typical_map, typical_span
from runkon.v1 import admin_pb2, gates_pb2, runs_pb2, workers_pb2, workflows_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, OneofDescriptor
    from google.protobuf.message import Message

    from fuzz._api_values import Scalar
    from fuzz._api_world import World

MODULES: Final = (runs_pb2, gates_pb2, workflows_pb2, workers_pb2, admin_pb2)
METHODS: Final[Sequence[MethodDescriptor]] = tuple(
    method
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
HEATS: Final = (0.0, 0.0, 0.0, 0.04, 0.08, 0.15, 0.3, 0.8)
FRAMES_MAX: Final = 5
MANY: Final = (0, 2, 17, 101, 1_001)
MANY_BYTES: Final = 1024 * 1024
PRINCIPALS: Final = ("zoe", "robot", "", " ", "x" * 256, "x" * 257, "sql:zoe", "server:1", "%00",
                     "a,b", '"', "~", "x" * 5_000)  # fmt: skip
"""Printable ASCII: gRPC sends nothing else."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call: what it sends, and with which metadata."""

    method: MethodDescriptor
    messages: tuple[Message | bytes, ...]
    metadata: tuple[tuple[str, str], ...] = ()


def make_call(seed: int, index: int, world: World) -> Call:
    """The call of one number, about what the world holds now."""
    return Maker(random.Random(f"{seed}:{index}"), world).call()


class Maker:
    """Makes one call."""

    def __init__(self, chance: Random, world: World) -> None:
        self.chance = chance
        self.world = world
        self._heat = chance.choice(HEATS)

    def is_odd(self) -> bool:
        """Whether what comes next is to be what nobody expects."""
        return self.chance.random() < self._heat

    def call(self) -> Call:
        """A call of any method, each as often as any other."""
        method = self.chance.choice(METHODS)
        frames = self.chance.randrange(1, FRAMES_MAX) if method.client_streaming else 1
        messages: list[Message | bytes] = []
        for number in range(frames):
            message = self._message(method.input_type)
            if number and not self.is_odd():
                message.ClearField("hello")
            messages.append(
                self._encoded(message) if self._heat > 0.2 and self._once(25) else message
            )
        return Call(method, tuple(messages), self._metadata())

    def _message(self, kind: Any) -> Message:
        message: Message = GetMessageClass(kind)()
        self.fill(message)
        if self._once(3):
            page = self.world.pages[kind.name].pick(self.chance)
            if page is not None:
                message.CopyFrom(page)
                if self.is_odd():
                    token: Any = message
                    token.page_token = _api_values.changed(self.chance, token.page_token)
        return message

    def _once(self, times: int) -> bool:
        return self.chance.randrange(times) == 0

    def _encoded(self, message: Message) -> bytes:
        """The message's bytes with some of them changed: no longer a message, or another."""
        data = bytearray(message.SerializeToString())
        for _ in range(self.chance.choice((1, 1, 3))):
            at = int(self.chance.random() * (len(data) + 1))
            data[at : at + self.chance.randrange(2)] = bytes([self.chance.randrange(256)])
        return bytes(data)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        given: list[tuple[str, str]] = []
        if self._once(2):
            given.append(("runkon-principal", self.chance.choice(PRINCIPALS[:2])))
        if self.is_odd():
            name = self.chance.choice(("runkon-principal", "x-request-id", "runkon-namespace"))
            given.append((name, self.chance.choice(PRINCIPALS)))
        return tuple(given)

    # What a message is made of

    def fill(self, message: Any, depth: int = 0) -> None:
        """Fill the fields of a message."""
        told = {each.name for each in message.DESCRIPTOR.oneofs if not _is_synthetic(each)}
        for oneof in message.DESCRIPTOR.oneofs:
            if oneof.name in told:
                self._choose(message, oneof, depth)
        for field in message.DESCRIPTOR.fields:
            inside = field.containing_oneof
            if inside is not None and inside.name in told:
                continue
            rarely = 0.03 if field.name in REQUIRED else 0.55
            if self.chance.random() >= rarely:
                self._set(message, field, depth)
        if not self.is_odd():
            make_consistent(message, self.chance, self.world)

    def _choose(self, message: Message, oneof: OneofDescriptor, depth: int) -> None:
        if self.is_odd() and self._once(3):
            return
        self._set(message, self.chance.choice(oneof.fields), depth)

    def _set(self, message: Any, field: FieldDescriptor, depth: int) -> None:
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            self._set_map(getattr(message, field.name), field)
        elif field.is_repeated:
            self._set_list(getattr(message, field.name), field, depth)
        elif kind is None:
            setattr(message, field.name, self._scalar(message.DESCRIPTOR.name, field))
        else:
            inside = getattr(message, field.name)
            inside.SetInParent()
            self._set_message(inside, field, depth)

    def _set_message(self, inside: Any, field: FieldDescriptor, depth: int) -> None:
        if isinstance(inside, Duration | Timestamp):
            odd = _api_values.odd_span(self.chance)
            plain = typical_span(field.name, self.chance)
            chosen = odd if self.is_odd() else plain
            inside.seconds, inside.nanos = chosen.seconds, chosen.nanos
        else:
            self.fill(inside, depth + 1)

    def _scalar(self, owner: str, field: FieldDescriptor) -> Scalar:
        plain = typical(field, owner, self.chance, self.world)
        if not self.is_odd():
            return plain
        if field.name == "filter":
            return _api_values.odd_filter(self.chance)
        if field.name == "source" and self.chance.random() < 0.8:
            return _api_values.odd_source(self.chance)
        if field.name in ("structured_output", "output_schemas") and self.chance.random() < 0.8:
            return self.chance.choice(_api_values.JSONS)
        return _api_values.odd_scalar(self.chance, field, plain)

    def _set_map(self, target: Any, field: FieldDescriptor) -> None:
        assert field.message_type is not None
        target.update(typical_map(field.name, self.chance, self.world))
        if not self.is_odd():
            return
        of = field.message_type.fields_by_name
        keys = [str(_api_values.odd_scalar(self.chance, of["key"], "team")) for _ in range(2)]
        for key in keys:
            target[key] = _api_values.odd_scalar(self.chance, of["value"], "core")
        if self._once(8):
            target.update({f"k{number}": "v" for number in range(self.chance.choice(MANY))})

    def _set_list(self, target: Any, field: FieldDescriptor, depth: int) -> None:
        count = self.chance.choice((1, 1, 2, 3))
        if self.is_odd():
            count = self.chance.choice(MANY[: 4 if depth else 5])
        room = MANY_BYTES
        for number in range(count):
            if number >= FRAMES_MAX:  # the same ones again
                target.append(target[number % FRAMES_MAX])
            elif field.message_type is None:
                target.append(self._scalar("", field))
            else:
                self._set_message(target.add(), field, depth)
            room -= len(str(target[-1])) if field.message_type is None else target[-1].ByteSize()
            if room < 0:
                break


def _is_synthetic(oneof: OneofDescriptor) -> bool:
    """Whether it only stands for `optional`."""
    return oneof.name.startswith("_")
