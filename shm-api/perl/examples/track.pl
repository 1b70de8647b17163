#!/usr/bin/perl
# Service tracking: is told that a service is bound and withdrawn.
use strict;
use warnings;
use XTIPC qw(RDM);

my $type = 18889;
my $services = XTIPC::Services->new or die "topology service: $!\n";
my $server = XTIPC::Socket->new(RDM) or die "socket: $!\n";
$services->subscribe($type, 0, 99, timeout => 1) or die "subscribe: $!\n";
$server->bind($type, 17) or die "bind: $!\n";
while (my $event = $services->next) {
    if ($event->{what} eq 'expired') {
        print "no more events\n";
        last;
    }
    my $is_up = $event->{what} eq 'published';
    printf "%s %u:%u at %s\n", $is_up ? 'up' : 'down', @{$event->{service}}{qw(type instance)}, $event->{socket};
    $server->unbind($type, 17) if $is_up;
}
