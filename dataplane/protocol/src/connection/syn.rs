//! A connection request that may have to be sent again (`docs/protocol/connections.md`, set-up).

use crate::host::DestName;
use crate::time::Instant;
use crate::wire::{DataType, Header, field};
use std::time::Duration;

/// How long a connect waits by default.
pub const CONNECT_TIMEOUT_MS: u16 = 8000;
/// Shortest time before a request is sent again.
const RETRY_MIN: Duration = Duration::from_millis(100);

/// The copy of a request, kept until it is answered.
#[derive(Debug)]
pub struct Syn {
    /// Its header.
    pub header: Header,
    /// The message it carries in an implied connect.
    pub data: Vec<u8>,
    /// When it is sent again.
    pub retry_at: Option<Instant>,
    /// When whoever connects stops waiting.
    pub give_up_at: Option<Instant>,
}

impl Syn {
    /// The service address it goes to, if it goes to one.
    pub fn name(&self) -> Option<DestName> {
        name_of(&self.header)
    }
}

/// The service address a request was sent to.
pub(super) fn name_of(header: &Header) -> Option<DestName> {
    let named = DataType::from_bits(header.get(field::TYPE)) == DataType::Named;
    named.then(|| DestName {
        kind: header.get(field::NAME_TYPE),
        lower: header.get(field::NAME_LOWER),
        upper: header.get(field::NAME_LOWER),
    })
}

/// How long to wait before a request that met a full listener is sent again: between 100 ms and
/// 100 ms and a quarter of the connect timeout.
pub fn retry_delay(timeout_ms: u16, random: u64) -> Duration {
    let span = u64::from(timeout_ms / 4).max(1);
    RETRY_MIN + Duration::from_millis(random % span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_wait_100_ms_to_a_quarter_of_the_timeout_more_whatever_the_timeout() {
        for timeout in [0, 1, 3, 4, 8000, u16::MAX] {
            let span = u64::from(timeout / 4).max(1);
            for random in [0, 1, span - 1, span, u64::MAX] {
                let delay = retry_delay(timeout, random).as_millis() as u64;
                assert!((100..100 + span).contains(&delay), "{timeout} {delay}");
            }
        }
    }
}
