"""Runs a program that the system refuses io_uring, as containers do: without_io_uring.py PROGRAM [ARGUMENT]..."""
import ctypes
import errno
import os
import struct
import sys

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
LOAD, IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, REFUSE = 0x7fff0000, 0x00050000 | errno.EPERM
IO_URING_SETUP = 425


class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


filter_ = b"".join(struct.pack("HBBI", *instruction) for instruction in (
    (LOAD, 0, 0, 0), (IF_EQUAL, 0, 1, IO_URING_SETUP), (RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(Program(4, filter_))):
    sys.exit(f"no filter of system calls: {os.strerror(ctypes.get_errno())}")
os.execvp(sys.argv[1], sys.argv[1:])
