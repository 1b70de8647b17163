/// A greeting and its answer, between two programs on any two nodes: `hello server`, then `hello client`.
module hello;

import core.time : seconds;
import std.stdio : stderr, writefln, writeln;
import std.sumtype : tryMatch;
import xtipc;

enum service = Address(18_888, 17);
enum greeting = "hello from D";

void serve(ref Socket socket)
{
    socket.bind(service.type, service.instance, service.instance);
    auto message = socket.receive().tryMatch!((Message m) => m);
    writefln("%s, from %s", cast(char[]) message.data, message.source);
    socket.sendTo(greeting, message.source);
}

int greet(ref Socket socket)
{
    if (!waitFor(service, 10.seconds))
    {
        stderr.writeln("there is no server");
        return 1;
    }
    socket.sendTo(greeting, service);
    auto message = socket.receive().tryMatch!((Message m) => m);
    writeln(cast(char[]) message.data);
    return 0;
}

int main(string[] arguments)
{
    auto socket = Socket(Kind.rdm);
    switch (arguments.length == 2 ? arguments[1] : "")
    {
    case "server":
        serve(socket);
        return 0;
    case "client":
        return greet(socket);
    default:
        stderr.writeln("usage: hello server|client");
        return 2;
    }
}
