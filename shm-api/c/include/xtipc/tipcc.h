/*
 * The functions of libtipc, for sockets of xtipc: libxtipc(3).
 *
 * A socket is a file descriptor. Functions that return an int return -1 if they fail, and say why in errno. Pointers to results that
 * are not wanted may be NULL.
 *
 * Made of the sources of the crate xtipc-c; not to be edited.
 */

#ifndef XTIPC_TIPCC_H
#define XTIPC_TIPCC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <linux/tipc.h>

// A service address, {type, instance}: `node` is 0 for the whole cluster, or the number of the node that is meant.
// Where `type` is 0: the address of a socket, `instance` being its port.
struct tipc_addr {
    uint32_t type;
    uint32_t instance;
    uint32_t node;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The number of this node; 0 as long as it has none.
uint32_t tipc_own_node(void);

// Writes an address as type:instance@node, or 0:port@node; returns buf.
char *tipc_ntoa(const struct tipc_addr *addr, char *buf, size_t len);

// Writes a service range as type:lower:upper@node; returns buf.
char *tipc_rtoa(uint32_t type, uint32_t lower, uint32_t upper, uint32_t node, char *buf, size_t len);

// Writes the name of the link to a node over a bearer; an empty one if there is no such link. Returns buf.
char *tipc_linkname(char *buf, size_t len, uint32_t peer, int bearerid);

// Makes a socket: SOCK_RDM, SOCK_DGRAM, SOCK_SEQPACKET or SOCK_STREAM, perhaps with SOCK_NONBLOCK, SOCK_CLOEXEC.
int tipc_socket(int sk_type);

// Has calls fail with EAGAIN instead of waiting. Returns sd.
int tipc_sock_non_block(int sd);

// Has messages come back that cannot be delivered.
int tipc_sock_rejectable(int sd);

// Importance of the messages sent from now on: 0 (low) to 3 (critical).
int tipc_sock_importance(int sd, uint32_t priority);

// Closes a socket.
int tipc_close(int sd);

// The address of a socket.
int tipc_sockaddr(int sd, struct tipc_addr *addr);

// Binds a socket to a service range, as often as wanted. `scope` is 0 for the whole cluster, or the number of this node.
int tipc_bind(int sd, uint32_t type, uint32_t lower, uint32_t upper, uint32_t scope);

// Takes a binding back, given as it was made.
int tipc_unbind(int sd, uint32_t type, uint32_t lower, uint32_t upper);

// Connects to a socket that listens. Of a datagram socket this is where tipc_send sends to.
int tipc_connect(int sd, const struct tipc_addr *dst);

// Lets others connect to a socket. The backlog has no meaning.
int tipc_listen(int sd, int backlog);

// Accepts a connection: returns its socket and tells who connected.
int tipc_accept(int sd, struct tipc_addr *src);

// Joins the group {type} as {instance}; `member->node` as the scope of tipc_bind. With `events` it is told who joins and leaves, with
// `loopback` it gets its own multicasts, too.
int tipc_join(int sd, struct tipc_addr *member, bool events, bool loopback);

// Leaves the group.
int tipc_leave(int sd);

// Sends to the peer of a connection, or to all members of the group.
int tipc_send(int sd, const void *msg, size_t len);

// `sendmsg` without flags.
int tipc_sendmsg(int sd, const struct msghdr *msg);

// Sends to one socket: that of the address, or one of those that are bound to the service address. Of a fresh socket of a connection
// type it asks for a connection as well.
int tipc_sendto(int sd, const void *msg, size_t len, const struct tipc_addr *dst);

// Sends to all sockets that are bound to the service address; `dst->node` is 0 or the number of this node.
int tipc_mcast(int sd, const void *msg, size_t len, const struct tipc_addr *dst);

// Receives a message; of a stream with `waitall` as many bytes as there is room for.
int tipc_recv(int sd, void *buf, size_t len, bool waitall);

// Receives a message and tells who sent it: the socket, and of a member of the group its address in the group. `*err` is 0;
// -1 for the event that the member left, while that it joined is a message of 0 bytes; above 0 for a message of this
// socket that came back, of which `buf` gets at most 1024 bytes. Without `err` what came back counts as 0 bytes.
int tipc_recvfrom(int sd, void *buf, size_t len, struct tipc_addr *socket, struct tipc_addr *member, int *err);

// Connects to the topology service of a node, 0 being any: returns the socket.
int tipc_topsrv_conn(uint32_t topsrv_node);

// Asks to be told of bindings in a service range: of each one (`all`), or whether there is one. For `expire` milliseconds, or
// for good if that is below 0.
int tipc_srv_subscr(int sd, uint32_t type, uint32_t lower, uint32_t upper, bool all, int expire);

// Waits for the next event: which service was bound (`*up`) or withdrawn, and by which socket. That a subscription has expired is told by
// `*expired` alone.
int tipc_srv_evt(int sd, struct tipc_addr *srv, struct tipc_addr *addr, bool *up, bool *expired);

// Waits until a service is bound, on `srv->node` if that is not 0, for at most `expire` milliseconds. Tells whether it is.
bool tipc_srv_wait(const struct tipc_addr *srv, int expire);

// Asks to be told which nodes come and go: returns the socket for tipc_neigh_evt.
int tipc_neigh_subscr(uint32_t topsrv_node);

// Waits for the next event: the number of a node, and whether it is up.
int tipc_neigh_evt(int sd, uint32_t *neigh_node, bool *up);

// Asks to be told which links come and go: returns the socket for tipc_link_evt.
int tipc_link_subscr(uint32_t topsrv_node);

// Waits for the next event: the node at the other end of a link, whether the link is up, and the numbers of its bearers here and
// there.
int tipc_link_evt(int sd, uint32_t *neigh_node, bool *up, int *local_bearerid, int *remote_bearerid);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* XTIPC_TIPCC_H */
