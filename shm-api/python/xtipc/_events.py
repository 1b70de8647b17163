"""Addresses, and what sockets tell."""
from dataclasses import dataclass
from typing import NamedTuple, Optional


class Address(NamedTuple):
    """A service address; where `type` is 0 the address of a socket, `instance` being its port."""
    type: int
    instance: int
    node: int = 0

    def __str__(self):
        text = f"{self.type}:{self.instance}" if self.type else f"0:{self.instance:010}"
        return f"{text}@{self.node:x}"


@dataclass(frozen=True)
class Message:
    """Something received, from a socket; `member` is the sender's address in the group, if it came from a member."""
    data: bytes
    source: Address
    member: Optional[Address] = None


@dataclass(frozen=True)
class Rejected:
    """A message of one's own that came back, or what was left of it, with TIPC's code for why; or the end of a connection."""
    data: bytes
    code: int


@dataclass(frozen=True)
class Joined:
    """A member of the group is there."""
    member: Address
    source: Address


@dataclass(frozen=True)
class Left:
    """A member of the group has left."""
    member: Address
    source: Address


@dataclass(frozen=True)
class Published:
    """A service is bound by a socket."""
    service: Address
    socket: Address


@dataclass(frozen=True)
class Withdrawn:
    """A service is no longer bound by a socket."""
    service: Address
    socket: Address


@dataclass(frozen=True)
class Expired:
    """The time of a subscription is over."""


@dataclass(frozen=True)
class NodeUp:
    """A node of the cluster can be reached."""
    node: int


@dataclass(frozen=True)
class NodeDown:
    """A node of the cluster can no longer be reached."""
    node: int


@dataclass(frozen=True)
class LinkUp:
    """A link to a node is up; the bearers are numbers."""
    node: int
    own_bearer: int
    peer_bearer: int


@dataclass(frozen=True)
class LinkDown:
    """A link to a node is down."""
    node: int
    own_bearer: int
    peer_bearer: int
