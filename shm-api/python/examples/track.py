#!/usr/bin/env python3
"""Service tracking: is told that a service is bound and withdrawn."""
import xtipc

TYPE = 18889

with xtipc.Services() as services, xtipc.Socket(xtipc.RDM) as server:
    services.subscribe(TYPE, 0, 99, timeout=1)
    server.bind(TYPE, 17)
    for event in services:
        if isinstance(event, xtipc.Expired):
            print("no more events")
            break
        is_up = isinstance(event, xtipc.Published)
        print("up" if is_up else "down", f"{event.service.type}:{event.service.instance} at {event.socket}")
        if is_up:
            server.unbind(TYPE, 17)
