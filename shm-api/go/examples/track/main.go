// Service tracking: is told that a service is bound and withdrawn.
package main

import (
	"fmt"
	"log"
	"time"

	xtipc "github.com/xtipc/xtipc/shm-api/go"
)

const serviceType = 18889

func main() {
	services, err := xtipc.TrackServices(0)
	if err != nil {
		log.Fatal(err)
	}
	defer services.Close()
	server, err := xtipc.Open(xtipc.RDM)
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	if err := services.Subscribe(serviceType, 0, 99, true, time.Second); err != nil {
		log.Fatal(err)
	}
	if err := server.Bind(serviceType, 17, 17, xtipc.Cluster); err != nil {
		log.Fatal(err)
	}
	for {
		event, err := services.Next()
		if err != nil {
			log.Fatal(err)
		}
		switch event := event.(type) {
		case xtipc.Published:
			fmt.Printf("up %d:%d at %s\n", event.Service.Type, event.Service.Instance, event.Socket)
			if err := server.Unbind(serviceType, 17, 17); err != nil {
				log.Fatal(err)
			}
		case xtipc.Withdrawn:
			fmt.Printf("down %d:%d at %s\n", event.Service.Type, event.Service.Instance, event.Socket)
		case xtipc.Expired:
			fmt.Println("no more events")
			return
		}
	}
}
