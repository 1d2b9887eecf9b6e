"""The Network door: options of its sockets, and errors that name the address and the culprit."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import struct
import subprocess
import sys
import threading

import pytest

from copycat.errors import ConfigurationError, UnavailableError
from copycat.network import RealNetwork
from copycat.types import Address

from .loops import LOOPS, Recorder, free_port, local, run


@pytest.mark.parametrize("loop", LOOPS)
def test_both_ends_have_their_options(loop: str) -> None:
    """No delay, keep-alive and a user timeout hold on accepted and dialled connections (H75)."""

    async def main() -> None:
        ends: list[Recorder] = []

        def factory() -> asyncio.BufferedProtocol:
            ends.append(Recorder())
            return ends[-1].protocol

        network = RealNetwork()
        server = await network.listen(local(), factory)
        assert server.address.port > 0
        await network.connect(server.address, factory)
        while len(ends) < 2 or not all(end.protocol.open for end in ends):
            await asyncio.sleep(0.001)
        for end in ends:
            transport = end.protocol._transport
            assert transport is not None
            sock = transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5000
            end.protocol.abort()
        server.close()

    run(main(), loop)


def test_a_refusing_address_raises_connection_refused() -> None:
    """Fast failover depends on telling a refusal from everything else."""

    async def main() -> None:
        with pytest.raises(ConnectionRefusedError):
            await RealNetwork().connect(local(free_port()), lambda: Recorder().protocol)
        with pytest.raises(ConnectionRefusedError):
            address = Address("localhost", free_port())
            await RealNetwork().connect(address, lambda: Recorder().protocol)

    run(main())


def test_a_host_that_never_answers_times_out() -> None:
    """A full backlog leaves the connection hanging: the error names address and seconds."""

    async def main() -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            sock.listen(0)
            port = sock.getsockname()[1]
            network = RealNetwork(connect_timeout=0.1)
            waiting = []
            with pytest.raises(TimeoutError, match=f"no answer from 127.0.0.1:{port} in 0.1 s"):
                for _ in range(10):
                    recorder = Recorder()
                    waiting.append(recorder)
                    await network.connect(local(port), lambda: recorder.protocol)  # noqa: B023
            for recorder in waiting:
                recorder.protocol.abort()

    run(main())


def test_an_unknown_host_is_named() -> None:
    """Neither listening nor connecting leaves the user with a bare resolver error."""

    async def main() -> None:
        address = Address("no-such-host.invalid", 7400)
        with pytest.raises(UnavailableError, match="no-such-host.invalid.* does not resolve"):
            await RealNetwork().connect(address, lambda: Recorder().protocol)
        with pytest.raises(ConfigurationError, match="no-such-host.invalid.* does not resolve"):
            await RealNetwork().listen(address, lambda: Recorder().protocol)

    run(main())


def test_a_port_in_use_names_the_holder() -> None:
    """The error says which process listens there, ours or another one."""

    async def main() -> None:
        network = RealNetwork()
        server = await network.listen(local(), lambda: Recorder().protocol)
        with pytest.raises(ConfigurationError, match="this very process") as caught:
            await network.listen(server.address, lambda: Recorder().protocol)
        assert f"cannot listen on {server.address}" in str(caught.value)
        server.close()
        script = (
            "import socket, sys; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); "
            "print(s.getsockname()[1], flush=True); sys.stdin.read()"
        )
        holder = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert holder.stdout is not None
            port = int(holder.stdout.readline())
            with pytest.raises(ConfigurationError, match=rf"in use by pid {holder.pid} \(python"):
                await network.listen(local(port), lambda: Recorder().protocol)
        finally:
            holder.kill()
            holder.communicate()

    run(main())


def test_addresses_of_other_machines_cannot_be_listened_on() -> None:
    """The error says that the address is not this machine's, and what to do instead."""

    async def main() -> None:
        with pytest.raises(ConfigurationError, match=r"has no address 192\.0\.2\.1") as caught:
            await RealNetwork().listen(Address("192.0.2.1", 7400), lambda: Recorder().protocol)
        assert "advertise" in caught.value.hint

    run(main())


def test_closing_a_server_keeps_its_connections() -> None:
    """After close the address refuses, while connections that stand go on."""

    async def main() -> None:
        here, there = Recorder(), Recorder()
        network = RealNetwork()
        server = await network.listen(local(), lambda: here.protocol)
        await network.connect(server.address, lambda: there.protocol)
        await asyncio.sleep(0.01)
        server.close()
        await asyncio.sleep(0.01)
        with pytest.raises(ConnectionRefusedError):
            await network.connect(server.address, lambda: Recorder().protocol)
        assert here.protocol.open and there.protocol.open
        here.protocol.abort()
        there.protocol.abort()

    assert os.name == "posix"
    run(main())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_reset_while_connecting_closes_no_foreign_descriptor(loop: str) -> None:
    """However early the peer resets, nobody closes a descriptor number that is not his."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()

    accepted = threading.Semaphore(0)

    def reset_all() -> None:
        for _ in range(30):
            peer, _ = listener.accept()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            accepted.release()

    ends: list[Recorder] = []

    async def main() -> None:
        resetting = threading.Thread(target=reset_all)
        resetting.start()
        for _ in range(30):
            end = Recorder(on_connected=lambda: ends[-1].protocol.write(b"hello"))
            ends.append(end)
            address = Address(*listener.getsockname())
            connecting = asyncio.create_task(
                RealNetwork().connect(address, lambda: ends[-1].protocol)
            )
            await asyncio.sleep(0)
            accepted.acquire()  # blocks the loop: the reset is there before it looks
            with contextlib.suppress(OSError):
                await connecting
            connecting = None
            await asyncio.sleep(0)
            mine = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]  # takes freed numbers
            ends.clear()
            del end
            gc.collect()
            await asyncio.sleep(0)
            for number in mine:
                os.close(number)  # raises if somebody else has closed it
        resetting.join()

    run(main(), loop)
    listener.close()
