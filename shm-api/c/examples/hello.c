/* A greeting and its answer, between two programs on any two nodes: `hello server`, then `hello client`. */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <xtipc/tipcc.h>

static const struct tipc_addr SERVICE = {18888, 17, 0};

static int failed(const char *what)
{
    perror(what);
    return 1;
}

static int server(int sd)
{
    struct pollfd waiting = {.fd = sd, .events = POLLIN};
    struct tipc_addr client;
    char greeting[100], name[40];
    int len;

    if (tipc_bind(sd, SERVICE.type, SERVICE.instance, SERVICE.instance, 0) < 0)
        return failed("bind");
    if (poll(&waiting, 1, 10000) != 1)
        return failed("poll");
    len = tipc_recvfrom(sd, greeting, sizeof greeting, &client, NULL, NULL);
    if (len < 0)
        return failed("recvfrom");
    printf("%.*s, from %s\n", len, greeting, tipc_ntoa(&client, name, sizeof name));
    if (tipc_sendto(sd, "hello from C", 12, &client) < 0)
        return failed("sendto");
    return 0;
}

static int client(int sd)
{
    char answer[100];
    int len;

    if (!tipc_srv_wait(&SERVICE, 10000))
        return failed("wait for the server");
    if (tipc_sendto(sd, "hello from C", 12, &SERVICE) < 0)
        return failed("sendto");
    len = tipc_recv(sd, answer, sizeof answer, false);
    if (len < 0)
        return failed("recv");
    printf("%.*s\n", len, answer);
    return 0;
}

int main(int argc, char **argv)
{
    int sd, status;

    if (argc != 2 || (strcmp(argv[1], "server") && strcmp(argv[1], "client"))) {
        fprintf(stderr, "usage: hello server|client\n");
        return 2;
    }
    sd = tipc_socket(SOCK_RDM);
    if (sd < 0)
        return failed("socket");
    status = strcmp(argv[1], "server") ? client(sd) : server(sd);
    tipc_close(sd);
    return status;
}
