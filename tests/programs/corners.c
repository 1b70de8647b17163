/* What programs in C do to sockets of TIPC that Python's modules cannot: run it by `xtipc run`, or on a kernel with TIPC. Tells what is
 * not as it should be, and exits with the number of such things. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/tipc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int failures;

#define CHECK(condition)                                                                       \
	do {                                                                                   \
		if (!(condition)) {                                                            \
			printf("%s, line %d: %s (errno %d)\n", __func__, __LINE__, #condition, errno); \
			failures++;                                                            \
		}                                                                              \
	} while (0)
#define CHECK_FAILS(call, number)                                                              \
	do {                                                                                   \
		errno = 0;                                                                     \
		CHECK((call) == -1 && errno == (number));                                      \
	} while (0)

static int ends[2];

static void open_pair(int type)
{
	CHECK(socketpair(AF_TIPC, type, 0, ends) == 0);
}

static void close_pair(void)
{
	close(ends[0]);
	close(ends[1]);
}

static int watch(int set, int operation, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event event = { .events = events, .data.u64 = data };
	return epoll_ctl(set, operation, fd, &event);
}

/* The data of the one event there is; 0 if there is none. */
static uint64_t event_of(int set, int timeout_ms)
{
	struct epoll_event event;
	int count = epoll_wait(set, &event, 1, timeout_ms);
	CHECK(count >= 0);
	return count == 1 ? event.data.u64 : 0;
}

static void an_instance_waits_exclusively(void)
{
	int set = epoll_create1(0);
	for (int by_end = 0; by_end < 2; by_end++) {
		open_pair(SOCK_SEQPACKET);
		CHECK(watch(set, EPOLL_CTL_ADD, ends[0], EPOLLIN | EPOLLEXCLUSIVE, 7) == 0);
		CHECK(event_of(set, 0) == 0);
		CHECK(by_end ? close(ends[1]) == 0 : send(ends[1], "x", 1, 0) == 1);
		CHECK(event_of(set, 5000) == 7);
		CHECK_FAILS(watch(set, EPOLL_CTL_MOD, ends[0], EPOLLIN, 8), EINVAL);
		close_pair();
	}
	close(set);
}

static void what_tipc_never_tells_is_waited_for_in_vain(void)
{
	int set = epoll_create1(0);
	open_pair(SOCK_STREAM);
	struct pollfd entry = { ends[0], POLLWRNORM | POLLWRBAND | POLLRDBAND | POLLPRI, 0 };
	CHECK(poll(&entry, 1, 10) == 0);
	CHECK(watch(set, EPOLL_CTL_ADD, ends[0], EPOLLWRNORM | EPOLLWRBAND | EPOLLRDBAND | EPOLLPRI, 7) == 0);
	CHECK(event_of(set, 10) == 0);
	close(ends[1]);
	CHECK(poll(&entry, 1, 5000) == 1 && entry.revents == POLLHUP);
	CHECK(event_of(set, 5000) == 7);
	close(ends[0]);
	close(set);
}

static void an_instance_is_waited_for_by_its_copy(void)
{
	int set = epoll_create1(0), copy;
	open_pair(SOCK_RDM);
	CHECK(watch(set, EPOLL_CTL_ADD, ends[0], EPOLLIN, 7) == 0);
	copy = dup(set);
	close(set);
	CHECK(send(ends[1], "x", 1, 0) == 1);
	CHECK(event_of(copy, 5000) == 7);
	CHECK(watch(copy, EPOLL_CTL_MOD, ends[0], EPOLLIN, 8) == 0);
	CHECK(event_of(copy, 5000) == 8);
	CHECK(watch(copy, EPOLL_CTL_DEL, ends[0], 0, 0) == 0);
	CHECK(event_of(copy, 10) == 0);
	close(copy);
	close_pair();
}

/* What the kernel says of sockets in general: the instance waits until the last copy is closed, in whichever process. */
static void a_closed_socket_is_told_of_that_another_process_has_open(void)
{
	int set = epoll_create1(0);
	char byte;
	open_pair(SOCK_STREAM);
	CHECK(watch(set, EPOLL_CTL_ADD, ends[0], EPOLLIN, 7) == 0);
	pid_t child = fork();
	if (child == 0) {
		pause();
		_exit(0);
	}
	close(ends[0]);
	CHECK(send(ends[1], "x", 1, 0) == 1);
	CHECK(event_of(set, 5000) == 7);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	CHECK(recv(ends[1], &byte, 1, 0) == -1);
	CHECK(event_of(set, 10) == 0);
	close(ends[1]);
	close(set);
}

static void limits_that_are_none_are_refused(void)
{
	struct timespec backwards = { -1, 0 }, overfull = { 0, 1000000000 }, for_ever = { INT64_MAX, 999999999 };
	char byte;
	struct iovec part = { &byte, 1 };
	struct mmsghdr message = { .msg_hdr = { .msg_iov = &part, .msg_iovlen = 1 } };
	open_pair(SOCK_RDM);
	struct pollfd entry = { ends[0], POLLIN, 0 };
	fd_set set;
	CHECK(send(ends[1], "x", 1, 0) == 1);
	for (struct timespec *limit = &backwards; limit; limit = limit == &backwards ? &overfull : NULL) {
		CHECK_FAILS(recvmmsg(ends[0], &message, 1, 0, limit), EINVAL);
		CHECK_FAILS(ppoll(&entry, 1, limit, NULL), EINVAL);
		FD_ZERO(&set);
		FD_SET(ends[0], &set);
		CHECK_FAILS(pselect(ends[0] + 1, &set, NULL, NULL, limit, NULL), EINVAL);
	}
	CHECK(ppoll(&entry, 1, &for_ever, NULL) == 1);
	CHECK(recvmmsg(ends[0], &message, 1, 0, &for_ever) == 1);
	close_pair();
}

static void parts_behind_a_message_stay_as_they_are(void)
{
	char bytes[8] = "........";
	struct iovec parts[2] = { { bytes, 3 }, { bytes + 3, 5 } };
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
	open_pair(SOCK_SEQPACKET);
	CHECK(send(ends[1], "abcd", 4, 0) == 4);
	CHECK(recvmsg(ends[0], &message, 0) == 4 && memcmp(bytes, "abcd....", 8) == 0);
	CHECK(send(ends[1], "x", 1, 0) == 1);
	CHECK(readv(ends[0], parts, 2) == 1 && memcmp(bytes, "xbcd....", 8) == 0);
	close_pair();
}

static void memory_that_is_none_is_refused(void)
{
	char byte = 'x';
	struct iovec parts[2] = { { &byte, 1 }, { &byte, SIZE_MAX } };
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
	open_pair(SOCK_STREAM);
	CHECK_FAILS(writev(ends[1], parts, 2), EINVAL);
	CHECK_FAILS(sendmsg(ends[1], &message, 0), EINVAL);
	CHECK_FAILS(send(ends[1], &byte, SIZE_MAX, 0), EFAULT);
	CHECK(send(ends[1], &byte, 1, 0) == 1);
	CHECK_FAILS(readv(ends[0], parts, 2), EINVAL);
	CHECK_FAILS(recvmsg(ends[0], &message, 0), EINVAL);
	/* More than a call moves is as if it were not there. */
	parts[1].iov_len = SIZE_MAX / 2;
	CHECK(readv(ends[0], parts, 2) == 1);
	struct pollfd entry = { ends[0], POLLIN, 0 };
	volatile nfds_t count = -1;
	CHECK_FAILS(poll(&entry, count, 0), EINVAL);
	close_pair();
}

static void types_that_are_none_are_refused(void)
{
	CHECK_FAILS(socket(AF_TIPC, 11, 0), EINVAL);
	CHECK_FAILS(socket(AF_TIPC, -1, 0), EINVAL);
	CHECK_FAILS(socket(AF_TIPC, SOCK_RDM | 0x100000, 0), EINVAL);
	CHECK_FAILS(socketpair(AF_TIPC, SOCK_RDM | 0x40, 0, ends), EINVAL);
	CHECK_FAILS(socket(AF_TIPC, SOCK_RAW, 0), EPROTOTYPE);
	CHECK_FAILS(socket(AF_TIPC, 0, 0), EPROTOTYPE);
}

static void a_process_with_all_descriptors_it_may_have_accepts_later(void)
{
	struct rlimit before, now;
	struct sockaddr_tipc name = { .family = AF_TIPC, .addrtype = TIPC_ADDR_NAME, .scope = TIPC_NODE_SCOPE };
	int listener = socket(AF_TIPC, SOCK_STREAM, 0), client = socket(AF_TIPC, SOCK_STREAM | SOCK_NONBLOCK, 0), server;
	name.addr.name.name.type = 42000;
	name.addr.name.name.instance = getpid();
	CHECK(bind(listener, (struct sockaddr *)&name, sizeof name) == 0 && listen(listener, 0) == 0);
	CHECK_FAILS(connect(client, (struct sockaddr *)&name, sizeof name), EINPROGRESS);
	getrlimit(RLIMIT_NOFILE, &before);
	now = before;
	now.rlim_cur = dup(client);
	close(now.rlim_cur);
	setrlimit(RLIMIT_NOFILE, &now);
	CHECK_FAILS(socket(AF_TIPC, SOCK_RDM, 0), EMFILE);
	CHECK_FAILS(accept(listener, NULL, NULL), EMFILE);
	setrlimit(RLIMIT_NOFILE, &before);
	server = accept(listener, NULL, NULL);
	CHECK(server >= 0 && send(server, "x", 1, 0) == 1);
	struct pollfd entry = { client, POLLIN, 0 };
	CHECK(poll(&entry, 1, 5000) == 1 && entry.revents == POLLIN);
	close(server);
	close(client);
	close(listener);
}

/* The number is free for whatever is opened next. */
/* Each child is a process of its own, which opens more than one descriptor for its first socket. */
static void a_process_with_room_for_few_descriptors_is_told_so(void)
{
	for (int room = 0; room < 12; room++) {
		pid_t child = fork();
		int status;
		if (child == 0) {
			struct rlimit limit;
			int first = dup(0);
			close(first);
			getrlimit(RLIMIT_NOFILE, &limit);
			limit.rlim_cur = first + room;
			setrlimit(RLIMIT_NOFILE, &limit);
			_exit(socket(AF_TIPC, SOCK_RDM, 0) >= 0 || errno == EMFILE ? 0 : errno);
		}
		CHECK(waitpid(child, &status, 0) == child);
		CHECK(status == 0);
	}
}

static void a_socket_is_closed_with_its_stream(void)
{
	char byte;
	open_pair(SOCK_STREAM);
	FILE *stream = fdopen(ends[0], "r");
	CHECK(stream && fclose(stream) == 0);
	CHECK_FAILS(recv(ends[1], &byte, 1, 0), ECONNRESET);
	int pipe_ends[2];
	CHECK(pipe(pipe_ends) == 0 && pipe_ends[0] == ends[0]);
	CHECK(write(pipe_ends[1], "x", 1) == 1);
	CHECK(read(pipe_ends[0], &byte, 1) == 1);
	close(pipe_ends[0]);
	close(pipe_ends[1]);
	close(ends[1]);
}

static void *receive(void *bytes)
{
	return (void *)recv(ends[0], bytes, 8, 0);
}

static void a_call_goes_on_when_its_descriptor_is_closed(void)
{
	struct timespec a_while = { 0, 100000000 };
	for (int by_copy = 0; by_copy < 2; by_copy++) {
		char bytes[8];
		pthread_t thread;
		void *received;
		open_pair(SOCK_SEQPACKET);
		CHECK(pthread_create(&thread, NULL, receive, bytes) == 0);
		nanosleep(&a_while, NULL);
		CHECK(by_copy ? dup2(0, ends[0]) == ends[0] : close(ends[0]) == 0);
		nanosleep(&a_while, NULL);
		CHECK(send(ends[1], "last", 4, 0) == 4);
		CHECK(pthread_join(thread, &received) == 0 && (ssize_t)received == 4);
		CHECK_FAILS(recv(ends[1], bytes, 8, 0), ECONNRESET);
		if (by_copy)
			close(ends[0]);
		close(ends[1]);
	}
}

static void do_nothing(int signal)
{
	(void)signal;
}

static void *receive_until_interrupted(void *unused)
{
	char bytes[8];
	(void)unused;
	errno = 0;
	return (void *)(intptr_t)(recv(ends[0], bytes, sizeof bytes, 0) == -1 && errno == EINTR);
}

static void a_signal_ends_the_wait_of_whichever_thread_gets_it(void)
{
	struct sigaction action = { .sa_handler = do_nothing };
	struct timespec a_while = { 0, 50000000 };
	pthread_t threads[3];
	open_pair(SOCK_RDM);
	sigaction(SIGUSR1, &action, NULL);
	for (int i = 0; i < 3; i++)
		CHECK(pthread_create(&threads[i], NULL, receive_until_interrupted, NULL) == 0);
	for (int i = 2; i >= 0; i--) {
		void *interrupted;
		/* It may not have begun to wait. */
		do {
			pthread_kill(threads[i], SIGUSR1);
			nanosleep(&a_while, NULL);
		} while (pthread_tryjoin_np(threads[i], &interrupted) == EBUSY);
		CHECK(interrupted);
	}
	close_pair();
}

static int aside[2];
static volatile sig_atomic_t handled;

static void send_aside(int signal)
{
	(void)signal;
	int before = errno, own = socket(AF_TIPC, SOCK_RDM, 0);
	char bytes[8];
	struct pollfd entry = { aside[0], POLLIN, 0 };
	CHECK(own >= 0 && close(own) == 0);
	CHECK(send(aside[1], "aside", 5, 0) == 5);
	CHECK(poll(&entry, 1, 1000) == 1);
	CHECK(recv(aside[0], bytes, sizeof bytes, 0) == 5);
	if (++handled == 3)
		CHECK(send(ends[1], "end", 3, 0) == 3);
	errno = before;
}

/* What the handler calls are functions that handlers may call. */
static void a_handler_sends_and_receives_as_its_thread_waits(void)
{
	struct sigaction action = { .sa_handler = send_aside, .sa_flags = SA_RESTART };
	struct itimerval often = { { 0, 200000 }, { 0, 200000 } }, never = { { 0, 0 }, { 0, 0 } };
	char bytes[8];
	open_pair(SOCK_SEQPACKET);
	CHECK(socketpair(AF_TIPC, SOCK_RDM, 0, aside) == 0);
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	CHECK(recv(ends[0], bytes, sizeof bytes, 0) == 3);
	setitimer(ITIMER_REAL, &never, NULL);
	CHECK(handled >= 3);
	close(aside[0]);
	close(aside[1]);
	close_pair();
}

int main(void)
{
	an_instance_waits_exclusively();
	what_tipc_never_tells_is_waited_for_in_vain();
	an_instance_is_waited_for_by_its_copy();
	a_closed_socket_is_told_of_that_another_process_has_open();
	limits_that_are_none_are_refused();
	parts_behind_a_message_stay_as_they_are();
	memory_that_is_none_is_refused();
	types_that_are_none_are_refused();
	a_process_with_all_descriptors_it_may_have_accepts_later();
	a_process_with_room_for_few_descriptors_is_told_so();
	a_socket_is_closed_with_its_stream();
	a_call_goes_on_when_its_descriptor_is_closed();
	a_signal_ends_the_wait_of_whichever_thread_gets_it();
	a_handler_sends_and_receives_as_its_thread_waits();
	return failures;
}
