#!/usr/bin/ruby
# frozen_string_literal: true

# A greeting and its answer, between two programs on any two nodes: `hello.rb server`, then `hello.rb client`.
require "xtipc"

SERVICE = XTIPC::Address.new(18888, 17)

def serve(socket)
  socket.bind(SERVICE.type, SERVICE.instance)
  greeting = socket.receive
  puts "#{greeting.data}, from #{greeting.source}"
  socket.send_to("hello from Ruby", greeting.source)
end

def greet(socket)
  XTIPC.wait_for(SERVICE.type, SERVICE.instance, timeout: 10) or abort "there is no server"
  socket.send_to("hello from Ruby", SERVICE)
  puts socket.receive.data
end

XTIPC::Socket.open(XTIPC::RDM) do |socket|
  case ARGV
  when ["server"] then serve(socket)
  when ["client"] then greet(socket)
  else abort "usage: hello.rb server|client"
  end
end
