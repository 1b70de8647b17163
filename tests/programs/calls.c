/* One function of the C library, so many times: for counting its instructions with and without the library that stands before it.
 *
 *   calls NAME COUNT
 *
 * `pair` sends a message over a TIPC socket to itself and receives it; all others are given descriptors of another kind. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/tipc.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static int ends[2], set;
static char bytes[64];

static void nothing(void) {}
static void do_read(void) { (void)!read(ends[0], bytes, 1); }
static void do_write(void) { (void)!write(ends[1], bytes, 0); }
static void do_readv(void)
{
	struct iovec part = { bytes, 1 };
	(void)!readv(ends[0], &part, 1);
}
static void do_writev(void)
{
	struct iovec part = { bytes, 0 };
	(void)!writev(ends[1], &part, 1);
}
static void do_send(void) { send(ends[1], bytes, 0, 0); }
static void do_sendto(void) { sendto(ends[1], bytes, 0, 0, NULL, 0); }
static void do_sendmsg(void)
{
	struct msghdr message = { 0 };
	sendmsg(ends[1], &message, 0);
}
static void do_recv(void) { recv(ends[0], bytes, 1, 0); }
static void do_recvfrom(void) { recvfrom(ends[0], bytes, 1, 0, NULL, NULL); }
static void do_recvmsg(void)
{
	struct msghdr message = { 0 };
	recvmsg(ends[0], &message, 0);
}
static void do_poll(void)
{
	struct pollfd entry = { ends[0], POLLIN, 0 };
	poll(&entry, 1, 0);
}
static void do_ppoll(void)
{
	struct pollfd entry = { ends[0], POLLIN, 0 };
	struct timespec now = { 0, 0 };
	ppoll(&entry, 1, &now, NULL);
}
static void do_select(void)
{
	fd_set read;
	struct timeval now = { 0, 0 };
	FD_ZERO(&read);
	FD_SET(ends[0], &read);
	select(ends[0] + 1, &read, NULL, NULL, &now);
}
static void do_epoll_wait(void)
{
	struct epoll_event event;
	epoll_wait(set, &event, 1, 0);
}
static void do_fcntl(void) { fcntl(ends[0], F_GETFD); }
static void do_ioctl(void)
{
	int count;
	ioctl(ends[0], FIONREAD, &count);
}
static void do_dup(void) { close(dup(ends[0])); }
static void do_fclose(void) { fclose(fdopen(dup(ends[0]), "r")); }
static void do_socket(void) { close(socket(AF_UNIX, SOCK_STREAM, 0)); }
static void do_accept(void) { accept(ends[0], NULL, NULL); }
static void do_getsockopt(void)
{
	int value;
	socklen_t len = sizeof value;
	getsockopt(ends[0], SOL_SOCKET, SO_TYPE, &value, &len);
}
static void do_getsockname(void)
{
	struct sockaddr_storage name;
	socklen_t len = sizeof name;
	getsockname(ends[0], (struct sockaddr *)&name, &len);
}
static void do_lseek(void) { lseek(ends[0], 0, SEEK_CUR); }
static void do_getpid(void) { getpid(); }

static int own;
static struct sockaddr_tipc address;

static void open_own(void)
{
	socklen_t len = sizeof address;
	own = socket(AF_TIPC, SOCK_RDM, 0);
	if (own < 0 || getsockname(own, (struct sockaddr *)&address, &len) < 0) {
		perror("calls");
		exit(1);
	}
}
static void do_pair(void)
{
	if (sendto(own, bytes, sizeof bytes, 0, (struct sockaddr *)&address, sizeof address) != sizeof bytes ||
	    recv(own, bytes, sizeof bytes, 0) != sizeof bytes) {
		perror("calls");
		exit(1);
	}
}

static const struct {
	const char *name;
	void (*call)(void);
} calls[] = {
	{ "nothing", nothing }, { "read", do_read }, { "write", do_write }, { "readv", do_readv },
	{ "writev", do_writev }, { "send", do_send }, { "sendto", do_sendto }, { "sendmsg", do_sendmsg },
	{ "recv", do_recv }, { "recvfrom", do_recvfrom }, { "recvmsg", do_recvmsg }, { "poll", do_poll },
	{ "ppoll", do_ppoll }, { "select", do_select }, { "epoll_wait", do_epoll_wait }, { "fcntl", do_fcntl },
	{ "ioctl", do_ioctl }, { "dup+close", do_dup }, { "fdopen+close", do_fclose }, { "socket+close", do_socket }, { "accept", do_accept },
	{ "getsockopt", do_getsockopt }, { "getsockname", do_getsockname }, { "lseek", do_lseek },
	{ "getpid", do_getpid }, { "pair", do_pair },
};

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends);
	set = epoll_create1(0);
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
		if (strcmp(argv[1], calls[i].name))
			continue;
		if (calls[i].call == do_pair)
			open_own();
		for (long left = atol(argv[2]); left > 0; left--)
			calls[i].call();
		return 0;
	}
	fprintf(stderr, "calls: unknown: %s\n", argv[1]);
	return 2;
}
