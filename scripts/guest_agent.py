"""Runs inside a guest and executes what `scripts/guest exec` asks for.

Each virtio-serial port carries one command at a time; all ports work side by side. A session:

    host   MAGIC + nonce                    (anything before it is left over from a broken session)
    guest  MAGIC + nonce
    host   frame C {"argv": [...]}          then any number of I (stdin bytes), ended by E
    guest  frames O (stdout) and R (stderr), ended by X {"status": n}

A frame is one type byte, a 32-bit big-endian length and the payload. When the host goes away in
the middle of a session, the whole process group of the command is killed.
"""
import glob
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
import traceback

MAGIC = b"xtipc-guest-session:"
NONCE_SIZE = 16
HANG_UP_S = 1


class HostGone(Exception):
    """The other end of the port was closed, or a new session began in the middle of this one."""


class Port:
    """One virtio-serial port, read without blocking so that a vanished host is noticed."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self.buffer = b""

    def fill(self):
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return
        if not data:
            raise HostGone
        self.buffer += data

    def wait_for_hello(self):
        """Scan for a new session; the port reads as end of file while nobody is connected."""
        while True:
            at = self.buffer.find(MAGIC)
            if at >= 0 and len(self.buffer) >= at + len(MAGIC) + NONCE_SIZE:
                end = at + len(MAGIC) + NONCE_SIZE
                hello, self.buffer = self.buffer[at:end], self.buffer[end:]
                self.write(hello)
                return
            self.buffer = self.buffer[at:] if at >= 0 else self.buffer[-len(MAGIC):]
            try:
                select.select([self.fd], [], [], 1)
                self.fill()
            except HostGone:
                self.buffer = b""
                time.sleep(0.02)

    def take_frames(self):
        frames = []
        while len(self.buffer) >= 5:
            kind, size = struct.unpack_from(">cI", self.buffer)
            if kind not in (b"C", b"I", b"E"):
                raise HostGone  # closed and opened again before we looked: the bytes are those of a hello
            if len(self.buffer) < 5 + size:
                break
            frames.append((kind, self.buffer[5:5 + size]))
            self.buffer = self.buffer[5 + size:]
        return frames

    def write(self, data):
        # The kernel can hand over the first bytes of a host before it knows that the host is there, so
        # being hung up counts only when it lasts.
        deadline = time.monotonic() + HANG_UP_S
        while data:
            try:
                data = data[os.write(self.fd, data):]
            except BlockingIOError:
                poller = select.poll()
                poller.register(self.fd, select.POLLOUT)
                hung_up = any(events & select.POLLHUP for _, events in poller.poll(1000))
                if not hung_up:
                    deadline = time.monotonic() + HANG_UP_S
                elif time.monotonic() > deadline:
                    raise HostGone from None
                else:
                    time.sleep(0.005)

    def send(self, kind, payload):
        self.write(struct.pack(">cI", kind, len(payload)) + payload)


class Session:
    """One command: its pipes on one side, the port on the other."""

    def __init__(self, port, argv):
        self.port = port
        self.child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, start_new_session=True)
        self.outputs = {self.child.stdout.fileno(): b"O", self.child.stderr.fileno(): b"R"}

    def handle(self, kind, payload):
        try:
            if kind == b"I":
                self.child.stdin.write(payload)
                self.child.stdin.flush()
            elif kind == b"E":
                self.child.stdin.close()
        except (BrokenPipeError, ValueError):
            pass  # the command does not read its input

    def run(self):
        """Relay until the command has ended; a background child may keep the pipes open longer."""
        while True:
            for kind, payload in self.port.take_frames():
                self.handle(kind, payload)
            ended = self.child.poll() is not None
            ready, _, _ = select.select([self.port.fd, *self.outputs], [], [], 0 if ended else 0.05)
            if self.port.fd in ready:
                self.port.fill()
            relayed = [fd for fd in list(self.outputs) if fd in ready and self.relay(fd)]
            if ended and not relayed:
                return self.child.returncode

    def relay(self, fd):
        data = os.read(fd, 65536)
        if data:
            self.port.send(self.outputs[fd], data)
            return True
        del self.outputs[fd]
        return False

    def close(self):
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()
        for pipe in (self.child.stdin, self.child.stdout, self.child.stderr):
            try:
                pipe.close()
            except BrokenPipeError:
                pass


def serve_one(port):
    port.wait_for_hello()
    frames = []
    while not frames:
        select.select([port.fd], [], [], 1)
        port.fill()
        frames = port.take_frames()
    kind, payload = frames.pop(0)
    if kind != b"C":
        return
    try:
        session = Session(port, json.loads(payload)["argv"])
    except OSError as error:
        port.send(b"R", f"guest: {error}\n".encode())
        port.send(b"X", json.dumps({"status": 127}).encode())
        return
    try:
        for frame in frames:
            session.handle(*frame)
        status = session.run()
        port.send(b"X", json.dumps({"status": status if status >= 0 else 128 - status}).encode())
    finally:
        session.close()


def serve(path):
    port = Port(path)
    while True:
        try:
            serve_one(port)
        except HostGone:
            continue
        except Exception:  # a fault of the agent must not cost the guest one of its ports
            traceback.print_exc()


def main():
    threads = [threading.Thread(target=serve, args=(path,)) for path in sorted(glob.glob("/dev/vport*"))]
    for thread in threads:
        thread.start()
    print("guest agent ready", file=sys.stderr)


if __name__ == "__main__":
    main()
