#!/usr/bin/ruby
# frozen_string_literal: true

# A group of two: one is told that the other joins, what it says to all, and that it leaves.
require "xtipc"

GROUP = 18_890

def show(socket)
  event = socket.receive
  told =
    case event
    when XTIPC::Joined then "joined"
    when XTIPC::Left then "left"
    else "says #{event.data}"
    end
  puts "#{event.member.type}:#{event.member.instance} #{told}"
end

XTIPC::Socket.open do |one|
  XTIPC::Socket.open do |other|
    one.join(GROUP, 1)
    other.join(GROUP, 2, events: false)
    show(one)
    other.send("hello")
    show(one)
    other.leave
    show(one)
  end
end
