//! What operators change while the node runs (`docs/protocol/management.md`, changes). Everything is checked here; a
//! refusal names what is accepted.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use xtipc_management::{Property, Reply, Request, Response};
use xtipc_protocol::addr::{BearerId, MAX_BEARERS, MediaAddr, NodeAddr};
use xtipc_protocol::link::Setting;
use xtipc_protocol::time::Instant;

use super::Worker;
use super::answers::BROADCAST_LINK;
use super::bearers::{Enabled, bearer_setup, settle_priority};
use crate::bearer::{Bearer, ChangeError, Preparation};
use crate::config::{BearerSpec, MTU_LEAST, MTU_MAX};

const PRIORITIES: RangeInclusive<u32> = 0..=31;
const TOLERANCES_MS: RangeInclusive<u32> = 50..=30_000;
const WINDOWS: RangeInclusive<u32> = 50..=8191;
/// Of media that have one of their own: what a bearer can be given.
const MTUS: RangeInclusive<u32> = MTU_LEAST..=MTU_MAX;

/// The one refusal that time alone mends.
pub(crate) const STILL_HELD: &str =
    "The kernel has not released the bearer that was disabled: try again in a second";

/// Why a change was refused.
struct Refusal {
    errno: i32,
    text: String,
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        Self {
            errno: libc::EINVAL,
            text: error.to_string(),
        }
    }
}

fn refuse<T>(errno: i32, text: impl Into<String>) -> Result<T, Refusal> {
    let text = text.into();
    Err(Refusal { errno, text })
}

impl Worker {
    pub(super) fn change(
        &mut self,
        now: Instant,
        request: &Request,
        prepared: Preparation,
    ) -> Response {
        let changed = match request {
            Request::BearerEnable { bearer } => self.enable(now, bearer, prepared),
            Request::BearerDisable { name } => self.disable(now, name),
            Request::BearerAdd { name, remote } => self.add_remote(now, name, *remote),
            Request::BearerRemove { name, remote } => self.remove_remote(now, name, *remote),
            Request::BearerSet {
                name,
                property,
                value,
            } => self.set_bearer(now, name, *property, *value),
            Request::LinkSet {
                name,
                property,
                value,
            } => self.set_link(now, name, *property, *value),
            Request::MediaSet {
                name,
                property,
                value,
            } => self.set_media(name, *property, *value),
            _ => refuse(libc::EINVAL, "this changes nothing"),
        };
        match changed {
            Ok(()) => {
                self.tell_tolerance();
                tracing::info!(?request, "changed by an operator");
                Response::Ok(Reply::Done)
            }
            Err(Refusal { errno, text }) => Response::error(errno, text),
        }
    }

    fn enable(&mut self, now: Instant, text: &str, prepared: Preparation) -> Result<(), Refusal> {
        let mut spec = BearerSpec::from_operator(text)
            .or_else(|error| refuse(libc::EINVAL, error.to_string()))?;
        let name = spec.name();
        if self.bearer_named(&name).is_some() {
            return refuse(libc::EINVAL, "Already enabled");
        }
        if self.closing.iter().any(|closing| closing.name == name) {
            return refuse(libc::EBUSY, STILL_HELD);
        }
        if self.bearers.iter().all(Option::is_some) {
            return refuse(
                libc::EINVAL,
                format!("Max {MAX_BEARERS} bearers permitted: disable one first"),
            );
        }
        settle_priority(&mut spec, &self.media, |wanted| {
            self.engine.free_priority(wanted)
        })
        .or_else(|error| refuse(libc::EINVAL, error.to_string()))?;
        let opened = Bearer::open(
            &spec,
            self.media.defaults(&self.own.config),
            prepared,
            &mut self.host.pool,
        );
        let bearer = opened
            .or_else(|error| refuse(error.errno(), format!("Failed to enable media: {error}")))?;
        let setup = bearer_setup(&self.media, &spec, &bearer);
        let id = match self.engine.add_bearer(now, setup, &mut self.host) {
            Ok(id) => id,
            Err(error) => {
                self.closing.push(bearer.begin_close(&mut self.host.pool));
                return refuse(libc::EINVAL, format!("Failed to enable media: {error}"));
            }
        };
        let enabled = Enabled::new(now, spec, bearer);
        enabled.log_open();
        self.bearers[id.index()] = Some(enabled);
        self.watch_anew()
    }

    fn disable(&mut self, now: Instant, name: &str) -> Result<(), Refusal> {
        let id = self.existing_bearer(name)?;
        self.remove_bearer(now, id)
            .or_else(|error| refuse(libc::EIO, error.to_string()))
    }

    /// The waiter knows the sockets of one bearer more.
    fn watch_anew(&mut self) -> Result<(), Refusal> {
        let watched = self.unwatch_bearers().and_then(|()| self.watch_bearers());
        watched.or_else(|error| refuse(libc::EIO, error.to_string()))
    }

    fn set_bearer(
        &mut self,
        now: Instant,
        name: &str,
        property: Property,
        value: u32,
    ) -> Result<(), Refusal> {
        let id = self.existing_bearer(name)?;
        if property == Property::Mtu && name.starts_with("udp:") {
            return self.set_mtu(now, id, value);
        }
        let setting = setting(property, value)?;
        self.engine.set_bearer(now, id, setting, &mut self.host);
        Ok(())
    }

    fn set_mtu(&mut self, now: Instant, id: BearerId, mtu: u32) -> Result<(), Refusal> {
        let pool = &self.host.pool;
        if let Some(Enabled { bearer, .. }) = &mut self.bearers[id.index()] {
            bearer.set_mtu(mtu, pool)?;
            let mtu = bearer.mtu();
            self.engine.set_bearer_mtu(now, id, mtu, &mut self.host);
        }
        Ok(())
    }

    /// The peer is looked for at once.
    fn add_remote(&mut self, now: Instant, name: &str, to: SocketAddr) -> Result<(), Refusal> {
        let id = self.existing_bearer(name)?;
        if let Some(Enabled { bearer, .. }) = &mut self.bearers[id.index()] {
            bearer.add_remote(to)?;
            self.engine.search(now, id, &mut self.host);
        }
        Ok(())
    }

    /// The peer is left alone: a link to it goes.
    fn remove_remote(&mut self, now: Instant, name: &str, to: SocketAddr) -> Result<(), Refusal> {
        let id = self.existing_bearer(name)?;
        if let Some(Enabled { bearer, .. }) = &mut self.bearers[id.index()] {
            bearer.remove_remote(to)?;
            let station = MediaAddr::from_udp(to);
            let engine = &mut self.engine;
            engine.lose_station(now, id, station, &mut self.host);
        }
        Ok(())
    }

    fn existing_bearer(&self, name: &str) -> Result<BearerId, Refusal> {
        let Some(id) = self.bearer_named(name) else {
            let enabled = self.bearers.iter().flatten().map(|e| e.spec.name());
            let enabled: Vec<_> = enabled.collect();
            return refuse(
                libc::EINVAL,
                match enabled.as_slice() {
                    [] => "Bearer not found: none is enabled".to_owned(),
                    some => format!("Bearer not found: enabled are {}", some.join(", ")),
                },
            );
        };
        Ok(id)
    }

    fn set_link(
        &mut self,
        now: Instant,
        name: &str,
        property: Property,
        value: u32,
    ) -> Result<(), Refusal> {
        if name == BROADCAST_LINK {
            return self.set_broadcast_link(property, value);
        }
        let setting = setting(property, value)?;
        let Some((node, bearer)) = self.unicast_link_named(name) else {
            return refuse(
                libc::EINVAL,
                format!("Link not found: there is no unicast link \"{name}\""),
            );
        };
        self.engine
            .set_link(now, node, bearer, setting, &mut self.host);
        Ok(())
    }

    fn set_broadcast_link(&mut self, property: Property, value: u32) -> Result<(), Refusal> {
        if property != Property::Window {
            let name = property.name();
            return refuse(
                libc::EOPNOTSUPP,
                format!("{BROADCAST_LINK} has no {name}: it can be given a window"),
            );
        }
        self.broadcast_window = in_range(property, value, WINDOWS)? as u16;
        Ok(())
    }

    fn unicast_link_named(&self, name: &str) -> Option<(NodeAddr, BearerId)> {
        self.engine.peers().find_map(|peer| {
            let link = peer.links.iter().find(|link| link.name == name)?;
            Some((peer.addr, link.bearer))
        })
    }

    fn set_media(&mut self, name: &str, property: Property, value: u32) -> Result<(), Refusal> {
        let Some(media) = self.media.0.iter_mut().find(|media| media.name == name) else {
            return refuse(libc::EINVAL, "Media not found");
        };
        match property {
            Property::Priority => media.priority = in_range(property, value, PRIORITIES)?,
            Property::Tolerance => media.tolerance_ms = in_range(property, value, TOLERANCES_MS)?,
            Property::Window => media.window = in_range(property, value, WINDOWS)?,
            Property::Mtu if media.mtu.is_none() => {
                return refuse(libc::EINVAL, "MTU property is unsupported");
            }
            Property::Mtu => media.mtu = Some(in_range(property, value, MTUS)?),
        }
        Ok(())
    }
}

fn setting(property: Property, value: u32) -> Result<Setting, Refusal> {
    Ok(match property {
        Property::Priority => Setting::Priority(in_range(property, value, PRIORITIES)? as u8),
        Property::Tolerance => Setting::Tolerance(in_range(property, value, TOLERANCES_MS)?),
        Property::Window => Setting::Window(in_range(property, value, WINDOWS)? as u16),
        Property::Mtu => {
            return refuse(
                libc::EINVAL,
                "MTU property is unsupported: it is the interface's (ip link set DEV mtu N)",
            );
        }
    })
}

fn in_range(property: Property, value: u32, range: RangeInclusive<u32>) -> Result<u32, Refusal> {
    if range.contains(&value) {
        return Ok(value);
    }
    let name = property.name();
    let (least, most) = range.into_inner();
    let unit = match property {
        Property::Priority => "",
        Property::Tolerance => " ms",
        Property::Window => " packets",
        Property::Mtu => " bytes",
    };
    refuse(
        libc::EINVAL,
        format!("Illegal {name} {value}: {least} to {most}{unit} accepted"),
    )
}
