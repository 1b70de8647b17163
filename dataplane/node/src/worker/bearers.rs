//! The bearers of a running node: in which slot each is, what it was given, and how they come and go.

use xtipc_management::{Media, MediaInfo};
use xtipc_protocol::addr::{BearerId, MAX_BEARERS};
use xtipc_protocol::engine::{BearerSetup, free_priority};
use xtipc_protocol::link::LinkParams;
use xtipc_protocol::time::Instant;
use xtipc_xsk::FramePool;

use super::care::close_all;
use super::silence::Silence;
use super::{Failure, Worker};
use crate::bearer::{Bearer, BearerError, Defaults, MTU_V4, Preparation};
use crate::config::{BearerSpec, Config, MediaSpec};

/// A bearer in use.
pub(super) struct Enabled {
    pub(super) spec: BearerSpec,
    pub(super) bearer: Bearer,
    pub(super) silence: Silence,
    /// Since when its interface has been down, or without carrier.
    pub(super) down_since: Option<Instant>,
}

impl Enabled {
    pub(super) fn new(now: Instant, spec: BearerSpec, bearer: Bearer) -> Self {
        let silence = Silence::since(now);
        Self {
            spec,
            bearer,
            silence,
            down_since: None,
        }
    }

    pub(super) fn log_open(&self) {
        let info = self.bearer.info();
        tracing::info!(bearer = info.name, mode = ?info.mode, why = info.mode_reason, mtu = info.mtu, "bearer open");
    }
}

/// By bearer id.
pub(super) type Slots = [Option<Enabled>; MAX_BEARERS];

/// There is neither the priority that a bearer is to have nor a lower one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("Cannot adjust to lower: two bearers have priority {wanted}, give {name} another")]
pub(super) struct NoPriority {
    name: String,
    wanted: u8,
}

/// Gives a bearer the priority it is to have, or what `free` says of it.
pub(super) fn settle_priority(
    spec: &mut BearerSpec,
    media: &MediaValues,
    free: impl FnOnce(u8) -> Option<u8>,
) -> Result<(), NoPriority> {
    let (name, wanted) = (spec.name(), link_params(media, spec).priority);
    let Some(priority) = free(wanted) else {
        return Err(NoPriority { name, wanted });
    };
    if priority != wanted {
        tracing::info!(
            bearer = name,
            wanted,
            priority,
            "two bearers have the priority it was to have"
        );
    }
    spec.priority = Some(priority);
    Ok(())
}

/// The bearers of the start with their priorities, as if they were enabled one after the other.
pub(super) fn with_priorities(
    specs: &[BearerSpec],
    media: &MediaValues,
) -> Result<Vec<BearerSpec>, NoPriority> {
    let mut settled: Vec<BearerSpec> = Vec::with_capacity(specs.len());
    for spec in specs {
        let mut spec = spec.clone();
        let taken = settled.iter().filter_map(|before| before.priority);
        settle_priority(&mut spec, media, |wanted| free_priority(wanted, taken))?;
        settled.push(spec);
    }
    Ok(settled)
}

/// Opens the bearers of the start. An interface that bearers over Ethernet and UDP both name is the former's, and the
/// latter has its sockets.
pub(super) fn open_all(
    specs: &[BearerSpec],
    defaults: Defaults,
    pool: &mut FramePool,
) -> Result<Vec<Bearer>, BearerError> {
    let mut order: Vec<_> = (0..specs.len()).collect();
    order.sort_by_key(|&place| matches!(specs[place].media, MediaSpec::Udp(_)));
    let mut opened = Vec::new();
    for place in order {
        match Bearer::open(&specs[place], defaults, Preparation::default(), pool) {
            Ok(bearer) => opened.push((place, bearer)),
            Err(error) => {
                close_all(opened.into_iter().map(|(_, bearer)| bearer).collect(), pool);
                return Err(error);
            }
        }
    }
    opened.sort_by_key(|(place, _)| *place);
    Ok(opened.into_iter().map(|(_, bearer)| bearer).collect())
}

/// What bearers of each media start with that say nothing else: `xtipc media set` changes it.
pub(super) struct MediaValues(pub(super) [MediaInfo; 4]);

impl MediaValues {
    /// Those of the configuration, which names one tolerance for all.
    pub(super) fn of(config: &Config) -> Self {
        let medium = |media: Media, window, mtu| MediaInfo {
            name: media.to_string(),
            priority: 10,
            tolerance_ms: config.tolerance_ms,
            window,
            mtu,
        };
        Self([
            medium(Media::Eth, 8191, None),
            medium(Media::Ib, 50, None),
            medium(Media::Udp, 50, Some(MTU_V4)),
            // Half of what a ring holds: its overflow is a loss.
            medium(Media::Shm, 256, None),
        ])
    }

    /// The same for what the bearers themselves have to know.
    pub(super) fn defaults(&self, config: &Config) -> Defaults {
        let udp_mtu = self.0.iter().find_map(|of| of.mtu);
        Defaults {
            xdp: config.xdp,
            cluster_id: config.cluster_id,
            udp_mtu: udp_mtu.unwrap_or(MTU_V4),
        }
    }

    fn params(&self, media: &str) -> LinkParams {
        let mut params = LinkParams::default();
        if let Some(values) = self.0.iter().find(|of| of.name == media) {
            params.priority = values.priority as u8;
            params.tolerance_ms = values.tolerance_ms;
            params.max_window = values.window as u16;
        }
        params
    }
}

fn link_params(media: &MediaValues, spec: &BearerSpec) -> LinkParams {
    let default = media.params(spec.media.name());
    LinkParams {
        priority: spec.priority.unwrap_or(default.priority),
        tolerance_ms: spec.tolerance_ms.unwrap_or(default.tolerance_ms),
        min_window: default.min_window,
        max_window: spec.window_max.unwrap_or(default.max_window),
    }
}

pub(super) fn bearer_setup(media: &MediaValues, spec: &BearerSpec, bearer: &Bearer) -> BearerSetup {
    let mut interface = [0; 16];
    // An interface name has at most 15 bytes.
    let name = spec.interface.as_bytes();
    let len = name.len().min(15);
    interface[..len].copy_from_slice(&name[..len]);
    BearerSetup {
        interface,
        media: bearer.media(),
        broadcast: bearer.reaches_all_at_once(),
        media_addr: bearer.media_addr(),
        mtu: bearer.mtu(),
        params: link_params(media, spec),
    }
}

impl Worker {
    /// The slot of the bearer with this name.
    pub(super) fn bearer_named(&self, name: &str) -> Option<BearerId> {
        let is_it = |slot: &Option<Enabled>| slot.as_ref().is_some_and(|e| e.spec.name() == name);
        let index = self.bearers.iter().position(is_it)?;
        Some(BearerId(index as u8))
    }

    /// Takes a bearer out of use: its links go, and their peers are told as long as the interface takes packets.
    pub(super) fn remove_bearer(&mut self, now: Instant, id: BearerId) -> Result<(), Failure> {
        self.engine.remove_bearer(now, id, &mut self.host);
        self.host.flush(&mut self.bearers);
        self.unwatch_bearers()?;
        if let Some(enabled) = self.bearers[id.index()].take() {
            let mut closing = enabled.bearer.begin_close(&mut self.host.pool);
            if !closing.poll(&mut self.host.pool) {
                self.closing.push(closing);
            }
        }
        self.watch_bearers()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_bearers_of_the_start_two_at_most_have_the_same_priority() {
        let priorities = |texts: &[&str]| {
            let specs = texts.iter().map(|text| BearerSpec::from_operator(text));
            let specs = specs.collect::<Result<Vec<_>, _>>().unwrap();
            let config = Config::from_text("identity = \"alone\"").unwrap();
            let settled = with_priorities(&specs, &MediaValues::of(&config));
            settled.map(|settled| {
                let priorities = settled.iter().map(|spec| spec.priority);
                priorities.collect::<Option<Vec<_>>>().unwrap()
            })
        };
        for (texts, expected) in [
            (["eth:a", "eth:b", "shm:c"], [10, 10, 9]),
            (
                ["eth:a,priority=1", "shm:b,priority=1", "eth:c"],
                [1, 1, 10],
            ),
            (["eth:a,priority=9", "eth:b", "eth:c"], [9, 10, 10]),
        ] {
            assert_eq!(priorities(&texts).unwrap(), expected);
        }
        let refused = priorities(&["eth:a,priority=0", "eth:b,priority=0", "shm:c,priority=0"]);
        assert_eq!(
            refused.unwrap_err().to_string(),
            "Cannot adjust to lower: two bearers have priority 0, give shm:c another"
        );
    }
}
