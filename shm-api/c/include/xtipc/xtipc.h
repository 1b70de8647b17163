/*
 * What libxtipc has beside the functions of libtipc: libxtipc(3).
 *
 * Functions that return a pointer return NULL if they fail, and say why in errno, as those that return an int do by -1. What they give
 * is given back once, by the function that says so.
 *
 * Made of the sources of the crate xtipc-c; not to be edited.
 */

#ifndef XTIPC_XTIPC_H
#define XTIPC_XTIPC_H

#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <xtipc/tipcc.h>

// Memory for a message that is to be sent on a connection.
struct xtipc_loan;

// A message that was received.
struct xtipc_message;

// A program's attachment to the node of this host. A forked child must attach itself.
struct xtipc_node;

// A socket without a descriptor. It may be used by several threads at once.
struct xtipc_socket;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// `poll`, for programs that have found the C library's before they loaded this one. The loop of events of such a program is to call
// it for a socket before it waits for its descriptor, and each time a call at it has failed with EAGAIN.
int xtipc_poll(struct pollfd *fds, nfds_t count, int timeout);

// Attaches the program to a node: the one whose attach socket is named, or for NULL that of tipc_socket.
struct xtipc_node *xtipc_attach(const char *path);

// Ends the attachment once its sockets are closed.
void xtipc_detach(struct xtipc_node *node);

// Opens a datagram socket, SOCK_RDM or SOCK_DGRAM.
struct xtipc_socket *xtipc_open(const struct xtipc_node *node, int sk_type);

// Binds a datagram socket to a service range; `scope` is TIPC_CLUSTER_SCOPE or TIPC_NODE_SCOPE.
int xtipc_bind(const struct xtipc_socket *socket, uint32_t type, uint32_t lower, uint32_t upper, int scope);

// Listens for connections, SOCK_SEQPACKET or SOCK_STREAM, at a service range; `scope` as in xtipc_bind.
struct xtipc_socket *xtipc_listen(const struct xtipc_node *node, int sk_type, uint32_t type, uint32_t lower, uint32_t upper, int scope);

// Accepts a connection.
struct xtipc_socket *xtipc_accept(const struct xtipc_socket *listener);

// Connects, SOCK_SEQPACKET or SOCK_STREAM, to a socket that listens.
struct xtipc_socket *xtipc_connect(const struct xtipc_node *node, int sk_type, const struct tipc_addr *dst);

// Ends a connection in order: the peer reads what was sent, then its end.
int xtipc_shutdown(const struct xtipc_socket *socket);

// Closes a socket. Messages that were received of it, and loans, stay and are given back on their own.
void xtipc_close(struct xtipc_socket *socket);

// How many milliseconds calls wait at most: 0 not at all, below 0 (the default) as long as it takes.
int xtipc_set_timeout(const struct xtipc_socket *socket, int timeout_ms);

// Sends a message: of a datagram socket to `dst`, on a connection with `dst` NULL. Returns how many bytes were taken.
int xtipc_send(const struct xtipc_socket *socket, const void *msg, size_t len, const struct tipc_addr *dst);

// Receives a message, without copying it. NULL with errno 0: the peer has ended the connection in order.
struct xtipc_message *xtipc_receive(const struct xtipc_socket *socket);

// Where a message is, and how long; until it is freed. What was loaned lies in memory of the sender, which may change it.
const void *xtipc_message_bytes(const struct xtipc_message *message, size_t *len);

// The socket that sent a message; of a connection that is the peer, and not told of what was loaned.
int xtipc_message_source(const struct xtipc_message *message, struct tipc_addr *source);

// TIPC's code for why a message came back, if it is one of the socket's own; else 0.
int xtipc_message_error(const struct xtipc_message *message);

// Gives the memory of a message back.
void xtipc_message_free(struct xtipc_message *message);

// Memory for a message of `len` bytes, to be written and sent on a connection. Between programs of one node with a direct channel
// the receiver gets this very memory; else it is copied.
struct xtipc_loan *xtipc_loan_take(const struct xtipc_socket *socket, size_t len);

// Where the memory of a loan is.
void *xtipc_loan_bytes(struct xtipc_loan *loan);

// Sends a loan, which is gone by that in any case, on the connection it was taken of.
int xtipc_loan_send(const struct xtipc_socket *socket, struct xtipc_loan *loan);

// Gives a loan back that was not sent.
void xtipc_loan_free(struct xtipc_loan *loan);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* XTIPC_XTIPC_H */
