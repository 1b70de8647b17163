/* The functions of xtipc/tipcc.h by the sockets of a kernel with TIPC: put in the place of libxtipc.so.1, it has the programs of all languages
 * run on a Linux node as they are. */
#include <errno.h>
#include <fcntl.h>
#include <linux/tipc.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <xtipc/tipcc.h>

enum { RETURNED_MAX = 1024, ALL = TIPC_SUB_PORTS, EDGES = TIPC_SUB_SERVICE };

static struct sockaddr_tipc name_of(const struct tipc_addr *addr)
{
	struct sockaddr_tipc name = { .family = AF_TIPC };

	if (addr->type) {
		name.addrtype = TIPC_SERVICE_ADDR;
		name.addr.name.name.type = addr->type;
		name.addr.name.name.instance = addr->instance;
		name.addr.name.domain = addr->node;
	} else {
		name.addrtype = TIPC_SOCKET_ADDR;
		name.addr.id.ref = addr->instance;
		name.addr.id.node = addr->node;
	}
	return name;
}

static struct tipc_addr socket_of(const struct sockaddr_tipc *name)
{
	return (struct tipc_addr){ 0, name->addr.id.ref, name->addr.id.node };
}

static int failed(int number)
{
	errno = number;
	return -1;
}

static int set(int sd, int option, uint32_t value)
{
	return setsockopt(sd, SOL_TIPC, option, &value, sizeof value);
}

/* 0 for a number that is of another node. */
static int scope_of(uint32_t node)
{
	if (!node)
		return TIPC_CLUSTER_SCOPE;
	return node == tipc_own_node() ? TIPC_NODE_SCOPE : 0;
}

static int bind_at(int sd, uint32_t type, uint32_t lower, uint32_t upper, int scope)
{
	struct sockaddr_tipc name = { .family = AF_TIPC, .addrtype = TIPC_SERVICE_RANGE, .scope = scope };

	name.addr.nameseq = (struct tipc_service_range){ type, lower, upper };
	return bind(sd, (struct sockaddr *)&name, sizeof name);
}

uint32_t tipc_own_node(void)
{
	struct tipc_addr own = { 0 };
	int sd = tipc_socket(SOCK_RDM | SOCK_CLOEXEC);

	tipc_sockaddr(sd, &own);
	close(sd);
	return own.node;
}

char *tipc_ntoa(const struct tipc_addr *addr, char *buf, size_t len)
{
	snprintf(buf, len, addr->type ? "%u:%u@%x" : "%u:%010u@%x", addr->type, addr->instance, addr->node);
	return buf;
}

char *tipc_rtoa(uint32_t type, uint32_t lower, uint32_t upper, uint32_t node, char *buf, size_t len)
{
	snprintf(buf, len, "%u:%u:%u@%x", type, lower, upper, node);
	return buf;
}

char *tipc_linkname(char *buf, size_t len, uint32_t peer, int bearerid)
{
	struct tipc_sioc_ln_req request = { .peer = peer, .bearer_id = bearerid };
	int sd = tipc_socket(SOCK_RDM | SOCK_CLOEXEC);

	if (ioctl(sd, SIOCGETLINKNAME, &request) < 0)
		request.linkname[0] = 0;
	close(sd);
	snprintf(buf, len, "%s", request.linkname);
	return buf;
}

int tipc_socket(int sk_type)
{
	return socket(AF_TIPC, sk_type, 0);
}

int tipc_sock_non_block(int sd)
{
	int flags = fcntl(sd, F_GETFL);

	return flags < 0 || fcntl(sd, F_SETFL, flags | O_NONBLOCK) < 0 ? -1 : sd;
}

int tipc_sock_rejectable(int sd)
{
	return set(sd, TIPC_DEST_DROPPABLE, 0);
}

int tipc_sock_importance(int sd, uint32_t priority)
{
	return set(sd, TIPC_IMPORTANCE, priority);
}

int tipc_close(int sd)
{
	return close(sd);
}

int tipc_sockaddr(int sd, struct tipc_addr *addr)
{
	struct sockaddr_tipc name;
	socklen_t len = sizeof name;
	int done = getsockname(sd, (struct sockaddr *)&name, &len);

	if (!done)
		*addr = socket_of(&name);
	return done;
}

int tipc_bind(int sd, uint32_t type, uint32_t lower, uint32_t upper, uint32_t scope)
{
	int known = scope_of(scope);

	return known ? bind_at(sd, type, lower, upper, known) : failed(EINVAL);
}

int tipc_unbind(int sd, uint32_t type, uint32_t lower, uint32_t upper)
{
	int done = bind_at(sd, type, lower, upper, -TIPC_CLUSTER_SCOPE);

	return done ? bind_at(sd, type, lower, upper, -TIPC_NODE_SCOPE) : 0;
}

int tipc_connect(int sd, const struct tipc_addr *dst)
{
	struct sockaddr_tipc name = name_of(dst);

	return connect(sd, (struct sockaddr *)&name, sizeof name);
}

int tipc_listen(int sd, int backlog)
{
	return listen(sd, backlog);
}

int tipc_accept(int sd, struct tipc_addr *src)
{
	struct sockaddr_tipc name;
	socklen_t len = sizeof name;
	int accepted = accept(sd, (struct sockaddr *)&name, &len);

	if (accepted >= 0 && src)
		*src = socket_of(&name);
	return accepted;
}

int tipc_join(int sd, struct tipc_addr *member, bool events, bool loopback)
{
	struct tipc_group_req request = { member->type, member->instance, scope_of(member->node), 0 };

	if (!request.scope)
		return failed(EINVAL);
	request.flags = (events ? TIPC_GROUP_MEMBER_EVTS : 0) | (loopback ? TIPC_GROUP_LOOPBACK : 0);
	return setsockopt(sd, SOL_TIPC, TIPC_GROUP_JOIN, &request, sizeof request);
}

int tipc_leave(int sd)
{
	return setsockopt(sd, SOL_TIPC, TIPC_GROUP_LEAVE, NULL, 0);
}

int tipc_send(int sd, const void *msg, size_t len)
{
	return send(sd, msg, len, 0);
}

int tipc_sendmsg(int sd, const struct msghdr *msg)
{
	return sendmsg(sd, msg, 0);
}

int tipc_sendto(int sd, const void *msg, size_t len, const struct tipc_addr *dst)
{
	struct sockaddr_tipc name = name_of(dst);

	return sendto(sd, msg, len, 0, (struct sockaddr *)&name, sizeof name);
}

int tipc_mcast(int sd, const void *msg, size_t len, const struct tipc_addr *dst)
{
	struct sockaddr_tipc name = { .family = AF_TIPC, .addrtype = TIPC_SERVICE_RANGE };

	if (!scope_of(dst->node))
		return failed(EINVAL);
	name.addr.nameseq = (struct tipc_service_range){ dst->type, dst->instance, dst->instance };
	return sendto(sd, msg, len, 0, (struct sockaddr *)&name, sizeof name);
}

int tipc_recv(int sd, void *buf, size_t len, bool waitall)
{
	return recv(sd, buf, len, waitall ? MSG_WAITALL : 0);
}

int tipc_recvfrom(int sd, void *buf, size_t len, struct tipc_addr *socket, struct tipc_addr *member, int *err)
{
	struct sockaddr_tipc names[2] = { 0 };
	_Alignas(struct cmsghdr) char control[3 * CMSG_SPACE(0) + 32 + RETURNED_MAX];
	struct iovec part = { buf, len };
	struct msghdr msg = { names, sizeof names, &part, 1, control, sizeof control, 0 };
	int received = recvmsg(sd, &msg, 0), code = 0;
	struct tipc_addr source;

	if (received < 0)
		return received;
	source = socket_of(&names[0]);
	for (struct cmsghdr *part_of = CMSG_FIRSTHDR(&msg); part_of; part_of = CMSG_NXTHDR(&msg, part_of)) {
		size_t count = part_of->cmsg_len - CMSG_LEN(0);

		if (part_of->cmsg_level != SOL_TIPC)
			continue;
		if (part_of->cmsg_type == TIPC_ERRINFO) {
			memcpy(&code, CMSG_DATA(part_of), sizeof code);
			tipc_sockaddr(sd, &source);
			received = 0;
		} else if (part_of->cmsg_type == TIPC_RETDATA && err) {
			received = count < len ? count : len;
			memcpy(buf, CMSG_DATA(part_of), received);
		}
	}
	if (!code && msg.msg_flags & MSG_OOB) {
		received = 0;
		code = msg.msg_flags & MSG_EOR ? -1 : 0;
	}
	if (socket)
		*socket = source;
	if (member)
		*member = (struct tipc_addr){ names[1].addr.name.name.type, names[1].addr.name.name.instance, 0 };
	if (err)
		*err = code;
	return received;
}

static int closed(int sd)
{
	int number = errno;

	close(sd);
	return failed(number);
}

int tipc_topsrv_conn(uint32_t topsrv_node)
{
	struct tipc_addr service = { TIPC_TOP_SRV, TIPC_TOP_SRV, topsrv_node };
	int sd = tipc_socket(SOCK_SEQPACKET);

	return sd >= 0 && tipc_connect(sd, &service) ? closed(sd) : sd;
}

int tipc_srv_subscr(int sd, uint32_t type, uint32_t lower, uint32_t upper, bool all, int expire)
{
	struct tipc_subscr request = { { type, lower, upper }, expire < 0 ? TIPC_WAIT_FOREVER : (uint32_t)expire, all ? ALL : EDGES, { 0 } };

	return send(sd, &request, sizeof request, 0) == sizeof request ? 0 : -1;
}

static int next(int sd, struct tipc_event *event)
{
	int received = recv(sd, event, sizeof *event, 0);

	return received == sizeof *event ? 0 : received < 0 ? -1 : failed(ECONNRESET);
}

int tipc_srv_evt(int sd, struct tipc_addr *srv, struct tipc_addr *addr, bool *up, bool *expired)
{
	struct tipc_event event;

	if (next(sd, &event))
		return -1;
	if (expired)
		*expired = event.event == TIPC_SUBSCR_TIMEOUT;
	if (event.event == TIPC_SUBSCR_TIMEOUT)
		return 0;
	if (srv)
		*srv = (struct tipc_addr){ event.s.seq.type, event.found_lower, event.port.node };
	if (addr)
		*addr = socket_of(&(struct sockaddr_tipc){ .addr.id = event.port });
	if (up)
		*up = event.event == TIPC_PUBLISHED;
	return 0;
}

bool tipc_srv_wait(const struct tipc_addr *srv, int expire)
{
	struct tipc_addr found = { 0 };
	bool up = false, expired = false, all = srv->node;
	int sd = tipc_topsrv_conn(0);

	if (sd < 0 || tipc_srv_subscr(sd, srv->type, srv->instance, srv->instance, all, expire))
		expired = true;
	while (!expired && !(up && (!all || found.node == srv->node)))
		expired = tipc_srv_evt(sd, &found, NULL, &up, &expired) < 0 || expired;
	closed(sd);
	return !expired;
}

static int subscribed(uint32_t topsrv_node, uint32_t service)
{
	int sd = tipc_topsrv_conn(topsrv_node);

	return sd >= 0 && tipc_srv_subscr(sd, service, 0, ~0u, true, -1) ? closed(sd) : sd;
}

int tipc_neigh_subscr(uint32_t topsrv_node)
{
	return subscribed(topsrv_node, TIPC_NODE_STATE);
}

int tipc_neigh_evt(int sd, uint32_t *neigh_node, bool *up)
{
	return tipc_link_evt(sd, neigh_node, up, NULL, NULL);
}

int tipc_link_subscr(uint32_t topsrv_node)
{
	return subscribed(topsrv_node, TIPC_LINK_STATE);
}

int tipc_link_evt(int sd, uint32_t *neigh_node, bool *up, int *local_bearerid, int *remote_bearerid)
{
	struct tipc_event event;

	if (next(sd, &event))
		return -1;
	if (neigh_node)
		*neigh_node = event.found_lower;
	if (up)
		*up = event.event == TIPC_PUBLISHED;
	if (local_bearerid)
		*local_bearerid = event.port.ref & 0xffff;
	if (remote_bearerid)
		*remote_bearerid = event.port.ref >> 16;
	return 0;
}

int xtipc_poll(struct pollfd *fds, nfds_t count, int timeout);
int xtipc_poll(struct pollfd *fds, nfds_t count, int timeout)
{
	return poll(fds, count, timeout);
}
