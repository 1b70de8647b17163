"""Sockets."""
import contextlib
import ctypes
import math
import os
import select
import time

from . import _library as library
from ._events import Address, Joined, Left, Message, Rejected

STREAM, DGRAM, RDM, SEQPACKET = 1, 2, 4, 5
#: Scope of a binding: the whole cluster. The other one is the number of this node.
CLUSTER = 0
_CLOSE_ON_EXEC = os.O_CLOEXEC
_LENGTH_MAX = 66000


def own_node():
    """The number of this node; 0 as long as it has none."""
    return library.own_node()


class Socket:
    """A socket: RDM, DGRAM, SEQPACKET or STREAM."""

    _fd = -1

    def __init__(self, kind=RDM, *, fd=None):
        self._fd = library.socket(kind | _CLOSE_ON_EXEC) if fd is None else fd
        self._waits = True
        self._room = None

    def fileno(self):
        """The descriptor. An event loop may wait for it once the socket is not blocking."""
        return self._fd

    def close(self):
        """Closes it. More than once does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            library.close(fd)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        self.close()

    @property
    def address(self):
        """Its own address."""
        address = library.RawAddress()
        library.sockaddr(self._fd, address)
        return _address(address)

    def set_nonblocking(self):
        """Calls that would wait raise BlockingIOError."""
        library.non_block(self._fd)
        self._waits = False
        self._settle()

    def set_rejectable(self):
        """Messages come back that cannot be delivered."""
        library.rejectable(self._fd)

    def set_importance(self, importance):
        """Importance of what is sent from now on, 0 to 3."""
        library.importance(self._fd, importance)

    def bind(self, type, lower, upper=None, scope=CLUSTER):
        """Binds it to a service address or range."""
        library.bind(self._fd, type, lower, lower if upper is None else upper, scope)

    def unbind(self, type, lower, upper=None):
        """Takes a binding back, given as it was made."""
        library.unbind(self._fd, type, lower, lower if upper is None else upper)

    def connect(self, address):
        """Connects to a socket that listens; of a datagram socket, where `send` sends to."""
        self._call(library.connect, _raw(address))

    def listen(self):
        """Lets others connect."""
        library.listen(self._fd, 0)

    def accept(self):
        """Accepts a connection: its socket, and the address of who connected."""
        source = library.RawAddress()
        return Socket(fd=self._call(library.accept, source)), _address(source)

    def join(self, type, instance, *, events=True, loopback=False, scope=CLUSTER):
        """Joins a group."""
        library.join(self._fd, library.RawAddress(type, instance, scope), events, loopback)

    def leave(self):
        """Leaves the group."""
        library.leave(self._fd)

    def send(self, data):
        """Sends to the peer of a connection, the default destination, or all members of the group; gives how many bytes."""
        return self._call(library.send, bytes(data), len(data))

    def send_to(self, data, address):
        """Sends to a socket, or to one of those that are bound to the service address."""
        return self._call(library.sendto, bytes(data), len(data), _raw(address))

    def multicast(self, data, address):
        """Sends to all that are bound to the service address."""
        return self._call(library.mcast, bytes(data), len(data), _raw(address))

    def recv(self, size, *, all=False):
        """Receives bytes of a stream, as many as are there, or as asked for (`all`); b"" is its end."""
        room = ctypes.create_string_buffer(size)
        received = self._call(library.recv, room, size, all)
        return room.raw[:received]

    def receive(self):
        """Receives a Message, or what else there is to be told: Rejected, Joined or Left."""
        if self._room is None:
            self._room = ctypes.create_string_buffer(_LENGTH_MAX)
        source, member, error = library.RawAddress(), library.RawAddress(), ctypes.c_int()
        size = self._call(library.recvfrom, self._room, _LENGTH_MAX, source, member, error)
        data, source, member = self._room.raw[:size], _address(source), _address(member)
        if error.value > 0:
            return Rejected(data, error.value)
        if error.value < 0:
            return Left(member, source)
        if size == 0 and member.type:
            return Joined(member, source)
        return Message(data, source, member if member.type else None)

    def _call(self, function, *values):
        try:
            return function(self._fd, *values)
        except BlockingIOError:
            self._settle()
            raise

    def _settle(self):
        """The library puts the descriptor's readiness right when somebody polls by it, which event loops do not."""
        if not self._waits:
            poll([self], 0)


def poll(sockets, timeout=None, events=select.POLLIN):
    """Waits until one of the sockets is ready; gives those that are. `timeout` in seconds; None: as long as it takes."""
    sockets = list(sockets)
    entries = (library.PollEntry * len(sockets))(*(library.PollEntry(socket.fileno(), events) for socket in sockets))
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        left = -1 if end is None else max(0, math.ceil((end - time.monotonic()) * 1000))
        with contextlib.suppress(InterruptedError):
            library.poll(entries, len(sockets), left)
            break
    return [socket for socket, entry in zip(sockets, entries) if entry.revents]


def _raw(address):
    return library.RawAddress(*address)


def _address(raw):
    return Address(raw.type, raw.instance, raw.node)
