"""libxtipc by ctypes. Calls that fail raise OSError; one that a signal interrupts goes on, as those of the socket module do."""
import contextlib
import ctypes
import os
from ctypes import POINTER, c_bool, c_char_p, c_int, c_short, c_size_t, c_uint32, c_ulong, c_void_p

_library = ctypes.CDLL(os.environ.get("XTIPC_LIBRARY", "libxtipc.so.1"), use_errno=True)


class RawAddress(ctypes.Structure):
    _fields_ = [("type", c_uint32), ("instance", c_uint32), ("node", c_uint32)]


class PollEntry(ctypes.Structure):
    _fields_ = [("fd", c_int), ("events", c_short), ("revents", c_short)]


_ADDRESS, _NUMBER, _FLAG = POINTER(RawAddress), POINTER(c_int), POINTER(c_bool)


def function(name, result, arguments):
    """A function of the library as it is."""
    found = getattr(_library, name)
    found.argtypes, found.restype = arguments, result
    return found


def _once(name, *arguments):
    raw = function(name, c_int, arguments)

    def call(*values):
        result = raw(*values)
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result
    return call


def _function(name, *arguments):
    once = _once(name, *arguments)

    def call(*values):
        while True:
            with contextlib.suppress(InterruptedError):
                return once(*values)
    return call


own_node = function("tipc_own_node", c_uint32, [])
socket = _function("tipc_socket", c_int)
non_block = _function("tipc_sock_non_block", c_int)
rejectable = _function("tipc_sock_rejectable", c_int)
importance = _function("tipc_sock_importance", c_int, c_uint32)
close = _function("tipc_close", c_int)
sockaddr = _function("tipc_sockaddr", c_int, _ADDRESS)
bind = _function("tipc_bind", c_int, c_uint32, c_uint32, c_uint32, c_uint32)
unbind = _function("tipc_unbind", c_int, c_uint32, c_uint32, c_uint32)
connect = _function("tipc_connect", c_int, _ADDRESS)
listen = _function("tipc_listen", c_int, c_int)
accept = _function("tipc_accept", c_int, _ADDRESS)
join = _function("tipc_join", c_int, _ADDRESS, c_bool, c_bool)
leave = _function("tipc_leave", c_int)
send = _function("tipc_send", c_int, c_char_p, c_size_t)
sendto = _function("tipc_sendto", c_int, c_char_p, c_size_t, _ADDRESS)
mcast = _function("tipc_mcast", c_int, c_char_p, c_size_t, _ADDRESS)
recv = _function("tipc_recv", c_int, c_void_p, c_size_t, c_bool)
recvfrom = _function("tipc_recvfrom", c_int, c_void_p, c_size_t, _ADDRESS, _ADDRESS, _NUMBER)
topsrv_conn = _function("tipc_topsrv_conn", c_uint32)
srv_subscr = _function("tipc_srv_subscr", c_int, c_uint32, c_uint32, c_uint32, c_bool, c_int)
srv_evt = _function("tipc_srv_evt", c_int, _ADDRESS, _ADDRESS, _FLAG, _FLAG)
neigh_subscr = _function("tipc_neigh_subscr", c_uint32)
neigh_evt = _function("tipc_neigh_evt", c_int, POINTER(c_uint32), _FLAG)
link_subscr = _function("tipc_link_subscr", c_uint32)
link_evt = _function("tipc_link_evt", c_int, POINTER(c_uint32), _FLAG, _NUMBER, _NUMBER)
poll = _once("xtipc_poll", POINTER(PollEntry), c_ulong, c_int)
