"""Who listens to what, as replicated state: sessions by resource and event.

An event of resource 0 is a path: whoever listens to it hears what becomes of that path. Each index
below is there so that a session that ends, or a resource that is deleted, costs no more than what
belongs to it. It serves the `System`; it publishes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable


class Listening:
    """Sessions that listen, the oldest first everywhere."""

    def __init__(self, image: Iterable[list] = ()) -> None:  # type: ignore[type-arg]
        self._by_resource: dict[int, dict[str, dict[int, None]]] = {}
        self._by_session: dict[int, dict[tuple[int, str], None]] = {}
        for resource, events in image:
            for event, sessions in events:
                for session in sessions:
                    self.add(resource, event, session)

    def __len__(self) -> int:
        return sum(map(len, self._by_session.values()))

    def sessions(self, resource: int, event: str) -> tuple[int, ...]:
        """Those who listen to ``event`` of ``resource``."""
        events = self._by_resource.get(resource)
        return () if events is None else tuple(events.get(event, ()))

    def knows(self, resource: int) -> bool:
        """Whether anybody listens to anything of ``resource``."""
        return resource in self._by_resource

    def count(self, session: int) -> int:
        """To how many events ``session`` listens."""
        return len(self._by_session.get(session, ()))

    def has(self, resource: int, event: str, session: int) -> bool:
        """Whether ``session`` listens to ``event`` of ``resource``."""
        return (resource, event) in self._by_session.get(session, ())

    def add(self, resource: int, event: str, session: int) -> None:
        """``session`` listens from now on; nothing if it does already."""
        self._by_resource.setdefault(resource, {}).setdefault(event, {})[session] = None
        self._by_session.setdefault(session, {})[resource, event] = None

    def drop(self, resource: int, event: str, session: int) -> None:
        """``session`` listens no more; nothing if it did not."""
        mine = self._by_session.get(session, {})
        if (resource, event) not in mine:
            return
        del mine[resource, event]
        if not mine:
            del self._by_session[session]
        events = self._by_resource[resource]
        del events[event][session]
        if not events[event]:
            del events[event]
            if not events:
                del self._by_resource[resource]

    def forget(self, session: int) -> None:
        """The session ended."""
        for resource, event in list(self._by_session.get(session, ())):
            self.drop(resource, event, session)

    def delete(self, resource: int) -> list[int]:
        """The resource is gone; the sessions that listened to something of it, each once."""
        told: dict[int, None] = {}
        events = self._by_resource.get(resource, {})
        for event, sessions in [(event, tuple(those)) for event, those in events.items()]:
            for session in sessions:
                told[session] = None
                self.drop(resource, event, session)
        return list(told)

    def image(self) -> list[object]:
        """Everything, for a snapshot."""
        return [
            [resource, [[event, list(sessions)] for event, sessions in events.items()]]
            for resource, events in self._by_resource.items()
        ]
