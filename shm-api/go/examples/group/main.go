// A group of two: one is told that the other joins, what it says to all, and that it leaves.
package main

import (
	"fmt"
	"log"

	xtipc "github.com/xtipc/xtipc/shm-api/go"
)

const group = 18890

func show(socket *xtipc.Socket) {
	event, err := socket.Receive()
	must(err)
	switch event := event.(type) {
	case xtipc.Joined:
		fmt.Printf("%d:%d joined\n", event.Member.Type, event.Member.Instance)
	case xtipc.Message:
		fmt.Printf("%d:%d says %s\n", event.Member.Type, event.Member.Instance, event.Data)
	case xtipc.Left:
		fmt.Printf("%d:%d left\n", event.Member.Type, event.Member.Instance)
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	one, err := xtipc.Open(xtipc.RDM)
	must(err)
	defer one.Close()
	other, err := xtipc.Open(xtipc.RDM)
	must(err)
	defer other.Close()
	must(one.Join(group, 1, xtipc.Cluster, true, false))
	must(other.Join(group, 2, xtipc.Cluster, false, false))
	show(one)
	_, err = other.Write([]byte("hello"))
	must(err)
	show(one)
	must(other.Leave())
	show(one)
}
