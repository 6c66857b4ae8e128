"""The clients' sockets: one `epoll` of their own, which asyncio's loop watches as one file among its others.

With asyncio's own transports every read is a callback of the loop, with a handle, a context and half a dozen calls: a
tenth of what a small request costs, measured. Here, whoever has sent something is read in one loop, a bounded number of
clients in a turn; in between the event loop does its other work, so those who were read first are answered first.
"""

import array
import asyncio
import fcntl
import logging
import select
import socket
import termios
from collections.abc import Callable
from mmap import mmap
from typing import Any

from nomadserve_runtime.lookout import Lookout
from nomadserve_runtime.rest import READ_NBYTES_MAX, Rest, Source

log = logging.getLogger("nomadserve.sockets")

# How many clients are read before the event loop does something else: most often about a batch.
TURN_MAX = 32

# With more clients than this, all who wait are read after so many full turns in a row: whoever is late must be known to
# be. Otherwise the queue would be longer than it says, and its limit, deadlines, and the backlog that the autoscaler
# sees, would know of nobody. Fewer clients are a matter of milliseconds.
CLIENTS_MIN = 320
FULL_TURNS_MAX = 8
ALL = -1

# Where so many have sent something in one turn, there is enough to do without whoever is answered next: replies go out
# so many at a time. One by one, each wakes a client that waits on another core, and that wake-up costs us 1 µs.
BUSY_MIN = 24
TOGETHER_MAX = 16

READABLE, WRITABLE = select.EPOLLIN, select.EPOLLOUT

# What is missing of a body most often comes while the kernel copies; so often more is looked for it, 1 µs each.
IN_VAIN_MAX = 20

# Room for what the kernel throws away: so much at once, and none of it is ever written to.
NOWHERE = memoryview(mmap(-1, 16 * 1024 * 1024))

# Where the kernel writes how much has come; only the event loop asks.
_waiting = array.array("i", [0])

Address = tuple[Any, ...]
Data = bytes | bytearray | memoryview


class Sockets:
    """All clients' sockets of a server. Build it, and call it, on the event loop.

    is_idle: whether nobody waits for an answer.

    Attributes:
        is_busy: many clients have sent something at the same time.
    """

    def __init__(self, is_idle: Callable[[], bool] = lambda: False) -> None:
        self.is_busy = False
        self._full_turns = 0
        self._lookout = Lookout(is_idle)
        self._is_looking_out = False
        self.loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._by_number: dict[int, ClientSocket] = {}
        self._outgoing: list[ClientSocket] = []
        self.loop.add_reader(self._epoll.fileno(), self._wake_up)

    def add(self, client: socket.socket, address: Address, protocol: asyncio.BaseProtocol) -> None:
        """Read this client from now on. The socket closes when its protocol, or the client, says so."""
        transport = ClientSocket(self, client, address, protocol)
        protocol.connection_made(transport)
        transport.resume_reading()

    def watch(self, transport: "ClientSocket", before: int, events: int) -> None:
        """Tell it of these events, which differ from those of before; 0: of none."""
        if not before:
            self._by_number[transport.number] = transport
            self._epoll.register(transport.number, events)
        elif events:
            self._epoll.modify(transport.number, events)
        else:
            del self._by_number[transport.number]
            self._epoll.unregister(transport.number)

    def send_soon(self, transport: "ClientSocket") -> None:
        """Have its reply go out with those of others, at the latest in the next turn of the event loop."""
        self._outgoing.append(transport)
        if len(self._outgoing) == 1:
            self.loop.call_soon(self._send)
        elif len(self._outgoing) == TOGETHER_MAX:
            self._send()

    def _send(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        for transport in outgoing:
            transport.send()

    def look_out_soon(self) -> None:
        """All are answered: look out for what comes next, as soon as this turn of the event loop is over."""
        if not self._is_looking_out:
            self._is_looking_out = True
            self.loop.call_soon(self._look_out)

    def _look_out(self) -> None:
        self._is_looking_out = False
        if not self._epoll.closed:
            self._lookout.look_out(self._look)

    def close(self) -> None:
        """Nobody is read any more."""
        self.loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _wake_up(self) -> None:
        self._lookout.note_awakened()
        self._look()

    def _look(self) -> bool:
        """One turn; whether anybody had sent something.

        The kernel sees to it that everybody gets a turn: it goes on behind whom it told of last.
        """
        by_number = self._by_number
        are_late = self._full_turns >= FULL_TURNS_MAX and len(by_number) > CLIENTS_MIN
        told = self._epoll.poll(0, ALL if are_late else TURN_MAX)
        self._full_turns = self._full_turns + 1 if len(told) == TURN_MAX else 0
        self.is_busy = len(told) >= BUSY_MIN
        for number, events in told:
            transport = by_number.get(number)
            if transport is None:  # another one of this turn has closed it
                continue
            if events == READABLE:
                transport.read()
            else:
                transport.happen(events)
        return bool(told)


class ClientSocket(Source):
    """One client's socket, as far as the protocols of this server ask for it; they never write faster than it is read.

    client: non-blocking; closed here.
    """

    __slots__ = (
        "_address",
        "_client",
        "_events",
        "_hand_over",
        "_is_closing",
        "_is_lost",
        "_protocol",
        "_receive",
        "_received",
        "_sockets",
        "_unsent",
        "number",
    )

    def __init__(
        self, sockets: Sockets, client: socket.socket, address: Address, protocol: asyncio.BaseProtocol
    ) -> None:
        super().__init__()
        self.number = client.fileno()
        self._sockets = sockets
        self._client = client
        self._address = address
        self._events = 0
        self._is_closing = self._is_lost = False
        self._unsent: Data = b""
        # Bound once: both are called for every request.
        self._receive: Callable[[int], bytes] = client.recv
        self._hand_over: Callable[[Data], int] = client.send
        self.set_protocol(protocol)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Whom it belongs to that something has come."""
        self._protocol = protocol
        self._received: Callable[[bytes], None] | None = getattr(protocol, "data_received", None)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Whom it belongs to that something has come."""
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The "peername", the "sockname"."""
        if name == "peername":
            return self._address
        return self._client.getsockname() if name == "sockname" and not self._is_lost else default

    def is_closing(self) -> bool:
        """Whether it was closed, by whomever."""
        return self._is_closing

    # -- reading --------------------------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Read nothing, and look for nothing: whether the client goes away is seen later, too."""
        self._watch(self._events & ~READABLE)

    def resume_reading(self) -> None:
        """Read again."""
        if not self._is_closing:
            self._watch(self._events | READABLE)

    def read(self) -> None:
        """Something has come, be it an end or an error."""
        try:
            if self._received is None:
                self._read_rest()
                return
            data = self._receive(READ_NBYTES_MAX)
            if not data:
                self.close()
                return
            self._received(data)
            if self._received is None and not self._is_closing:
                self._read_rest()  # most often it has come with its head
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
        except Exception:
            log.exception("a connection failed")
            self._lose(None)

    def waiting_nbytes(self) -> int:
        """How much has come that nobody has read."""
        fcntl.ioctl(self.number, termios.FIONREAD, _waiting)
        return _waiting[0]

    def read_into(self, memory: memoryview) -> int:
        """Read what has come and what comes meanwhile, as much as there is memory for."""
        filled = in_vain = 0
        while filled < len(memory) and in_vain < IN_VAIN_MAX:
            try:
                nbytes = self._client.recv_into(memory[filled:])
            except BlockingIOError:
                in_vain += 1
                continue
            except OSError:
                break
            if not nbytes:
                break  # the next read tells
            filled += nbytes
        return filled

    def throw_away(self, nbytes: int) -> int:
        """Forget what has come, so much of it at most."""
        try:
            return self._forget(nbytes)
        except OSError:
            return 0  # the next read tells

    def _forget(self, nbytes: int) -> int:
        # The kernel copies nothing: `man 7 tcp`, MSG_TRUNC.
        return self._client.recv_into(NOWHERE, min(nbytes, len(NOWHERE)), socket.MSG_TRUNC)

    def _read_rest(self) -> None:
        rest = self._protocol
        assert isinstance(rest, Rest)
        nbytes = self._client.recv_into(rest.get_buffer(-1)) if rest.is_kept else self._forget(rest.left)
        if nbytes:
            rest.buffer_updated(nbytes)
        else:
            self.close()

    def happen(self, events: int) -> None:
        """Something else, or something else, too."""
        self.send()
        if self._events & READABLE and events & ~WRITABLE:
            self.read()

    # -- writing --------------------------------------------------------------------------------------------------

    def write(self, data: Data) -> None:
        """Send it, at once or together with other replies; what the system does not take now, as soon as it does."""
        if self._is_closing:
            return
        if self._unsent:
            self._unsent = b"".join((self._unsent, data))
            return
        self._unsent = data
        if self._sockets.is_busy:
            self._sockets.send_soon(self)
        else:
            self.send()

    def send(self) -> None:
        """Hand what is there to be sent over to the system, as much as it takes."""
        unsent = self._unsent
        if not unsent:
            return
        try:
            sent = self._hand_over(unsent)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._lose(error)
            return
        if sent < len(unsent):
            self._unsent = memoryview(unsent)[sent:]
            self._watch(self._events | WRITABLE)
            return
        self._unsent = b""
        self._watch(self._events & ~WRITABLE)
        if self._is_closing:
            self._lose(None)

    def get_write_buffer_size(self) -> int:
        """How many bytes are still to be sent."""
        return len(self._unsent)

    # -- the end --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Read nothing more, and go when all is sent."""
        if not self._is_closing:
            self._is_closing = True
            self._watch(self._events & ~READABLE)
            if not self._unsent:
                self._lose(None)

    def abort(self) -> None:
        """Go now."""
        self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        if not self._is_lost:
            self._is_lost = self._is_closing = True
            self._unsent = b""
            self._watch(0)
            # Not from here: its protocol may be in the middle of something.
            self._sockets.loop.call_soon(self._end, error)

    def _end(self, error: Exception | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._client.close()

    def _watch(self, events: int) -> None:
        before, self._events = self._events, events
        if events != before:
            self._sockets.watch(self, before, events)
