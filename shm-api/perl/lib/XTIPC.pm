package XTIPC;

# TIPC sockets of xtipc: what libxtipc(3) does, as objects. See the documentation at the end.

use strict;
use warnings;
use Errno qw(EINTR);
use Exporter qw(import);
use FFI::Platypus;
use FFI::Platypus::Buffer qw(scalar_to_pointer);

our $VERSION = '0.1.0';
our @EXPORT_OK = qw(RDM DGRAM SEQPACKET STREAM CLUSTER own_node wait_for);

use constant { STREAM => 1, DGRAM => 2, RDM => 4, SEQPACKET => 5, CLUSTER => 0 };
use constant { CLOSE_ON_EXEC => 02000000, LENGTH_MAX => 66000, ADDRESS => 'L3', ADDRESS_LEN => 12 };

my $ffi = FFI::Platypus->new(api => 2, lib => [$ENV{XTIPC_LIBRARY} // 'libxtipc.so.1']);

my %function = (
    own_node => [[] => 'uint32'],
    socket => [['int'] => 'int'],
    sock_rejectable => [['int'] => 'int'],
    sock_importance => [['int', 'uint32'] => 'int'],
    close => [['int'] => 'int'],
    sockaddr => [['int', 'opaque'] => 'int'],
    bind => [['int', ('uint32') x 4] => 'int'],
    unbind => [['int', ('uint32') x 3] => 'int'],
    connect => [['int', 'opaque'] => 'int'],
    listen => [['int', 'int'] => 'int'],
    accept => [['int', 'opaque'] => 'int'],
    join => [['int', 'opaque', 'bool', 'bool'] => 'int'],
    leave => [['int'] => 'int'],
    send => [['int', 'opaque', 'size_t'] => 'int'],
    sendto => [['int', 'opaque', 'size_t', 'opaque'] => 'int'],
    mcast => [['int', 'opaque', 'size_t', 'opaque'] => 'int'],
    recvfrom => [['int', 'opaque', 'size_t', 'opaque', 'opaque', 'opaque'] => 'int'],
    topsrv_conn => [['uint32'] => 'int'],
    srv_subscr => [['int', ('uint32') x 3, 'bool', 'int'] => 'int'],
    srv_evt => [['int', ('opaque') x 4] => 'int'],
    srv_wait => [['opaque', 'int'] => 'bool'],
    neigh_subscr => [['uint32'] => 'int'],
    neigh_evt => [['int', 'opaque', 'opaque'] => 'int'],
    link_subscr => [['uint32'] => 'int'],
    link_evt => [['int', ('opaque') x 4] => 'int'],
);
$function{$_} = $ffi->function("tipc_$_" => @{$function{$_}}) for keys %function;

# Calls a function until no signal interrupts it. It fails as the functions of Perl do: undef, and why in $!.
sub _call {
    my ($name, @arguments) = @_;
    while (1) {
        my $result = $function{$name}->call(@arguments);
        return $result if $result >= 0;
        return undef if $! != EINTR;
    }
}

# Room for the library to write to; made here, since Perl shares the memory of constant strings.
sub _room { my ($len) = @_; return "\0" x $len }

sub _succeeds { defined _call(@_) }

sub _raw { my ($address) = @_; pack ADDRESS, @$address{qw(type instance)}, $address->{node} // 0 }

sub _address {
    my ($raw) = @_;
    my %address;
    @address{qw(type instance node)} = unpack ADDRESS, $raw;
    return bless \%address, 'XTIPC::Address';
}

sub own_node { $function{own_node}->call }

sub wait_for {
    my ($type, $instance, $timeout) = @_;
    my $raw = _raw({type => $type, instance => $instance});
    return $function{srv_wait}->call(scalar_to_pointer($raw), _millis($timeout));
}

sub _millis { my ($timeout) = @_; defined $timeout ? int($timeout * 1000) : -1 }

package XTIPC::Address;

use overload '""' => sub {
    my ($self) = @_;
    return sprintf $self->{type} ? '%u:%u@%x' : '%u:%010u@%x', @$self{qw(type instance node)};
};

package XTIPC::Socket;

use FFI::Platypus::Buffer qw(scalar_to_pointer);

sub new {
    my ($class, $kind) = @_;
    return $class->_of(XTIPC::_call(socket => $kind | XTIPC::CLOSE_ON_EXEC));
}

sub _of { my ($class, $sd) = @_; return defined $sd ? bless {sd => $sd}, $class : undef }

sub close {
    my ($self) = @_;
    return unless defined $self->{sd};
    return XTIPC::_succeeds(close => delete $self->{sd});
}

sub DESTROY { local ($!, $?); $_[0]->close }

sub fileno { $_[0]{sd} }

sub address {
    my ($self) = @_;
    my $raw = XTIPC::_room(XTIPC::ADDRESS_LEN);
    return XTIPC::_succeeds(sockaddr => $self->{sd}, scalar_to_pointer($raw)) ? XTIPC::_address($raw) : undef;
}

sub set_rejectable { XTIPC::_succeeds(sock_rejectable => $_[0]{sd}) }
sub set_importance { XTIPC::_succeeds(sock_importance => $_[0]{sd}, $_[1]) }

sub bind {
    my ($self, $type, $lower, $upper, $scope) = @_;
    return XTIPC::_succeeds(bind => $self->{sd}, $type, $lower, $upper // $lower, $scope // XTIPC::CLUSTER);
}

sub unbind {
    my ($self, $type, $lower, $upper) = @_;
    return XTIPC::_succeeds(unbind => $self->{sd}, $type, $lower, $upper // $lower);
}

sub connect {
    my ($self, $address) = @_;
    my $raw = XTIPC::_raw($address);
    return XTIPC::_succeeds(connect => $self->{sd}, scalar_to_pointer($raw));
}

sub listen { XTIPC::_succeeds(listen => $_[0]{sd}, 0) }

sub accept {
    my ($self) = @_;
    return XTIPC::Socket->_of(XTIPC::_call(accept => $self->{sd}, undef));
}

sub join {
    my ($self, $type, $instance, %options) = @_;
    my $raw = XTIPC::_raw({type => $type, instance => $instance, node => $options{scope} // XTIPC::CLUSTER});
    return XTIPC::_succeeds(join => $self->{sd}, scalar_to_pointer($raw), $options{events} // 1, $options{loopback} // 0);
}

sub leave { XTIPC::_succeeds(leave => $_[0]{sd}) }

sub send { my ($self, $data) = @_; return XTIPC::_call(send => $self->{sd}, scalar_to_pointer($data), length $data) }

sub send_to { shift->_send_to(sendto => @_) }
sub multicast { shift->_send_to(mcast => @_) }

sub _send_to {
    my ($self, $how, $data, $address) = @_;
    my $raw = XTIPC::_raw($address);
    return XTIPC::_call($how => $self->{sd}, scalar_to_pointer($data), length $data, scalar_to_pointer($raw));
}

sub receive {
    my ($self) = @_;
    my $room = XTIPC::_room(XTIPC::LENGTH_MAX);
    my ($source, $member, $code) = map { XTIPC::_room($_) } XTIPC::ADDRESS_LEN, XTIPC::ADDRESS_LEN, 4;
    my $size = XTIPC::_call(recvfrom => $self->{sd}, scalar_to_pointer($room), XTIPC::LENGTH_MAX,
        map { scalar_to_pointer($_) } $source, $member, $code);
    return undef unless defined $size;
    $code = unpack 'l', $code;
    my $data = substr $room, 0, $size;
    return {what => 'rejected', code => $code, data => $data} if $code > 0;
    my %event = (source => XTIPC::_address($source), member => XTIPC::_address($member));
    my $is_event = $event{member}{type} && !$size;
    return {what => $code < 0 ? 'left' : $is_event ? 'joined' : 'message', data => $data, %event};
}

package XTIPC::Services;

use FFI::Platypus::Buffer qw(scalar_to_pointer);
our @ISA = 'XTIPC::Socket';

sub new { my ($class, $node) = @_; return $class->_of(XTIPC::_call(topsrv_conn => $node // 0)) }

sub subscribe {
    my ($self, $type, $lower, $upper, %options) = @_;
    return XTIPC::_succeeds(srv_subscr => $self->{sd}, $type, $lower, $upper, $options{all} // 1, XTIPC::_millis($options{timeout}));
}

sub next {
    my ($self) = @_;
    my ($service, $socket, $up, $expired) = map { XTIPC::_room($_) } XTIPC::ADDRESS_LEN, XTIPC::ADDRESS_LEN, 1, 1;
    XTIPC::_succeeds(srv_evt => $self->{sd}, map { scalar_to_pointer($_) } $service, $socket, $up, $expired) or return undef;
    return {what => 'expired'} if ord $expired;
    return {what => ord $up ? 'published' : 'withdrawn', service => XTIPC::_address($service), socket => XTIPC::_address($socket)};
}

package XTIPC::Nodes;

use FFI::Platypus::Buffer qw(scalar_to_pointer);
our @ISA = 'XTIPC::Socket';

sub new { my ($class, $node) = @_; return $class->_of(XTIPC::_call(neigh_subscr => $node // 0)) }

sub next {
    my ($self) = @_;
    my ($node, $up) = map { XTIPC::_room($_) } 4, 1;
    XTIPC::_succeeds(neigh_evt => $self->{sd}, map { scalar_to_pointer($_) } $node, $up) or return undef;
    return {what => ord $up ? 'up' : 'down', node => unpack 'L', $node};
}

package XTIPC::Links;

use FFI::Platypus::Buffer qw(scalar_to_pointer);
our @ISA = 'XTIPC::Socket';

sub new { my ($class, $node) = @_; return $class->_of(XTIPC::_call(link_subscr => $node // 0)) }

sub next {
    my ($self) = @_;
    my ($node, $up, $own, $peer) = map { XTIPC::_room($_) } 4, 1, 4, 4;
    XTIPC::_succeeds(link_evt => $self->{sd}, map { scalar_to_pointer($_) } $node, $up, $own, $peer) or return undef;
    my ($number, @bearers) = map { unpack 'L', $_ } $node, $own, $peer;
    return {what => ord $up ? 'up' : 'down', node => $number, own_bearer => $bearers[0], peer_bearer => $bearers[1]};
}

1;

__END__

=head1 NAME

XTIPC - TIPC sockets of xtipc

=head1 SYNOPSIS

    use XTIPC qw(RDM);
    my $server = XTIPC::Socket->new(RDM) or die "socket: $!";
    $server->bind(18888, 17) or die "bind: $!";
    my $request = $server->receive;
    $server->send_to('hello', $request->{source});

=head1 DESCRIPTION

What libxtipc(3) does. Calls that fail return undef or nothing, and say why in C<$!>. Loads libxtipc.so.1, or what the environment
variable C<XTIPC_LIBRARY> names.

An address is a hash of C<type>, C<instance> and, if it matters, C<node>; one with type 0 is that of a socket, C<instance> being its port.

=head2 XTIPC::Socket

C<new(KIND)> with RDM, DGRAM, SEQPACKET or STREAM; C<close>, C<fileno>, C<address>, C<set_rejectable>, C<set_importance(0..3)>,
C<bind(TYPE, LOWER, UPPER, SCOPE)>, C<unbind(TYPE, LOWER, UPPER)>, C<connect(ADDRESS)>, C<listen>, C<accept>,
C<join(TYPE, INSTANCE, events =E<gt> 1, loopback =E<gt> 0)>, C<leave>, C<send(DATA)>, C<send_to(DATA, ADDRESS)>,
C<multicast(DATA, ADDRESS)>.

C<receive> gives a hash: C<what> is C<message> (with C<data>, C<source>, and C<member>, whose type is 0 but in a group), C<rejected> (a
message of one's own, or the end of a connection: C<data>, C<code>), C<joined> or C<left> (C<member>, C<source>).

=head2 XTIPC::Services, XTIPC::Nodes, XTIPC::Links

Trackers: C<next> waits for an event, a hash whose C<what> is C<published>, C<withdrawn> (with C<service>, C<socket>) or C<expired>; or
C<up>, C<down> (with C<node>, for links C<own_bearer> and C<peer_bearer>). Services are asked for by
C<subscribe(TYPE, LOWER, UPPER, all =E<gt> 1, timeout =E<gt> SECONDS)>.

=head2 Functions

C<own_node>: the number of this node. C<wait_for(TYPE, INSTANCE, SECONDS)>: whether a service is bound by then.

=cut
