"""Tracking of services, nodes and links: each tracker is an iterator of events."""
import ctypes

from . import _library as library
from ._events import Expired, LinkDown, LinkUp, NodeDown, NodeUp, Published, Withdrawn
from ._socket import Socket, _address

_FOR_GOOD = -1


def _millis(timeout):
    return _FOR_GOOD if timeout is None else round(timeout * 1000)


class _Tracker(Socket):
    def __iter__(self):
        return self

    def __next__(self):
        return self.next()


class Services(_Tracker):
    """Events of services: Published, Withdrawn, Expired."""

    def __init__(self, node=0):
        super().__init__(fd=library.topsrv_conn(node))

    def subscribe(self, type, lower=0, upper=0xFFFFFFFF, *, all=True, timeout=None):
        """Asks for events of a service range: of each binding (`all`), or of the first and the last one; for so many seconds."""
        library.srv_subscr(self._fd, type, lower, upper, all, _millis(timeout))

    def next(self):
        """Waits for the next event."""
        service, socket, up, expired = library.RawAddress(), library.RawAddress(), ctypes.c_bool(), ctypes.c_bool()
        self._call(library.srv_evt, service, socket, up, expired)
        if expired:
            return Expired()
        return (Published if up else Withdrawn)(_address(service), _address(socket))


class Nodes(_Tracker):
    """Events of nodes: NodeUp, NodeDown. Tells of this node, too."""

    def __init__(self, node=0):
        super().__init__(fd=library.neigh_subscr(node))

    def next(self):
        """Waits for the next event."""
        node, up = ctypes.c_uint32(), ctypes.c_bool()
        self._call(library.neigh_evt, node, up)
        return (NodeUp if up else NodeDown)(node.value)


class Links(_Tracker):
    """Events of links: LinkUp, LinkDown."""

    def __init__(self, node=0):
        super().__init__(fd=library.link_subscr(node))

    def next(self):
        """Waits for the next event."""
        node, up, own, peer = ctypes.c_uint32(), ctypes.c_bool(), ctypes.c_int(), ctypes.c_int()
        self._call(library.link_evt, node, up, own, peer)
        return (LinkUp if up else LinkDown)(node.value, own.value, peer.value)


def wait_for(type, instance, timeout=None, node=0):
    """Waits until a service is bound, on `node` if that is not 0; tells whether it is."""
    with Services() as services:
        services.subscribe(type, instance, instance, all=node != 0, timeout=timeout)
        for event in services:
            if isinstance(event, Expired):
                return False
            if isinstance(event, Published) and node in (0, event.socket.node):
                return True
