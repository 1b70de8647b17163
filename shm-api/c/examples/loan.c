/* The direct calls: a datagram that is read where it came to lie, and a connection whose messages are written in place. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xtipc/xtipc.h>

enum { TYPE = 18891, LENGTH = 60000, COUNT = 20 };

static struct xtipc_node *node;

static void *needed(void *object, const char *what)
{
    if (!object) {
        perror(what);
        exit(1);
    }
    return object;
}

static void datagram(void)
{
    static char large[LENGTH];
    const struct tipc_addr service = {TYPE, 1, 0};
    struct xtipc_socket *socket = needed(xtipc_open(node, SOCK_RDM), "open");
    struct xtipc_message *message;
    size_t len;

    if (xtipc_bind(socket, TYPE, 1, 1, TIPC_CLUSTER_SCOPE) < 0 || xtipc_send(socket, large, LENGTH, &service) < 0) {
        perror("send");
        exit(1);
    }
    message = needed(xtipc_receive(socket), "receive");
    if (!memcmp(xtipc_message_bytes(message, &len), large, LENGTH))
        printf("a message of %zu bytes, not copied\n", len);
    xtipc_message_free(message);
    xtipc_close(socket);
}

static void *client(void *unused)
{
    const struct tipc_addr service = {TYPE, 2, 0};
    struct xtipc_socket *connection = needed(xtipc_connect(node, SOCK_SEQPACKET, &service), "connect");

    (void)unused;
    for (int number = 0; number < COUNT; number++) {
        struct xtipc_loan *loan = needed(xtipc_loan_take(connection, LENGTH), "loan");
        memset(xtipc_loan_bytes(loan), number, LENGTH);
        if (xtipc_loan_send(connection, loan) < 0)
            perror("send");
    }
    xtipc_shutdown(connection);
    xtipc_close(connection);
    return NULL;
}

static void connection(void)
{
    struct xtipc_socket *listener = needed(xtipc_listen(node, SOCK_SEQPACKET, TYPE, 2, 2, TIPC_NODE_SCOPE), "listen");
    struct xtipc_socket *connection;
    struct xtipc_message *message;
    pthread_t thread;
    int right = 0;

    if (pthread_create(&thread, NULL, client, NULL))
        exit(1);
    connection = needed(xtipc_accept(listener), "accept");
    while ((message = xtipc_receive(connection))) {
        size_t len;
        const unsigned char *bytes = xtipc_message_bytes(message, &len);
        right += len == LENGTH && bytes[0] == right && !memcmp(bytes, bytes + 1, LENGTH - 1);
        xtipc_message_free(message);
    }
    puts(right == COUNT ? "written in place" : "not what was sent");
    pthread_join(thread, NULL);
    xtipc_close(connection);
    xtipc_close(listener);
}

int main(int argc, char **argv)
{
    node = needed(xtipc_attach(argc > 1 ? argv[1] : NULL), "attach");
    datagram();
    connection();
    xtipc_detach(node);
    return 0;
}
