/*
 * What libxtipc has beside the functions of libtipc: libxtipc(3).
 *
 * Made of the sources of the crate xtipc-c; not to be edited.
 */

#ifndef XTIPC_XTIPC_H
#define XTIPC_XTIPC_H

#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <xtipc/tipcc.h>

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// `poll`, for programs that have found the C library's before they loaded this one. The loop of events of such a program is to call
// it for a socket before it waits for its descriptor, and each time a call at it has failed with EAGAIN.
int xtipc_poll(struct pollfd *fds, nfds_t count, int timeout);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* XTIPC_XTIPC_H */
