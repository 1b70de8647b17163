"""The wire as the tests see it: frames with the kernel's timestamps, and the TIPC fields they ask for.

Written apart from the product's codec on purpose: a field decoded wrongly in both would pass.
"""
import ctypes
import socket
import struct
import threading
import time
from dataclasses import dataclass

ETH_P_TIPC = 0x88CA
ETH_P_ALL = 3
SO_TIMESTAMPNS = 35
SO_ATTACH_FILTER = 26
SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC = 263, 1, 1
BROADCAST = b"\xff" * 6

NAME_DISTRIBUTOR, LINK_PROTOCOL, LINK_CONFIG = 11, 7, 13
PUBLICATION, WITHDRAWAL = 0, 1
CRITICAL, MCAST_MSG = 3, 1
STATE_MSG, RESET_MSG, ACTIVATE_MSG = 0, 1, 2


# Kernel filter for RESET and ACTIVATE: ethertype, user LINK_PROTOCOL, a type other than STATE.
LINK_RESETS = [(0x28, 0, 0, 12), (0x15, 0, 6, ETH_P_TIPC),
               (0x30, 0, 0, 14), (0x54, 0, 0, 0x1E), (0x15, 0, 3, LINK_PROTOCOL << 1),
               (0x30, 0, 0, 18), (0x45, 0, 1, 0xE0),
               (0x06, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 0)]


@dataclass(frozen=True)
class Frame:
    """One captured frame; `at_ns` is the kernel's time of arrival, CLOCK_REALTIME."""
    at_ns: int
    data: bytes

    def word(self, index):
        return struct.unpack_from(">I", self.data, 14 + 4 * index)[0]

    @property
    def is_tipc(self):
        return len(self.data) >= 14 + 24 and self.data[12:14] == b"\x88\xca" and self.word(0) >> 29 == 2

    @property
    def destination(self):
        return self.data[0:6]

    @property
    def source(self):
        return self.data[6:12]

    @property
    def user(self):
        return self.word(0) >> 25 & 0xF

    @property
    def type(self):
        return self.word(1) >> 29

    @property
    def is_switch(self):
        """Half of the pair by which a multicast marks that its sender changes its method: an empty one, or the message."""
        return self.is_tipc and self.user <= CRITICAL and self.type == MCAST_MSG and bool(self.word(0) >> 17 & 1)

    @property
    def previous_node(self):
        return self.word(3)

    @property
    def session(self):
        """Of a link protocol message."""
        return self.word(5) >> 16

    @property
    def peer_stopping(self):
        return bool(self.word(5) >> 13 & 1)

    def is_message(self, user, kind, node=None):
        return self.is_tipc and (self.user, self.type) == (user, kind) and node in (None, self.previous_node)

    def __str__(self):
        if not self.is_tipc:
            return f"{len(self.data)} bytes"
        return f"user {self.user} type {self.type} from {self.previous_node:x}, {len(self.data)} bytes"


class Capture:
    """Collects every TIPC frame that passes an interface, both ways, in a thread of its own.

    Opened in the network namespace of the interface; used as a context manager. With a `kernel_filter` only
    the frames it lets through reach this process: full traffic is too much for it.
    """

    def __init__(self, interface, kernel_filter=None):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        if kernel_filter:
            program = b"".join(struct.pack("HBBI", *instruction) for instruction in kernel_filter)
            held = ctypes.create_string_buffer(program)
            self.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER,
                                   struct.pack("HP", len(kernel_filter), ctypes.addressof(held)))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUFFORCE if hasattr(socket, "SO_RCVBUFFORCE") else 33,
                               16 << 20)
        self.socket.bind((interface, ETH_P_ALL))
        index = socket.if_nametoindex(interface)
        self.socket.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, struct.pack("iHH8s", index, PACKET_MR_PROMISC, 0, b""))
        self.socket.settimeout(0.1)
        self.frames = []
        self.changed = threading.Condition()
        self.ended = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.ended:
            try:
                data, ancillary, _, _ = self.socket.recvmsg(65536, 64)
            except TimeoutError:
                continue
            if data[12:14] != b"\x88\xca":
                continue
            seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
            with self.changed:
                self.frames.append(Frame(seconds * 10**9 + nanoseconds, data))
                self.changed.notify_all()

    def snapshot(self):
        with self.changed:
            return list(self.frames)

    def find(self, wanted, after_ns=0):
        return [frame for frame in self.snapshot() if frame.at_ns >= after_ns and wanted(frame)]

    def wait_for(self, wanted, timeout_s, after_ns=0):
        """The first frame for which `wanted` holds, among those already seen and those to come."""
        deadline = time.monotonic() + timeout_s
        seen = 0
        with self.changed:
            while True:
                for frame in self.frames[seen:]:
                    if frame.at_ns >= after_ns and wanted(frame):
                        return frame
                seen = len(self.frames)
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return None
                self.changed.wait(remaining)

    def close(self):
        self.ended = True
        self.thread.join()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Injector:
    """Sends frames of any content from an interface; opened in its network namespace."""

    def __init__(self, interface):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.bind((interface, 0))

    def send(self, data):
        """Sends a frame; one that the device refuses (too short, too long) is not an error here."""
        try:
            self.socket.send(data)
        except OSError:
            pass

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class IoVector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_char_p), ("length", ctypes.c_size_t)]


class MessageHeader(ctypes.Structure):
    """struct msghdr"""
    _fields_ = [("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32), ("vectors", ctypes.POINTER(IoVector)),
                ("vector_count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
                ("flags", ctypes.c_int)]


class MessagePlace(ctypes.Structure):
    """struct mmsghdr"""
    _fields_ = [("header", MessageHeader), ("sent", ctypes.c_uint32)]


class Storm:
    """Sends frames over and over at a rate from an interface, in a thread; opened in its network namespace.

    `sent` tells how many went out, `seconds` how long it took.
    """
    BATCHES_PER_S = 1000

    def __init__(self, interface, frames, rate):
        self.batch = rate // self.BATCHES_PER_S
        # Whole batches: each call of the system sends the next one.
        frames = (frames * (self.batch // len(frames) + 1)) if len(frames) < self.batch else frames
        frames = frames[:len(frames) // self.batch * self.batch]
        self.vectors = (IoVector * len(frames))(*((data, len(data)) for data in frames))
        self.places = (MessagePlace * len(frames))()
        for place, vector in zip(self.places, self.vectors):
            place.header.vectors, place.header.vector_count = ctypes.pointer(vector), 1
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.bind((interface, 0))
        self.sent, self.seconds, self.ended = 0, 0.0, False
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        start = time.monotonic()
        at = 0
        while not self.ended:
            self.sent += max(0, self.libc.sendmmsg(self.socket.fileno(), ctypes.byref(self.places[at]), self.batch, 0))
            at = (at + self.batch) % len(self.places)
            due = start + self.sent / self.batch / self.BATCHES_PER_S
            time.sleep(max(0, due - time.monotonic()))
        self.seconds = time.monotonic() - start

    def close(self):
        self.ended = True
        if self.thread.ident:
            self.thread.join()
        self.socket.close()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.close()


def frame(destination, source, payload):
    return destination + source + struct.pack(">H", ETH_P_TIPC) + payload
