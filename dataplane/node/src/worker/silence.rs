//! Bearers over Ethernet that hear nothing: clouds, and some switches, let no frame of TIPC through, and nothing else would
//! say why there are no links.

use std::time::Duration;

use xtipc_protocol::addr::{BearerId, Media};
use xtipc_protocol::time::Instant;

use super::Worker;
use super::bearers::Enabled;

/// So long others may take to be heard: they search every second while they have no link.
const PATIENCE: Duration = Duration::from_secs(10);

/// Since when a bearer could have heard others.
pub(super) struct Silence {
    since: Instant,
    /// Whether the log says that it did not.
    told: bool,
}

impl Silence {
    pub(super) fn since(now: Instant) -> Self {
        let (since, told) = (now, false);
        Self { since, told }
    }

    /// Its interface has come up.
    pub(super) fn wait_anew(&mut self, now: Instant) {
        self.since = now;
    }
}

impl Worker {
    /// What is to be thought of a bearer over Ethernet that has heard nothing for too long.
    pub(super) fn silence(&self, now: Instant, id: BearerId) -> Option<String> {
        let Enabled {
            bearer, silence, ..
        } = self.bearers[id.index()].as_ref()?;
        if !bearer.is_silent() || now.since(silence.since) < PATIENCE {
            return None;
        }
        let mut enabled = (0..).map(BearerId).zip(&self.bearers);
        let udp = enabled.find_map(|(id, slot)| {
            let Enabled { spec, bearer, .. } = slot.as_ref()?;
            let is_used = self.engine.stations(id).next().is_some();
            (is_used && bearer.media() == Media::Udp).then(|| spec.name())
        });
        Some(match udp {
            Some(name) => {
                format!("no frame of ethertype 0x88CA gets through here, while UDP does ({name})")
            }
            None => {
                "nothing was heard: ethertype 0x88CA may be filtered here, try a UDP bearer".into()
            }
        })
    }

    /// Has the log say it once of each.
    pub(super) fn tell_silence(&mut self, now: Instant) {
        for index in 0..self.bearers.len() {
            let heard = self.silence(now, BearerId(index as u8));
            if let (Some(why), Some(Enabled { spec, silence, .. })) =
                (heard, &mut self.bearers[index])
                && !silence.told
            {
                silence.told = true;
                tracing::info!(bearer = spec.name(), "{why}");
            }
        }
    }
}
