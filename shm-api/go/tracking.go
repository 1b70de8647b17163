package xtipc

// #include <xtipc/tipcc.h>
import "C"

import "time"

// Published tells that a service is bound by a socket.
type Published struct{ Service, Socket Addr }

// Withdrawn tells that a service is no longer bound by a socket.
type Withdrawn struct{ Service, Socket Addr }

// Expired tells that the time of a subscription is over.
type Expired struct{}

// NodeEvent tells whether a node can be reached.
type NodeEvent struct {
	Node uint32
	Up   bool
}

// LinkEvent tells whether a link to a node is up; the bearers are numbers.
type LinkEvent struct {
	Node                  uint32
	Up                    bool
	OwnBearer, PeerBearer int
}

// Services tells of services.
type Services struct{ Socket }

// TrackServices connects to the topology service of a node, 0 being any.
func TrackServices(node uint32) (*Services, error) {
	socket, err := opened(func() C.int { return C.tipc_topsrv_conn(C.uint32_t(node)) })
	if err != nil {
		return nil, err
	}
	return &Services{*socket}, nil
}

// Subscribe asks for events of a service range: of each binding (all), or of the first and the last one; for so long, or for good
// if that is below 0.
func (s *Services) Subscribe(type_, lower, upper uint32, all bool, timeout time.Duration) error {
	return done(func() C.int {
		return C.tipc_srv_subscr(s.sd, C.uint32_t(type_), C.uint32_t(lower), C.uint32_t(upper), C.bool(all), millis(timeout))
	})
}

// Next waits for the next event: Published, Withdrawn or Expired.
func (s *Services) Next() (Event, error) {
	var service, socket C.struct_tipc_addr
	var up, expired C.bool
	err := done(func() C.int { return C.tipc_srv_evt(s.sd, &service, &socket, &up, &expired) })
	switch {
	case err != nil:
		return nil, err
	case bool(expired):
		return Expired{}, nil
	case bool(up):
		return Published{addrOf(&service), addrOf(&socket)}, nil
	}
	return Withdrawn{addrOf(&service), addrOf(&socket)}, nil
}

// Nodes tells of nodes.
type Nodes struct{ Socket }

// TrackNodes asks for events of nodes, this one among them.
func TrackNodes(node uint32) (*Nodes, error) {
	socket, err := opened(func() C.int { return C.tipc_neigh_subscr(C.uint32_t(node)) })
	if err != nil {
		return nil, err
	}
	return &Nodes{*socket}, nil
}

// Next waits for the next event.
func (n *Nodes) Next() (NodeEvent, error) {
	var node C.uint32_t
	var up C.bool
	err := done(func() C.int { return C.tipc_neigh_evt(n.sd, &node, &up) })
	return NodeEvent{uint32(node), bool(up)}, err
}

// Links tells of links.
type Links struct{ Socket }

// TrackLinks asks for events of links.
func TrackLinks(node uint32) (*Links, error) {
	socket, err := opened(func() C.int { return C.tipc_link_subscr(C.uint32_t(node)) })
	if err != nil {
		return nil, err
	}
	return &Links{*socket}, nil
}

// Next waits for the next event.
func (l *Links) Next() (LinkEvent, error) {
	var node C.uint32_t
	var up C.bool
	var own, peer C.int
	err := done(func() C.int { return C.tipc_link_evt(l.sd, &node, &up, &own, &peer) })
	return LinkEvent{uint32(node), bool(up), int(own), int(peer)}, err
}
