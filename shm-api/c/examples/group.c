/* A group of two: one is told that the other joins, what it says to all, and that it leaves. */
#include <stdio.h>
#include <xtipc/tipcc.h>

static const uint32_t GROUP = 18890;

static void show(int sd)
{
    struct tipc_addr socket, member;
    char message[100];
    int event, len = tipc_recvfrom(sd, message, sizeof message, &socket, &member, &event);

    if (len < 0)
        perror("recvfrom");
    else if (len > 0)
        printf("%u:%u says %.*s\n", member.type, member.instance, len, message);
    else
        printf("%u:%u %s\n", member.type, member.instance, event ? "left" : "joined");
}

int main(void)
{
    struct tipc_addr first = {GROUP, 1, 0}, second = {GROUP, 2, 0};
    int one = tipc_socket(SOCK_RDM), other = tipc_socket(SOCK_RDM);

    if (one < 0 || other < 0 || tipc_join(one, &first, true, false) < 0 || tipc_join(other, &second, false, false) < 0) {
        perror("join");
        return 1;
    }
    show(one);
    if (tipc_send(other, "hello", 5) < 0)
        perror("send");
    show(one);
    tipc_leave(other);
    show(one);
    tipc_close(other);
    tipc_close(one);
    return 0;
}
