#!/usr/bin/perl
# A greeting and its answer, between two programs on any two nodes: `hello.pl server`, then `hello.pl client`.
use strict;
use warnings;
use XTIPC qw(RDM wait_for);

my %service = (type => 18888, instance => 17);
my $socket = XTIPC::Socket->new(RDM) or die "socket: $!\n";
my $role = "@ARGV";

if ($role eq 'server') {
    $socket->bind(@service{qw(type instance)}) or die "bind: $!\n";
    my $greeting = $socket->receive or die "receive: $!\n";
    print "$greeting->{data}, from $greeting->{source}\n";
    $socket->send_to('hello from Perl', $greeting->{source}) or die "send: $!\n";
} elsif ($role eq 'client') {
    wait_for(@service{qw(type instance)}, 10) or die "there is no server\n";
    $socket->send_to('hello from Perl', \%service) or die "send: $!\n";
    my $answer = $socket->receive or die "receive: $!\n";
    print "$answer->{data}\n";
} else {
    die "usage: hello.pl server|client\n";
}
