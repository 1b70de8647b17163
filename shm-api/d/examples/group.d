/// A group of two: one is told that the other joins, what it says to all, and that it leaves.
module group;

import std.stdio : writefln;
import std.sumtype : match;
import xtipc;

enum type = 18_890;

void show(ref Socket socket)
{
    socket.receive().match!(
        (Joined event) => writefln("%s:%s joined", event.member.type, event.member.instance),
        (Left event) => writefln("%s:%s left", event.member.type, event.member.instance),
        (Message event) => writefln("%s:%s says %s", event.member.type, event.member.instance, cast(char[]) event.data),
        (Rejected event) => writefln("it came back: %s", event.code));
}

void main()
{
    auto one = Socket(Kind.rdm);
    auto other = Socket(Kind.rdm);
    one.join(type, 1);
    other.join(type, 2, false);
    show(one);
    other.send("hello");
    show(one);
    other.leave();
    show(one);
}
