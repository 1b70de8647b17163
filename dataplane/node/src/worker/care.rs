//! The worker's care for its bearers: descriptors, what happens to the interfaces.

use std::time::Duration;

use xtipc_protocol::addr::BearerId;
use xtipc_protocol::time::Instant;
use xtipc_xsk::{FramePool, Leaks};

use super::bearers::Enabled;
use super::source::Source;
use super::{Failure, Worker};
use crate::bearer::{Bearer, BearerEvent, Hands};
use crate::steward::Event;
use crate::wait::Interest;

/// How often the bearers are looked after while there are news of interfaces, of which containers make many.
const NEWS_INTERVAL_NS: u64 = 10_000_000;

impl Worker {
    /// Also hands to the further workers what is theirs to serve.
    pub(super) fn watch_bearers(&mut self) -> Result<(), Failure> {
        let hands = Hands {
            crew: &self.own.crew,
            placement: &self.own.placement,
            run_dir: &self.own.config.run_dir,
        };
        for enabled in self.bearers.iter_mut().flatten() {
            enabled.bearer.hand_over(&hands, &self.host.pool);
            for (fd, interest) in enabled.bearer.fds() {
                self.waiter
                    .add(fd, interest, Source::Bearer.token(self.bearer_fds))?;
                self.bearer_fds += 1;
            }
        }
        Ok(())
    }

    pub(super) fn unwatch_bearers(&mut self) -> Result<(), Failure> {
        for fd in 0..std::mem::take(&mut self.bearer_fds) {
            self.waiter.remove(Source::Bearer.token(fd))?;
        }
        Ok(())
    }

    pub(super) fn watch_interfaces(&mut self) -> Result<(), Failure> {
        if let Some(news) = &self.interface_news {
            let token = Source::Interfaces.token(0);
            self.waiter.add(news, Interest::Read, token)?;
        }
        Ok(())
    }

    pub(super) fn on_interface_news(&mut self, now: Instant) {
        if let Some(news) = &self.interface_news {
            news.take();
        }
        self.care_due_ns = self.care_due_ns.min(now.0 + NEWS_INTERVAL_NS);
    }

    /// Peers may change tolerances, too.
    pub(super) fn tell_tolerance(&mut self) {
        let shortest_ms = self.engine.shortest_tolerance_ms();
        let shortest_ms = shortest_ms.unwrap_or(self.own.config.tolerance_ms);
        if shortest_ms != self.shortest_tolerance_ms {
            // A full queue is tried again.
            let told = self.own.events.send(Event::Tolerance { shortest_ms });
            if told.is_ok() {
                self.shortest_tolerance_ms = shortest_ms;
            }
        }
    }

    /// Follows what happens to the interfaces.
    pub(super) fn care_for_bearers(&mut self, now: Instant) -> Result<(), Failure> {
        self.tell_tolerance();
        let pool = &mut self.host.pool;
        self.closing.retain_mut(|closing| !closing.poll(pool));
        let mut gives_up_soon = false;
        for index in 0..self.bearers.len() {
            let Some(Enabled {
                spec,
                bearer,
                silence,
                down_since,
            }) = &mut self.bearers[index]
            else {
                continue;
            };
            let event = bearer.check(&mut self.host.pool, Duration::from_nanos(now.0));
            let (id, name) = (BearerId(index as u8), spec.name());
            match event {
                BearerEvent::Fine => {}
                BearerEvent::Down => {
                    tracing::warn!(bearer = name, "interface is down or has no carrier");
                    *down_since = Some(now);
                }
                BearerEvent::Up => {
                    tracing::info!(bearer = name, "interface is up");
                    *down_since = None;
                    silence.wait_anew(now);
                    self.engine.search(now, id, &mut self.host);
                }
                BearerEvent::MacChanged | BearerEvent::MtuChanged => {
                    let (addr, mtu) = (bearer.media_addr(), bearer.mtu());
                    tracing::info!(bearer = name, ?event, ?addr, mtu, "interface changed");
                    self.engine.reset_bearer(now, id, addr, mtu, &mut self.host);
                }
                BearerEvent::Stuck => {
                    tracing::warn!(bearer = name, "sockets do no work, opening them anew");
                    self.unwatch_bearers()?;
                    if let Some(Enabled { bearer, .. }) = &mut self.bearers[index] {
                        bearer.reopen(&mut self.host.pool)?;
                    }
                    self.watch_bearers()?;
                }
                BearerEvent::Gone => {
                    tracing::error!(bearer = name, "the interface is gone: bearer disabled");
                    self.remove_bearer(now, id)?;
                }
                BearerEvent::TooNarrow => {
                    tracing::error!(
                        bearer = name,
                        "the interface's MTU is too small for TIPC: bearer disabled"
                    );
                    self.remove_bearer(now, id)?;
                }
            }
            let down_since = self.bearers[index].as_ref().and_then(|e| e.down_since);
            gives_up_soon |= down_since.is_some_and(|since| {
                let (engine, host) = (&mut self.engine, &mut self.host);
                engine.without_interface(now, id, since, host)
            });
        }
        if gives_up_soon {
            let quarter_ns = u64::from(self.shortest_tolerance_ms) * 1_000_000 / 4;
            self.care_due_ns = self.care_due_ns.min(now.0 + quarter_ns);
        }
        self.tell_silence(now);
        Ok(())
    }
}

/// Closes the bearers. False: the kernel, which releases closed sockets in its own time, still holds frames of some.
pub(super) fn close_all(bearers: Vec<Bearer>, pool: &mut FramePool) -> bool {
    let mut released = true;
    for bearer in bearers {
        if let Err(error) = bearer.close(pool) {
            tracing::warn!(%error, "bearer closed, not all of it released");
            released = false;
        }
    }
    released
}

/// The count at the end: what of it is a leak of this node, given whether the kernel has released the bearers.
pub(super) fn own_leaks(counted: Result<(), Leaks>, released: bool) -> Result<(), Leaks> {
    match counted {
        Err(Leaks { queued: 0, .. }) if !released => Ok(()),
        counted => counted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_slow_kernel_still_holds_is_no_leak() {
        let late = Leaks {
            queued: 0,
            in_tx: 3,
            receive_areas: 1,
        };
        assert_eq!(own_leaks(Err(late), false), Ok(()));
        assert_eq!(own_leaks(Err(late), true), Err(late));
        let forgotten = Leaks { queued: 1, ..late };
        assert_eq!(own_leaks(Err(forgotten), false), Err(forgotten));
    }
}
