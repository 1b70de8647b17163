// A greeting and its answer, between two programs on any two nodes: `hello server`, then `hello client`.
package main

import (
	"fmt"
	"log"
	"os"
	"time"

	xtipc "github.com/xtipc/xtipc/shm-api/go"
)

var service = xtipc.Addr{Type: 18888, Instance: 17}

func server(socket *xtipc.Socket) error {
	if err := socket.Bind(service.Type, service.Instance, service.Instance, xtipc.Cluster); err != nil {
		return err
	}
	event, err := socket.Receive()
	if err != nil {
		return err
	}
	greeting := event.(xtipc.Message)
	fmt.Printf("%s, from %s\n", greeting.Data, greeting.Source)
	return socket.SendTo([]byte("hello from Go"), greeting.Source)
}

func client(socket *xtipc.Socket) error {
	if !xtipc.WaitFor(service, 10*time.Second) {
		return fmt.Errorf("there is no server")
	}
	if err := socket.SendTo([]byte("hello from Go"), service); err != nil {
		return err
	}
	event, err := socket.Receive()
	if err != nil {
		return err
	}
	fmt.Printf("%s\n", event.(xtipc.Message).Data)
	return nil
}

func main() {
	roles := map[string]func(*xtipc.Socket) error{"server": server, "client": client}
	if len(os.Args) != 2 || roles[os.Args[1]] == nil {
		log.Fatal("usage: hello server|client")
	}
	socket, err := xtipc.Open(xtipc.RDM)
	if err != nil {
		log.Fatal(err)
	}
	defer socket.Close()
	if err := roles[os.Args[1]](socket); err != nil {
		log.Fatal(err)
	}
}
