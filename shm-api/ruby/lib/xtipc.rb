# frozen_string_literal: true

require "fiddle"
require "fiddle/import"

# TIPC sockets of xtipc: what libxtipc(3) does, with typed addresses, messages and events.
#
#   XTIPC::Socket.open(XTIPC::RDM) do |server|
#     server.bind(18888, 17)
#     request = server.receive
#     server.send_to("hello", request.source)
#   end
#
# Loads libxtipc.so.1, or what the environment variable XTIPC_LIBRARY names. Errors are SystemCallError, as those of sockets are.
module XTIPC
  STREAM, DGRAM, RDM, SEQPACKET = 1, 2, 4, 5
  # Scope of a binding: the whole cluster. The other one is the number of this node.
  CLUSTER = 0
  CLOSE_ON_EXEC = 0o2000000
  LENGTH_MAX = 66_000
  private_constant :CLOSE_ON_EXEC, :LENGTH_MAX

  # A service address; where +type+ is 0 the address of a socket, +instance+ being its port.
  Address = Struct.new(:type, :instance, :node) do
    def initialize(type, instance, node = 0)
      super
    end

    def to_s
      format(type.zero? ? "%u:%010u@%x" : "%u:%u@%x", *self)
    end
  end

  # Something received; +member+ is the sender's address in the group, if it came from a member.
  Message = Struct.new(:data, :source, :member)
  # A message of one's own that came back, or what was left of it, with TIPC's code for why; or the end of a connection.
  Rejected = Struct.new(:data, :code)
  # A member of the group is there.
  Joined = Struct.new(:member, :source)
  # A member of the group has left.
  Left = Struct.new(:member, :source)
  # A service is bound by a socket.
  Published = Struct.new(:service, :socket)
  # A service is no longer bound by a socket.
  Withdrawn = Struct.new(:service, :socket)
  # The time of a subscription is over.
  Expired = Class.new
  # A node can be reached, or no longer.
  NodeUp = Struct.new(:node)
  NodeDown = Struct.new(:node)
  # A link to a node is up, or down; the bearers are numbers.
  LinkUp = Struct.new(:node, :own_bearer, :peer_bearer)
  LinkDown = Struct.new(:node, :own_bearer, :peer_bearer)

  # The functions of the library.
  module Library
    LOADED = Fiddle.dlopen(ENV.fetch("XTIPC_LIBRARY", "libxtipc.so.1"))
    INT, WORD, SIZE, POINTER, FLAG = Fiddle::TYPE_INT, -Fiddle::TYPE_INT, Fiddle::TYPE_SIZE_T, Fiddle::TYPE_VOIDP, Fiddle::TYPE_CHAR
    FUNCTIONS = {
      own_node: [[], WORD], socket: [[INT]], sock_rejectable: [[INT]], sock_importance: [[INT, WORD]], close: [[INT]],
      sockaddr: [[INT, POINTER]], bind: [[INT, WORD, WORD, WORD, WORD]], unbind: [[INT, WORD, WORD, WORD]],
      connect: [[INT, POINTER]], listen: [[INT, INT]], accept: [[INT, POINTER]], join: [[INT, POINTER, FLAG, FLAG]], leave: [[INT]],
      send: [[INT, POINTER, SIZE]], sendto: [[INT, POINTER, SIZE, POINTER]], mcast: [[INT, POINTER, SIZE, POINTER]],
      recvfrom: [[INT, POINTER, SIZE, POINTER, POINTER, POINTER]], topsrv_conn: [[WORD]],
      srv_subscr: [[INT, WORD, WORD, WORD, FLAG, INT]], srv_evt: [[INT, POINTER, POINTER, POINTER, POINTER]],
      neigh_subscr: [[WORD]], neigh_evt: [[INT, POINTER, POINTER]],
      link_subscr: [[WORD]], link_evt: [[INT, POINTER, POINTER, POINTER, POINTER]]
    }.to_h { |name, (arguments, result)| [name, Fiddle::Function.new(LOADED["tipc_#{name}"], arguments, result || INT)] }.freeze

    # Calls a function until no signal interrupts it.
    def self.call(name, *arguments)
      loop do
        result = FUNCTIONS.fetch(name).call(*arguments)
        return result unless result.negative?

        error = SystemCallError.new("tipc_#{name}", Fiddle.last_error)
        raise error unless error.is_a?(Errno::EINTR)
      end
    end

    # Room for an address.
    def self.room
      "\0".b * 12
    end

    def self.raw(address)
      [address.type, address.instance, address.node].pack("L3")
    end

    def self.address(raw)
      Address.new(*raw.unpack("L3"))
    end
  end
  private_constant :Library

  # The number of this node; 0 as long as it has none.
  def self.own_node
    Library::FUNCTIONS[:own_node].call
  end

  # Waits until a service is bound, for at most so many seconds; tells whether it is.
  def self.wait_for(type, instance, timeout: nil)
    Services.open do |services|
      services.subscribe(type, instance, instance, all: false, timeout: timeout)
      return services.next.is_a?(Published)
    end
  end

  # A socket: RDM, DGRAM, SEQPACKET or STREAM.
  class Socket
    # With a block: closes it at the block's end.
    def self.open(...)
      socket = new(...)
      return socket unless block_given?

      begin
        yield socket
      ensure
        socket.close
      end
    end

    def initialize(kind = RDM, descriptor: nil)
      @descriptor = descriptor || Library.call(:socket, kind | CLOSE_ON_EXEC)
    end

    # Closes it. More than once does nothing.
    def close
      descriptor, @descriptor = @descriptor, nil
      Library.call(:close, descriptor) if descriptor
    end

    def fileno
      @descriptor
    end

    # Its own address.
    def address
      raw = Library.room
      Library.call(:sockaddr, @descriptor, raw)
      Library.address(raw)
    end

    # Has messages come back that cannot be delivered.
    def set_rejectable
      Library.call(:sock_rejectable, @descriptor)
    end

    # Importance of what is sent from now on, 0 to 3.
    def importance=(importance)
      Library.call(:sock_importance, @descriptor, importance)
    end

    # Binds it to a service address or range.
    def bind(type, lower, upper = lower, scope: CLUSTER)
      Library.call(:bind, @descriptor, type, lower, upper, scope)
    end

    # Takes a binding back, given as it was made.
    def unbind(type, lower, upper = lower)
      Library.call(:unbind, @descriptor, type, lower, upper)
    end

    # Connects to a socket that listens; of a datagram socket, where +send+ sends to.
    def connect(address)
      Library.call(:connect, @descriptor, Library.raw(address))
    end

    # Lets others connect.
    def listen
      Library.call(:listen, @descriptor, 0)
    end

    # Accepts a connection: its socket, and the address of who connected.
    def accept
      raw = Library.room
      [Socket.new(descriptor: Library.call(:accept, @descriptor, raw)), Library.address(raw)]
    end

    # Joins a group.
    def join(type, instance, events: true, loopback: false, scope: CLUSTER)
      Library.call(:join, @descriptor, Library.raw(Address.new(type, instance, scope)), events ? 1 : 0, loopback ? 1 : 0)
    end

    # Leaves the group.
    def leave
      Library.call(:leave, @descriptor)
    end

    # Sends to the peer of a connection, the default destination, or all members of the group; gives how many bytes.
    def send(data)
      Library.call(:send, @descriptor, data, data.bytesize)
    end

    # Sends to a socket, or to one of those that are bound to the service address.
    def send_to(data, address)
      Library.call(:sendto, @descriptor, data, data.bytesize, Library.raw(address))
    end

    # Sends to all that are bound to the service address.
    def multicast(data, address)
      Library.call(:mcast, @descriptor, data, data.bytesize, Library.raw(address))
    end

    # Receives a Message, or what else there is to be told: Rejected, Joined or Left.
    def receive
      room, source, member, code = "\0".b * LENGTH_MAX, Library.room, Library.room, "\0".b * 4
      size = Library.call(:recvfrom, @descriptor, room, LENGTH_MAX, source, member, code)
      code, source, member = code.unpack1("l"), Library.address(source), Library.address(member)
      data = room.byteslice(0, size)
      return Rejected.new(data, code) if code.positive?
      return Left.new(member, source) if code.negative?
      return Joined.new(member, source) if size.zero? && member.type.positive?

      Message.new(data, source, member.type.positive? ? member : nil)
    end
  end

  # What trackers have in common: each event is waited for by +next+, or +each+.
  class Tracker < Socket
    include Enumerable

    def each
      loop { yield self.next }
    end
  end

  # Events of services: Published, Withdrawn, Expired.
  class Services < Tracker
    def initialize(node = 0)
      super(descriptor: Library.call(:topsrv_conn, node))
    end

    # Asks for events of a service range: of each binding (+all+), or of the first and the last one; for so many seconds.
    def subscribe(type, lower, upper, all: true, timeout: nil)
      Library.call(:srv_subscr, @descriptor, type, lower, upper, all ? 1 : 0, timeout ? (timeout * 1000).round : -1)
    end

    def next
      service, socket, up, expired = Library.room, Library.room, "\0".b, "\0".b
      Library.call(:srv_evt, @descriptor, service, socket, up, expired)
      return Expired.new if expired != "\0"

      (up == "\0" ? Withdrawn : Published).new(Library.address(service), Library.address(socket))
    end
  end

  # Events of nodes: NodeUp, NodeDown. Tells of this node, too.
  class Nodes < Tracker
    def initialize(node = 0)
      super(descriptor: Library.call(:neigh_subscr, node))
    end

    def next
      node, up = "\0".b * 4, "\0".b
      Library.call(:neigh_evt, @descriptor, node, up)
      (up == "\0" ? NodeDown : NodeUp).new(node.unpack1("L"))
    end
  end

  # Events of links: LinkUp, LinkDown.
  class Links < Tracker
    def initialize(node = 0)
      super(descriptor: Library.call(:link_subscr, node))
    end

    def next
      node, up, own, peer = "\0".b * 4, "\0".b, "\0".b * 4, "\0".b * 4
      Library.call(:link_evt, @descriptor, node, up, own, peer)
      (up == "\0" ? LinkDown : LinkUp).new(*[node, own, peer].map { |word| word.unpack1("L") })
    end
  end
end
