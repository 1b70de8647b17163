//! Keys, without what is secret in them. Reference: `docs/protocol/management.md`.

use xtipc_management::{KeysInfo, SessionKeyInfo};

pub(crate) fn text(keys: &KeysInfo) -> String {
    let session = |key: Option<SessionKeyInfo>| {
        key.map_or_else(
            || "none".to_owned(),
            |key| {
                let of = if key.cluster { "cluster" } else { "node" };
                format!("{of} key of {} bits in slot {}", key.bits, key.slot)
            },
        )
    };
    let rekeying = match keys.rekeying_minutes {
        0 => "off".to_owned(),
        minutes => format!("{minutes} minutes"),
    };
    format!(
        "Master key:  {}\nActive key:  {}\nPending key: {}\nPeers:       {}\nRekeying:    {rekeying}\n\
         Frames:      encrypted:{} decrypted:{} key switches:{}\n",
        if keys.master { "set" } else { "none" },
        session(keys.active),
        session(keys.pending),
        keys.peers,
        keys.sealed,
        keys.opened,
        keys.switches,
    )
}
