#!/usr/bin/ruby
# frozen_string_literal: true

# Service tracking: is told that a service is bound and withdrawn.
require "xtipc"

TYPE = 18_889

XTIPC::Services.open do |services|
  XTIPC::Socket.open do |server|
    services.subscribe(TYPE, 0, 99, timeout: 1)
    server.bind(TYPE, 17)
    services.each do |event|
      case event
      when XTIPC::Published
        puts "up #{event.service.type}:#{event.service.instance} at #{event.socket}"
        server.unbind(TYPE, 17)
      when XTIPC::Withdrawn
        puts "down #{event.service.type}:#{event.service.instance} at #{event.socket}"
      when XTIPC::Expired
        puts "no more events"
        break
      end
    end
  end
end
