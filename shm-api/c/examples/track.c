/* Service tracking: is told that a service is bound and withdrawn. */
#include <stdio.h>
#include <xtipc/tipcc.h>

static const uint32_t TYPE = 18889;

static void show(int topology)
{
    struct tipc_addr service, socket;
    char address[40];
    bool up, expired;

    if (tipc_srv_evt(topology, &service, &socket, &up, &expired) < 0)
        perror("event");
    else if (expired)
        printf("no more events\n");
    else
        printf("%s %u:%u at %s\n", up ? "up" : "down", service.type, service.instance,
               tipc_ntoa(&socket, address, sizeof address));
}

int main(void)
{
    int topology = tipc_topsrv_conn(0);
    int server = tipc_socket(SOCK_RDM);

    if (topology < 0 || server < 0 || tipc_srv_subscr(topology, TYPE, 0, 99, true, 1000) < 0) {
        perror("subscribe");
        return 1;
    }
    tipc_bind(server, TYPE, 17, 17, 0);
    show(topology);
    tipc_unbind(server, TYPE, 17, 17);
    show(topology);
    show(topology);
    tipc_close(server);
    tipc_close(topology);
    return 0;
}
