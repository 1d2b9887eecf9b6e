"""Says in the words of a machine's author what two runs of a command did differently.

It only puts words to a difference that `determinism` has found: which operation ran, and which
attribute or answer is not the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from .._core.layout import Status
from ..errors import SerializationError
from ..serializer import Serializer
from .copies import Copy, Single, Step, opened_state, opened_words
from .differences import difference, shown


@dataclass(frozen=True, slots=True)
class Found:
    """The machine that differs, and in what; ``resource`` is 0 if it is none."""

    resource: int
    type_name: str
    path: str
    text: str


def explain(copy: Copy, ran: Single, one: Step, other: Step) -> tuple[str, str, str]:
    """Who, did what, and what differs: ``Bank.transfer``, ``gave different states``, ..."""
    operation = operation_of(copy, ran)
    if one.ticked:
        operation += " or a timer before it"
    if not (one.state and other.state) or one.state == other.state:
        return operation, *_in_words(one.said, other.said)
    found = first_difference(one.state, other.state)
    if found.resource == ran.index:
        operation = f"{found.type_name}()"
    elif found.resource != ran.resource:
        operation = f"{found.type_name} at {found.path}, run by a timer or the end of a session"
    return operation, "gave different states", found.text


def operation_of(copy: Copy, ran: Single) -> str:
    """The name of what ran, as in ``Bank.transfer``."""
    instance = copy.applier.executor.instance(ran.resource)
    if instance is None:
        return "a timer or the end of a session"
    return f"{instance.type_name}.{copy.applier.executor.name_of(ran.operation)}"


def first_difference(one: bytes, other: bytes) -> Found:
    """Between two of `Step.state` that are not the same."""
    return _first_difference(*opened_state(one), *opened_state(other))


def difference_of_images(one: bytes, other: bytes) -> Found:
    """Between two of `Applier.image` that are not the same."""
    return _first_difference(*_opened_image(one), *_opened_image(other))


def _opened_image(image: bytes) -> tuple[list[Any], list[list[Any]]]:
    """Timers and machines, as `opened_state` gives them."""
    values = Serializer(opaque=True).unpack_each((image,))
    _, _, _, timers, _, _ = next(values)
    machines = [
        [id_, path, type_name, list(iter(lambda: next(values), None)), fenced]
        for id_, path, type_name, _, fenced in values
    ]
    return timers, machines


def _first_difference(
    timers: list[Any], machines: list[Any], other_timers: list[Any], other_machines: list[Any]
) -> Found:
    for here, there in zip_longest(machines, other_machines):
        if here == there:
            continue
        if here is None or there is None or here[:3] != there[:3]:
            return Found(0, "the system", "/", "there are other resources")
        resource, path, type_name, state, fenced = here
        if fenced != there[4]:
            text = "only one of them exceeded the depth of the stack"
        else:
            text = difference(*(_whole(list(map(_decoded, each))) for each in (state, there[3])))
        return Found(resource, type_name, path, text)
    for timer, other_timer in zip_longest(timers, other_timers):
        if timer != other_timer:
            resource, name, path = (timer or other_timer)[2], "the machine", "its path"
            for number, place, type_name, _, _ in machines:
                if number == resource:
                    name, path = type_name, place
            text = f"it scheduled {_timer(timer)} and {_timer(other_timer)}"
            return Found(resource, name, path, text)
    return Found(0, "the system", "/", "its encoding differs")


def _whole(pieces: list[Any]) -> Any:
    return pieces[0] if len(pieces) == 1 else pieces


def _in_words(one: bytes, other: bytes) -> tuple[str, str]:
    (mine, events), (theirs, other_events) = opened_words(one), opened_words(other)
    for here, there in zip_longest(mine, theirs, fillvalue=b""):
        if here != there:
            return "answered differently", f"{_result(here)} and {_result(there)}"
    for event, other_event in zip_longest(events, other_events):
        if event != other_event:
            return "published different events", f"{_event(event)} and {_event(other_event)}"
    return "said something else", "its encoding differs"


def _result(result: bytes) -> str:
    if not result:
        return "nothing"
    value = _decoded(result[1:])
    if result[0] == Status.OK:
        return shown(value)
    return " ".join(map(str, value)) if isinstance(value, list) else shown(value)


def _event(event: Any) -> str:
    if event is None:
        return "nothing"
    session, _, _, payload = event
    published = [[name, _decoded(value)] for _, name, value in _decoded(payload)]
    return f"{shown(published)} to session {session}"


def _timer(timer: Any) -> str:
    if timer is None:
        return "nothing"
    due_us, _, _, operation, arguments = timer
    values = ", ".join(map(shown, _decoded(arguments)))
    return f"{operation}({values}) at {due_us / 1e6:.6f}"


def _decoded(data: bytes) -> Any:
    """What the user's types make of it, as far as they are known here."""
    try:
        return Serializer().unpack_state(data)
    except SerializationError:
        return Serializer(opaque=True).unpack_state(data)
