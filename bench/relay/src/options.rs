//! The command line: two interfaces, a seed, and the faults of each direction.

use std::str::FromStr;
use std::time::Duration;

use clap::Parser;

use crate::direction::{Faults, Share};

/// Longest time that can be asked for: more than any delay on earth, and no arithmetic overflows.
const TIME_MAX: Duration = Duration::from_secs(60);

/// Joins two Ethernet interfaces as a wire and impairs what passes, each direction by its own settings.
///
/// Every frame that one interface receives goes out of the other one, whatever its ethertype and VLAN; what the
/// machine itself sends from them is left alone. The faults of a direction follow from the seed and the number of
/// the frame, so the same seed meets frame n with the same faults.
///
/// A setting is one value for both directions, or two, FORTH:BACK: first from A to B, then from B to A. PERCENT is of
/// all frames, with up to four decimals. TIME has a unit: us, ms or s.
///
/// Prints one line of JSON when the interfaces are joined, and one with the counters of both directions at SIGUSR1
/// and at its end by SIGTERM or SIGINT. Needs CAP_NET_RAW and CAP_NET_ADMIN in the namespace of the interfaces.
#[derive(Debug, Parser)]
#[command(name = "xtipc-relay", version)]
pub(crate) struct Options {
    /// One end of the wire
    #[arg(value_name = "A")]
    pub(crate) a: String,
    /// The other end
    #[arg(value_name = "B")]
    pub(crate) b: String,
    /// Where the decisions come from
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Frames that do not arrive
    #[arg(long, value_name = "PERCENT", default_value = "0")]
    loss: Both<Percent>,
    /// Losses come in runs of so many frames; the share of all frames stays
    #[arg(long, value_name = "FRAMES", default_value = "1")]
    burst: Both<Count>,
    /// Frames that arrive twice
    #[arg(long, value_name = "PERCENT", default_value = "0")]
    duplication: Both<Percent>,
    /// Frames that are held back, so that later ones overtake them
    #[arg(long, value_name = "PERCENT", default_value = "0")]
    reordering: Both<Percent>,
    /// Longest time a reordered frame is held back; drawn anew for each
    #[arg(long, value_name = "TIME", default_value = "1ms")]
    straggle: Both<Time>,
    /// A reordered frame goes on when so many later ones have overtaken it, or after the whole straggle;
    /// 0: by time only
    #[arg(long, value_name = "FRAMES", default_value = "0")]
    behind: Both<Count>,
    /// Frames in which a byte behind the Ethernet header is changed
    #[arg(long, value_name = "PERCENT", default_value = "0")]
    corruption: Both<Percent>,
    /// The changed byte is among the first so many behind the Ethernet header; 0: any of them
    #[arg(long, value_name = "BYTES", default_value = "0")]
    corrupt_within: Both<Count>,
    /// Time that every frame takes
    #[arg(long, value_name = "TIME", default_value = "0us")]
    delay: Both<Time>,
    /// Longest additional time of a frame; frames keep their order
    #[arg(long, value_name = "TIME", default_value = "0us")]
    jitter: Both<Time>,
}

impl Options {
    /// The faults from A to B, and from B to A.
    pub(crate) fn faults(&self) -> [Faults; 2] {
        [0, 1].map(|way| Faults {
            loss: self.loss.0[way].0,
            burst: self.burst.0[way].0,
            duplication: self.duplication.0[way].0,
            reordering: self.reordering.0[way].0,
            straggle: self.straggle.0[way].0,
            behind: self.behind.0[way].0,
            corruption: self.corruption.0[way].0,
            corrupt_within: match self.corrupt_within.0[way].0 {
                0 => usize::MAX,
                bytes => bytes as usize,
            },
            delay: self.delay.0[way].0,
            jitter: self.jitter.0[way].0,
        })
    }
}

/// Why a value was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValueError {
    /// Not a share of the frames.
    #[error("`{0}` is no percentage: 0 to 100 with up to four decimals, like 5 or 0.25")]
    Percent(String),
    /// Not a time.
    #[error("`{0}` is no time: a whole number and us, ms or s, at most 60 s, like 200us")]
    Time(String),
    /// Not a number.
    #[error("`{0}` is no whole number of 32 bits")]
    Count(String),
}

/// A value for each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Both<T>([T; 2]);

impl<T: Copy + FromStr<Err = ValueError>> FromStr for Both<T> {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.split_once(':') {
            None => text.parse().map(|value| Self([value; 2])),
            Some((forth, back)) => Ok(Self([forth.parse()?, back.parse()?])),
        }
    }
}

/// A share of the frames, written in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Percent(Share);

impl FromStr for Percent {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refused = || ValueError::Percent(text.to_owned());
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole) || !is_number(decimals) || decimals.len() > 4 {
            return Err(refused());
        }
        // Millionths are hundredths of a percent with four decimals less two.
        let whole: u32 = whole.parse().map_err(|_| refused())?;
        let decimals: u32 = format!("{decimals:0<4}").parse().map_err(|_| refused())?;
        match whole
            .checked_mul(10_000)
            .and_then(|w| w.checked_add(decimals))
        {
            Some(millionths @ ..=1_000_000) => Ok(Self(Share(millionths))),
            _ => Err(refused()),
        }
    }
}

/// A time with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Time(Duration);

impl FromStr for Time {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refused = || ValueError::Time(text.to_owned());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = text[..digits].parse().map_err(|_| refused())?;
        let time = match &text[digits..] {
            "us" => Duration::from_micros(number),
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            _ => return Err(refused()),
        };
        match time {
            time if time <= TIME_MAX => Ok(Self(time)),
            _ => Err(refused()),
        }
    }
}

/// A number of frames or bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count(u32);

impl FromStr for Count {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let parsed = text.parse().map(Self);
        parsed.map_err(|_| ValueError::Count(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn faults(words: &[&str]) -> [Faults; 2] {
        let all = ["xtipc-relay", "a", "b"].iter().chain(words);
        Options::parse_from(all).faults()
    }

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn a_setting_holds_for_both_directions_or_for_each_its_own() {
        let [forth, back] = faults(&["--loss", "5", "--delay", "2ms:300us", "--behind", "3:0"]);
        assert_eq!((forth.loss, back.loss), (Share(50_000), Share(50_000)));
        assert_eq!(forth.delay, Duration::from_millis(2));
        assert_eq!(back.delay, Duration::from_micros(300));
        assert_eq!((forth.behind, back.behind), (3, 0));
    }

    #[test]
    fn nothing_is_impaired_unless_asked_for() {
        for faults in faults(&[]) {
            assert_eq!((faults.loss, faults.duplication), (Share(0), Share(0)));
            assert_eq!((faults.reordering, faults.corruption), (Share(0), Share(0)));
            assert_eq!(
                (faults.delay, faults.jitter),
                (Duration::ZERO, Duration::ZERO)
            );
        }
    }

    #[test]
    fn percentages_have_up_to_four_decimals() {
        let share = |text: &str| text.parse::<Percent>().map(|percent| percent.0.0);
        assert_eq!(share("100"), Ok(1_000_000));
        assert_eq!(share("0.0001"), Ok(1));
        assert_eq!(share("2.5"), Ok(25_000));
        for bad in [
            "",
            "5%",
            "-1",
            "100.0001",
            "1.00001",
            "1.",
            ".5",
            "9999999999",
        ] {
            assert_eq!(share(bad), Err(ValueError::Percent(bad.to_owned())));
        }
    }

    #[test]
    fn a_time_needs_its_unit() {
        for bad in [
            "",
            "5",
            "ms",
            "1.5ms",
            "-1ms",
            "61s",
            "99999999999999999999s",
        ] {
            assert_eq!(bad.parse::<Time>(), Err(ValueError::Time(bad.to_owned())));
        }
        assert_eq!("60s".parse(), Ok(Time(TIME_MAX)));
    }
}
