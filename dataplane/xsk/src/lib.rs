//! AF_XDP sockets and the frame pool of xtipc.
