#!/usr/bin/perl
# A group of two: one is told that the other joins, what it says to all, and that it leaves.
use strict;
use warnings;
use XTIPC qw(RDM);

my $group = 18890;

sub show {
    my ($socket) = @_;
    my $event = $socket->receive or die "receive: $!\n";
    printf "%u:%u %s\n", @{$event->{member}}{qw(type instance)},
        $event->{what} eq 'message' ? "says $event->{data}" : $event->{what};
}

my ($one, $other) = map { XTIPC::Socket->new(RDM) or die "socket: $!\n" } 1, 2;
$one->join($group, 1) or die "join: $!\n";
$other->join($group, 2, events => 0) or die "join: $!\n";
show($one);
$other->send('hello') or die "send: $!\n";
show($one);
$other->leave or die "leave: $!\n";
show($one);
