"""One direction of a simulated connection: bytes in order, late, and perhaps never.

It models what TCP and the kernels at both ends do, not what programs do with it. A stream knows its
two ends and asks the network about the weather. It serves the `Endpoint`.
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .endpoint import Endpoint
    from .network import SimulatedNetwork


class Mark(enum.Enum):
    """What can arrive besides bytes."""

    END = "end"
    RESET = "reset"


Item = bytes | Mark


class Stream:
    """From ``source`` to ``target``; ``window`` is what may be on the way or unread, in bytes."""

    def __init__(
        self, network: SimulatedNetwork, source: Endpoint, target: Endpoint, window: int
    ) -> None:
        self._network = network
        self._timeline = network.timeline
        self._random = network.random
        self._source = source
        self._target = target
        self._window = window
        self._unread = 0  # bytes sent that the source does not know to be read
        self._last = 0.0  # when the newest item arrives
        self._held: list[Item] = []  # what came to a partition
        self._owed = 0  # bytes read whose acknowledgement came to a partition
        self._cut = 0  # items sent before are lost if a reset overtook them
        self._broken = False  # the source sends nothing more
        self._refused = False  # a reset is on its way

    @property
    def room(self) -> int:
        """Bytes that may be sent now."""
        return self._window - self._unread

    @property
    def holds(self) -> bool:
        """Whether a partition holds back bytes or acknowledgements."""
        return bool(self._held or self._owed)

    def send(self, data: bytes) -> None:
        """Send bytes; not more than there is `room` for."""
        if not self._broken:
            self._unread += len(data)
            if len(data) > 1 and self._random.random() < self._network.weather.split:
                cut = self._random.randrange(1, len(data))
                self._dispatch(data[:cut])
                data = data[cut:]
            self._dispatch(data)

    def end(self) -> None:
        """Nothing comes after what was sent."""
        if not self._broken:
            self._dispatch(Mark.END)

    def reset(self) -> None:
        """Nothing comes any more, and the target learns of it: after what was sent, or instead."""
        if self._refused:
            return
        self._refused = self._broken = True
        if self._random.random() < 0.5:
            self._cut += 1
            self._held.clear()
            self._last = 0.0
        self._dispatch(Mark.RESET)

    def silence(self) -> None:
        """Nothing comes any more, what is on its way included, and nobody learns of it."""
        self._broken = True
        self._cut += 1
        self._held.clear()

    def read(self, size: int) -> None:
        """The target has read ``size`` bytes."""
        if self._network.blocked(self._target.host, self._source.host):
            self._owed += size
            return
        if not self._source.waiting:
            self._unread -= size  # it will know long before it matters
            return
        delay = self._network.latency(self._target.host, self._source.host)
        self._timeline.after(delay, self._acknowledged, size)

    def healed(self) -> None:
        """A partition ended, perhaps this one: send again what it held back, after a while."""
        if self._held or self._owed:
            delay = self._random.uniform(0, self._network.weather.resend_s)
            self._timeline.after(delay, self._send_again)

    # -- on the way ----------------------------------------------------------------------------

    def _dispatch(self, item: Item) -> None:
        delay = self._network.latency(self._source.host, self._target.host)
        at = max(self._timeline.now + delay, math.nextafter(self._last, math.inf))
        self._last = at
        self._timeline.at(at, self._arrive, item, self._cut)

    def _arrive(self, item: Item, cut: int) -> None:
        if cut != self._cut:
            return
        if self._held or self._network.blocked(self._source.host, self._target.host):
            self._held.append(item)
        elif self._network.unlucky():
            self._source.connection.reset()
        else:
            self._target.receive(item)

    def _acknowledged(self, size: int) -> None:
        if self._network.blocked(self._target.host, self._source.host):
            self._owed += size
            return
        self._unread -= size
        self._source.room_made()

    def _send_again(self) -> None:
        network, source, target = self._network, self._source.host, self._target.host
        if self._held and not network.blocked(source, target):
            held, self._held = self._held, []
            for item in held:
                self._target.receive(item)
        if self._owed and not network.blocked(target, source):
            owed, self._owed = self._owed, 0
            self._acknowledged(owed)
