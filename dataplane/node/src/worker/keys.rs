//! Keys: from the files of the configuration, from operators, and random ones (`docs/protocol/crypto.md`).

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::rand::{GetRandomFlags, getrandom};
use std::time::Duration;
use xtipc_management::{
    KeyBytes, KeyText, KeysInfo, NodeIdentity, RekeyingTime, Reply, Request, Response,
    SessionKeyInfo, wipe,
};
use xtipc_protocol::addr::NodeId;
use xtipc_protocol::crypto::{KEY_MAX, KeyMaterial, KeyMode, KeyUse};
use xtipc_protocol::engine::{Engine, Rekeying};
use xtipc_protocol::host::Host;
use xtipc_protocol::time::Instant;

use super::{Failure, Worker, WorkerConfig};
use crate::secrets::read_key;

const ALGORITHM: &str = "gcm(aes)";
const MINUTE: Duration = Duration::from_secs(60);

/// Gives the engine the keys of the configuration, before it has a bearer to say anything on.
pub(super) fn load<H: Host>(
    own: &WorkerConfig,
    now: Instant,
    engine: &mut Engine,
    host: &mut H,
) -> Result<(), Failure> {
    let config = &own.config;
    engine.set_clear_text(config.encryption);
    engine.set_key_exchange(config.key_exchange);
    let files = [
        (&config.master_key_file, KeyUse::Master),
        (&config.key_file, KeyUse::Cluster),
    ];
    for (file, purpose) in files {
        let Some(path) = file else {
            continue;
        };
        engine.begin_epoch(own.epochs().take()?);
        let key = read_key(path).map_err(|error| format!("{}: {error}", path.display()))?;
        forbid_core_dumps();
        engine.set_key(now, key, purpose, host)?;
    }
    if let Some(minutes) = config.rekeying_minutes {
        engine.set_rekeying(now, every(minutes), host);
    }
    Ok(())
}

fn every(minutes: u32) -> Rekeying {
    match minutes {
        0 => Rekeying::Off,
        _ => Rekeying::Every(MINUTE * minutes),
    }
}

/// From now on the memory of this process is not written to disk when it crashes, nor shown to others.
fn forbid_core_dumps() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "keys may get into core dumps");
    }
}

struct Refusal {
    errno: i32,
    text: &'static str,
}

fn refusal(errno: i32, text: &'static str) -> Refusal {
    Refusal { errno, text }
}

impl Worker {
    /// Carries out a request about keys. `epoch` was taken for a key that is to be set.
    pub(super) fn manage_keys(
        &mut self,
        now: Instant,
        request: &Request,
        epoch: Option<u32>,
    ) -> Response {
        let done = match request {
            Request::KeyGet => return Response::Ok(Reply::Keys(self.keys())),
            Request::KeyFlush => {
                self.engine.flush_keys();
                tracing::info!("all keys were removed by an operator");
                Ok(())
            }
            Request::KeySet {
                key,
                algorithm,
                node,
                master,
                rekeying,
            } => {
                if let Some(epoch) = epoch {
                    self.engine.begin_epoch(epoch);
                }
                let set = self.set_key(now, key.as_ref(), algorithm, *node, *master);
                set.and_then(|()| self.set_rekeying(now, key.is_some(), *rekeying))
            }
            _ => Err(refusal(libc::EINVAL, "")),
        };
        match done {
            Ok(()) => Response::Ok(Reply::Done),
            Err(Refusal { errno, text }) => Response::error(errno, text),
        }
    }

    fn set_key(
        &mut self,
        now: Instant,
        key: Option<&KeyText>,
        algorithm: &str,
        node: Option<NodeIdentity>,
        master: bool,
    ) -> Result<(), Refusal> {
        let Some(key) = key else {
            return Ok(());
        };
        if algorithm != ALGORITHM {
            let text = "unable to load the algorithm (module existed?)";
            return Err(refusal(libc::ENODEV, text));
        }
        let purpose = match (node, master) {
            (None, false) => KeyUse::Cluster,
            (None, true) => KeyUse::Master,
            (Some(node), false) => KeyUse::Node(NodeId(node.0)),
            (Some(_), true) => {
                return Err(refusal(libc::EINVAL, "per-node key cannot be master"));
            }
        };
        let bytes: Option<KeyBytes> = key.decode().ok();
        let material = bytes.and_then(|bytes| KeyMaterial::new(&bytes).ok());
        let Some(material) = material else {
            let text = "incorrect key length (20, 28 or 36 octets?)";
            return Err(refusal(libc::EKEYREJECTED, text));
        };
        forbid_core_dumps();
        self.engine
            .set_key(now, material, purpose, &mut self.host)
            .map_err(|_| refusal(libc::EBUSY, "unable to initiate or attach new key"))?;
        tracing::info!(?purpose, "a key was set by an operator");
        Ok(())
    }

    fn set_rekeying(
        &mut self,
        now: Instant,
        key_given: bool,
        rekeying: Option<RekeyingTime>,
    ) -> Result<(), Refusal> {
        let rekeying = match rekeying {
            None if key_given => return Ok(()),
            None => return Err(refusal(libc::ENODATA, "")),
            Some(RekeyingTime::Off) => Rekeying::Off,
            Some(RekeyingTime::Minutes(minutes)) => every(minutes),
            Some(RekeyingTime::Now) => Rekeying::Now,
        };
        if rekeying != Rekeying::Off && !self.own.config.key_exchange {
            let text = "key_exchange_enabled is 0: nobody would learn a new key";
            return Err(refusal(libc::EOPNOTSUPP, text));
        }
        self.engine.set_rekeying(now, rekeying, &mut self.host);
        Ok(())
    }

    /// Replaces the session key by a random one.
    pub(super) fn rekey(&mut self, now: Instant, len: usize) {
        let mut bytes = [0; KEY_MAX];
        let Some(random) = bytes.get_mut(..len) else {
            return;
        };
        let made = getrandom(&mut *random, GetRandomFlags::empty());
        let key = KeyMaterial::new(random);
        wipe(&mut bytes);
        match (made, key) {
            (Ok(filled), Ok(key)) if filled == len => {
                self.engine.rekey(now, key, &mut self.host);
                tracing::info!("the session key is being replaced");
            }
            _ => tracing::warn!("no random key was to be had: the session key stays"),
        }
    }

    fn keys(&self) -> KeysInfo {
        let view = self.engine.crypto();
        let session = |key: Option<(u8, KeyMode, usize)>| {
            key.map(|(slot, mode, len)| SessionKeyInfo {
                slot,
                cluster: mode == KeyMode::Cluster,
                bits: 8 * (len as u32 - 4),
            })
        };
        KeysInfo {
            master: view.master,
            active: session(view.active),
            pending: session(view.pending),
            peers: view.peers as u32,
            rekeying_minutes: self
                .engine
                .rekeying_interval()
                .map_or(0, |interval| (interval.as_secs() / 60) as u32),
            sealed: view.stats.sealed,
            opened: view.stats.opened,
            switches: view.stats.switches,
        }
    }
}
