/// Service tracking: is told that a service is bound and withdrawn.
module track;

import core.time : seconds;
import std.stdio : writefln, writeln;
import std.sumtype : match;
import xtipc;

enum type = 18_889;

void main()
{
    auto services = Services.open();
    auto server = Socket(Kind.rdm);
    services.subscribe(type, 0, 99, 1.seconds);
    server.bind(type, 17, 17);
    for (bool more = true; more;)
    {
        services.next().match!((Published event) {
            writefln("up %s:%s at %s", event.service.type, event.service.instance, event.socket);
            server.unbind(type, 17, 17);
        }, (Withdrawn event) {
            writefln("down %s:%s at %s", event.service.type, event.service.instance, event.socket);
        }, (Expired event) { writeln("no more events"); more = false; });
    }
}
