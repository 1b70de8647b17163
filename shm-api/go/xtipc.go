// Package xtipc has the TIPC sockets of xtipc: what libxtipc(3) does, with typed addresses, messages and events.
//
// Go makes its system calls by itself, so that `xtipc run` does nothing for it; this package calls the library. It is found by
// pkg-config. A call that waits holds a thread of the system, as calls of C do; several goroutines may use a socket at once.
package xtipc

// #cgo pkg-config: xtipc
// #include <errno.h>
// #include <xtipc/tipcc.h>
// static int last_errno(void) { return errno; }
import "C"

import (
	"fmt"
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

// Kind is the type of a socket.
type Kind C.int

// The types of sockets.
const (
	Stream    Kind = syscall.SOCK_STREAM
	Dgram     Kind = syscall.SOCK_DGRAM
	RDM       Kind = syscall.SOCK_RDM
	Seqpacket Kind = syscall.SOCK_SEQPACKET
)

// Cluster is the scope of a binding that all nodes see; the other one is the number of this node.
const Cluster = 0

const lengthMax = 66000

// Addr is a service address; where Type is 0 the address of a socket, Instance being its port.
type Addr struct {
	Type, Instance, Node uint32
}

// String writes an address as libtipc does.
func (a Addr) String() string {
	if a.Type == 0 {
		return fmt.Sprintf("0:%010d@%x", a.Instance, a.Node)
	}
	return fmt.Sprintf("%d:%d@%x", a.Type, a.Instance, a.Node)
}

func (a Addr) raw() *C.struct_tipc_addr {
	return &C.struct_tipc_addr{_type: C.uint32_t(a.Type), instance: C.uint32_t(a.Instance), node: C.uint32_t(a.Node)}
}

func addrOf(raw *C.struct_tipc_addr) Addr {
	return Addr{uint32(raw._type), uint32(raw.instance), uint32(raw.node)}
}

// Event is something a socket or tracker tells: Message, Rejected, Joined or Left; Published, Withdrawn or Expired.
type Event interface{}

// Message is something received. Member is the sender's address in the group, if it came from a member; else its Type is 0.
type Message struct {
	Data   []byte
	Source Addr
	Member Addr
}

// Rejected is a message of one's own that came back, or what was left of it, with TIPC's code for why; or the end of a connection.
type Rejected struct {
	Data []byte
	Code int
}

// Joined tells that a member of the group is there.
type Joined struct{ Member, Source Addr }

// Left tells that a member of the group has left.
type Left struct{ Member, Source Addr }

// Socket is a socket.
type Socket struct{ sd C.int }

// again makes a call until no signal interrupts it. The thread stays, for errno is the thread's.
func again(call func() C.int) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		if result := call(); result >= 0 {
			return int(result), nil
		}
		if err := syscall.Errno(C.last_errno()); err != syscall.EINTR {
			return -1, err
		}
	}
}

func done(call func() C.int) error {
	_, err := again(call)
	return err
}

func opened(call func() C.int) (*Socket, error) {
	sd, err := again(call)
	if err != nil {
		return nil, err
	}
	return &Socket{C.int(sd)}, nil
}

// OwnNode is the number of this node; 0 as long as it has none.
func OwnNode() uint32 { return uint32(C.tipc_own_node()) }

// Open makes a socket.
func Open(kind Kind) (*Socket, error) {
	return opened(func() C.int { return C.tipc_socket(C.int(kind) | syscall.SOCK_CLOEXEC) })
}

// Close closes it.
func (s *Socket) Close() error { return done(func() C.int { return C.tipc_close(s.sd) }) }

// Addr is its own address.
func (s *Socket) Addr() (Addr, error) {
	var raw C.struct_tipc_addr
	err := done(func() C.int { return C.tipc_sockaddr(s.sd, &raw) })
	return addrOf(&raw), err
}

// SetRejectable has messages come back that cannot be delivered.
func (s *Socket) SetRejectable() error {
	return done(func() C.int { return C.tipc_sock_rejectable(s.sd) })
}

// SetImportance sets the importance of what is sent from now on, 0 to 3.
func (s *Socket) SetImportance(importance uint32) error {
	return done(func() C.int { return C.tipc_sock_importance(s.sd, C.uint32_t(importance)) })
}

// Bind binds it to a service range.
func (s *Socket) Bind(type_, lower, upper, scope uint32) error {
	return done(func() C.int {
		return C.tipc_bind(s.sd, C.uint32_t(type_), C.uint32_t(lower), C.uint32_t(upper), C.uint32_t(scope))
	})
}

// Unbind takes a binding back, given as it was made.
func (s *Socket) Unbind(type_, lower, upper uint32) error {
	return done(func() C.int {
		return C.tipc_unbind(s.sd, C.uint32_t(type_), C.uint32_t(lower), C.uint32_t(upper))
	})
}

// Connect connects it to a socket that listens; of a datagram socket it says where Send sends to.
func (s *Socket) Connect(to Addr) error {
	return done(func() C.int { return C.tipc_connect(s.sd, to.raw()) })
}

// Listen lets others connect.
func (s *Socket) Listen() error { return done(func() C.int { return C.tipc_listen(s.sd, 0) }) }

// Accept accepts a connection: its socket, and who connected.
func (s *Socket) Accept() (*Socket, Addr, error) {
	var raw C.struct_tipc_addr
	accepted, err := opened(func() C.int { return C.tipc_accept(s.sd, &raw) })
	return accepted, addrOf(&raw), err
}

// Join joins a group, whose members it is told of if it wants events.
func (s *Socket) Join(type_, instance, scope uint32, events, loopback bool) error {
	member := Addr{type_, instance, scope}
	return done(func() C.int {
		return C.tipc_join(s.sd, member.raw(), C.bool(events), C.bool(loopback))
	})
}

// Leave leaves the group.
func (s *Socket) Leave() error { return done(func() C.int { return C.tipc_leave(s.sd) }) }

func pointer(data []byte) unsafe.Pointer {
	if len(data) == 0 {
		return nil
	}
	return unsafe.Pointer(&data[0])
}

// Write sends to the peer of a connection, the default destination, or all members of the group.
func (s *Socket) Write(data []byte) (int, error) {
	return again(func() C.int { return C.tipc_send(s.sd, pointer(data), C.size_t(len(data))) })
}

// Read receives bytes of a stream, or a message.
func (s *Socket) Read(room []byte) (int, error) {
	return again(func() C.int { return C.tipc_recv(s.sd, pointer(room), C.size_t(len(room)), false) })
}

// SendTo sends to a socket, or to one of those that are bound to the service address.
func (s *Socket) SendTo(data []byte, to Addr) error {
	return done(func() C.int {
		return C.tipc_sendto(s.sd, pointer(data), C.size_t(len(data)), to.raw())
	})
}

// Multicast sends to all that are bound to the service address.
func (s *Socket) Multicast(data []byte, to Addr) error {
	return done(func() C.int {
		return C.tipc_mcast(s.sd, pointer(data), C.size_t(len(data)), to.raw())
	})
}

// Receive waits for a Message, or what else there is to be told: Rejected, Joined or Left.
func (s *Socket) Receive() (Event, error) {
	room := make([]byte, lengthMax)
	var source, member C.struct_tipc_addr
	var code C.int
	size, err := again(func() C.int {
		return C.tipc_recvfrom(s.sd, pointer(room), lengthMax, &source, &member, &code)
	})
	switch {
	case err != nil:
		return nil, err
	case code > 0:
		return Rejected{room[:size:size], int(code)}, nil
	case code < 0:
		return Left{addrOf(&member), addrOf(&source)}, nil
	case size == 0 && member._type != 0:
		return Joined{addrOf(&member), addrOf(&source)}, nil
	}
	return Message{room[:size:size], addrOf(&source), addrOf(&member)}, nil
}

// WaitFor waits until a service is bound, for so long at most (below 0: as long as it takes), on a node if that is not 0.
func WaitFor(service Addr, timeout time.Duration) bool {
	return bool(C.tipc_srv_wait(service.raw(), millis(timeout)))
}

func millis(timeout time.Duration) C.int {
	if timeout < 0 {
		return -1
	}
	return C.int(timeout.Milliseconds())
}
