//! The worker's care for its bearers: settings, descriptors, what happens to the interfaces.

use std::time::Duration;

use xtipc_protocol::addr::{BearerId, MediaAddr};
use xtipc_protocol::engine::BearerSetup;
use xtipc_protocol::link::LinkParams;
use xtipc_protocol::time::Instant;
use xtipc_xsk::{FramePool, Leaks};

use super::{Failure, Source, Worker};
use crate::bearer::{Bearer, BearerEvent};
use crate::config::{BearerSpec, Config};
use crate::wait::Interest;

impl Worker<'_> {
    pub(super) fn watch_bearers(&mut self) -> Result<(), Failure> {
        for bearer in &self.bearers {
            for fd in bearer.fds() {
                self.waiter
                    .add(fd, Interest::Read, Source::Bearer.token(self.bearer_fds))?;
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

    /// Follows what happens to the interfaces.
    pub(super) fn care_for_bearers(&mut self, now: Instant) -> Result<(), Failure> {
        for index in 0..self.bearers.len() {
            let bearer = &mut self.bearers[index];
            let event = bearer.check(&mut self.host.pool, Duration::from_nanos(now.0));
            let name = self.own.config.bearers[index].name();
            match event {
                BearerEvent::Fine => {}
                BearerEvent::Down => {
                    tracing::warn!(bearer = name, "interface is down or has no carrier")
                }
                BearerEvent::Up => {
                    tracing::info!(bearer = name, "interface is up");
                    self.engine
                        .search(now, BearerId(index as u8), &mut self.host);
                }
                BearerEvent::MacChanged | BearerEvent::MtuChanged => {
                    let (addr, mtu) = (MediaAddr::ethernet(bearer.media_addr()), bearer.mtu());
                    tracing::info!(bearer = name, ?event, ?addr, mtu, "interface changed");
                    self.engine
                        .reset_bearer(now, BearerId(index as u8), addr, mtu, &mut self.host);
                }
                BearerEvent::Stuck => {
                    tracing::warn!(bearer = name, "sockets do no work, opening them anew");
                    self.unwatch_bearers()?;
                    self.bearers[index].reopen(&mut self.host.pool)?;
                    self.watch_bearers()?;
                }
                BearerEvent::Gone => {
                    return Err(format!("the interface of bearer {name} is gone").into());
                }
            }
        }
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

pub(super) fn link_params(config: &Config, spec: &BearerSpec) -> LinkParams {
    let default = LinkParams::default();
    LinkParams {
        priority: spec.priority.unwrap_or(default.priority),
        tolerance_ms: spec.tolerance_ms.unwrap_or(config.tolerance_ms),
        min_window: default.min_window,
        max_window: spec.window_max.unwrap_or(default.max_window),
    }
}

pub(super) fn bearer_setup(config: &Config, spec: &BearerSpec, bearer: &Bearer) -> BearerSetup {
    let mut interface = [0; 16];
    // An interface name has at most 15 bytes.
    let name = spec.interface.as_bytes();
    let len = name.len().min(15);
    interface[..len].copy_from_slice(&name[..len]);
    BearerSetup {
        interface,
        media_addr: MediaAddr::ethernet(bearer.media_addr()),
        mtu: bearer.mtu(),
        params: link_params(config, spec),
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
