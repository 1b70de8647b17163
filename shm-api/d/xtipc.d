/**
 * TIPC sockets of xtipc: what libxtipc(3) does, with typed addresses, messages and events. Link it with -lxtipc.
 *
 * Calls that fail throw an ErrnoException.
 */
module xtipc;

import core.stdc.errno : EINTR, errno;
import core.time : Duration;
import std.exception : ErrnoException;
import std.format : format;
import std.sumtype : SumType;

/// A service address; where `type` is 0 the address of a socket, `instance` being its port.
struct Address
{
    uint type;
    uint instance;
    uint node;

    string toString() const
    {
        return type ? format("%s:%s@%x", type, instance, node) : format("0:%010d@%x", instance, node);
    }
}

/// The functions of the library, as in xtipc/tipcc.h.
extern (C) nothrow @nogc
{
    uint tipc_own_node();
    int tipc_socket(int kind);
    int tipc_sock_non_block(int sd);
    int tipc_sock_rejectable(int sd);
    int tipc_sock_importance(int sd, uint importance);
    int tipc_close(int sd);
    int tipc_sockaddr(int sd, Address* address);
    int tipc_bind(int sd, uint type, uint lower, uint upper, uint scope_);
    int tipc_unbind(int sd, uint type, uint lower, uint upper);
    int tipc_connect(int sd, const(Address)* to);
    int tipc_listen(int sd, int backlog);
    int tipc_accept(int sd, Address* source);
    int tipc_join(int sd, Address* member, bool events, bool loopback);
    int tipc_leave(int sd);
    int tipc_send(int sd, const(void)* data, size_t len);
    int tipc_sendto(int sd, const(void)* data, size_t len, const(Address)* to);
    int tipc_mcast(int sd, const(void)* data, size_t len, const(Address)* to);
    int tipc_recv(int sd, void* room, size_t len, bool all);
    int tipc_recvfrom(int sd, void* room, size_t len, Address* source, Address* member, int* code);
    int tipc_topsrv_conn(uint node);
    int tipc_srv_subscr(int sd, uint type, uint lower, uint upper, bool all, int expire);
    int tipc_srv_evt(int sd, Address* service, Address* socket, bool* up, bool* expired);
    bool tipc_srv_wait(const(Address)* service, int expire);
    int tipc_neigh_subscr(uint node);
    int tipc_neigh_evt(int sd, uint* neighbour, bool* up);
    int tipc_link_subscr(uint node);
    int tipc_link_evt(int sd, uint* neighbour, bool* up, int* ownBearer, int* peerBearer);
}

/// Types of sockets.
enum Kind
{
    stream = 1,
    dgram = 2,
    rdm = 4,
    seqpacket = 5,
}

/// Scope of a binding: the whole cluster. The other one is the number of this node.
enum uint cluster = 0;
private enum closeOnExec = 0x80000;
private enum lengthMax = 66_000;

/// Something received; `member` is the sender's address in the group, if it came from a member, else its type is 0.
struct Message
{
    ubyte[] data;
    Address source;
    Address member;
}

/// A message of one's own that came back, or what was left of it, with TIPC's code for why; or the end of a connection.
struct Rejected
{
    ubyte[] data;
    int code;
}

/// A member of the group is there.
struct Joined
{
    Address member;
    Address source;
}

/// A member of the group has left.
struct Left
{
    Address member;
    Address source;
}

/// What a socket receives.
alias Received = SumType!(Message, Rejected, Joined, Left);

/// A service is bound by a socket.
struct Published
{
    Address service;
    Address socket;
}

/// A service is no longer bound by a socket.
struct Withdrawn
{
    Address service;
    Address socket;
}

/// The time of a subscription is over.
struct Expired
{
}

/// What is told of services.
alias ServiceEvent = SumType!(Published, Withdrawn, Expired);

/// Whether a node can be reached.
struct NodeEvent
{
    uint node;
    bool up;
}

/// Whether a link to a node is up; the bearers are numbers.
struct LinkEvent
{
    uint node;
    bool up;
    int ownBearer;
    int peerBearer;
}

/// Calls a function until no signal interrupts it.
private int call(alias f, Arguments...)(Arguments arguments)
{
    for (;;)
    {
        immutable result = f(arguments);
        if (result >= 0)
            return result;
        if (errno != EINTR)
            throw new ErrnoException(__traits(identifier, f));
    }
}

private int millis(Duration timeout)
{
    return timeout.isNegative ? -1 : cast(int) timeout.total!"msecs";
}

/// The number of this node; 0 as long as it has none.
uint ownNode()
{
    return tipc_own_node();
}

/// Waits until a service is bound, for so long at most; tells whether it is.
bool waitFor(Address service, Duration timeout)
{
    return tipc_srv_wait(&service, millis(timeout));
}

/// A socket. Closed when it goes out of scope.
struct Socket
{
    private int sd = -1;

    @disable this(this);

    /// Makes one.
    this(Kind kind)
    {
        sd = call!tipc_socket(kind | closeOnExec);
    }

    ~this()
    {
        if (sd >= 0)
            tipc_close(sd);
    }

    /// The descriptor.
    int fileno() const
    {
        return sd;
    }

    /// Its own address.
    Address address() const
    {
        Address address;
        call!tipc_sockaddr(sd, &address);
        return address;
    }

    /// Has messages come back that cannot be delivered.
    void setRejectable()
    {
        call!tipc_sock_rejectable(sd);
    }

    /// Importance of what is sent from now on, 0 to 3.
    void setImportance(uint importance)
    {
        call!tipc_sock_importance(sd, importance);
    }

    /// Binds it to a service range.
    void bind(uint type, uint lower, uint upper, uint scope_ = cluster)
    {
        call!tipc_bind(sd, type, lower, upper, scope_);
    }

    /// Takes a binding back, given as it was made.
    void unbind(uint type, uint lower, uint upper)
    {
        call!tipc_unbind(sd, type, lower, upper);
    }

    /// Connects to a socket that listens; of a datagram socket, where `send` sends to.
    void connect(Address to)
    {
        call!tipc_connect(sd, &to);
    }

    /// Lets others connect.
    void listen()
    {
        call!tipc_listen(sd, 0);
    }

    /// Accepts a connection: its socket.
    Socket accept()
    {
        Socket accepted;
        accepted.sd = call!tipc_accept(sd, null);
        return accepted;
    }

    /// Joins a group.
    void join(uint type, uint instance, bool events = true, bool loopback = false, uint scope_ = cluster)
    {
        auto member = Address(type, instance, scope_);
        call!tipc_join(sd, &member, events, loopback);
    }

    /// Leaves the group.
    void leave()
    {
        call!tipc_leave(sd);
    }

    /// Sends to the peer of a connection, the default destination, or all members of the group; gives how many bytes.
    size_t send(const(void)[] data)
    {
        return call!tipc_send(sd, data.ptr, data.length);
    }

    /// Sends to a socket, or to one of those that are bound to the service address.
    void sendTo(const(void)[] data, Address to)
    {
        call!tipc_sendto(sd, data.ptr, data.length, &to);
    }

    /// Sends to all that are bound to the service address.
    void multicast(const(void)[] data, Address to)
    {
        call!tipc_mcast(sd, data.ptr, data.length, &to);
    }

    /// Receives a message, or what else there is to be told.
    Received receive()
    {
        auto room = new ubyte[lengthMax];
        Address source, member;
        int code;
        immutable size = call!tipc_recvfrom(sd, room.ptr, room.length, &source, &member, &code);
        auto data = room[0 .. size];
        if (code > 0)
            return Received(Rejected(data, code));
        if (code < 0)
            return Received(Left(member, source));
        if (size == 0 && member.type != 0)
            return Received(Joined(member, source));
        return Received(Message(data, source, member));
    }
}

/// Tells of services.
struct Services
{
    private Socket socket;

    /// Connects to the topology service of a node, 0 being any.
    static Services open(uint node = 0)
    {
        Services services;
        services.socket.sd = call!tipc_topsrv_conn(node);
        return services;
    }

    /// Asks for events of a service range: of each binding (`all`), or of the first and the last one; for so long, or for good if
    /// that is below 0.
    void subscribe(uint type, uint lower, uint upper, Duration timeout, bool all = true)
    {
        call!tipc_srv_subscr(socket.sd, type, lower, upper, all, millis(timeout));
    }

    /// Waits for the next event.
    ServiceEvent next()
    {
        Address service, publisher;
        bool up, expired;
        call!tipc_srv_evt(socket.sd, &service, &publisher, &up, &expired);
        if (expired)
            return ServiceEvent(Expired());
        return up ? ServiceEvent(Published(service, publisher)) : ServiceEvent(Withdrawn(service, publisher));
    }
}

/// Tells of nodes, this one among them.
struct Nodes
{
    private Socket socket;

    /// Asks for them at a node, 0 being any.
    static Nodes open(uint node = 0)
    {
        Nodes nodes;
        nodes.socket.sd = call!tipc_neigh_subscr(node);
        return nodes;
    }

    /// Waits for the next event.
    NodeEvent next()
    {
        NodeEvent event;
        call!tipc_neigh_evt(socket.sd, &event.node, &event.up);
        return event;
    }
}

/// Tells of links.
struct Links
{
    private Socket socket;

    /// Asks for them at a node, 0 being any.
    static Links open(uint node = 0)
    {
        Links links;
        links.socket.sd = call!tipc_link_subscr(node);
        return links;
    }

    /// Waits for the next event.
    LinkEvent next()
    {
        LinkEvent event;
        call!tipc_link_evt(socket.sd, &event.node, &event.up, &event.ownBearer, &event.peerBearer);
        return event;
    }
}
