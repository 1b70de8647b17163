//! Words and numbers of the situations' language.

use anyhow::{Context, Result, bail};

pub(crate) const FLAGS: [(&str, i32); 6] = [
    ("oob", libc::MSG_OOB),
    ("peek", libc::MSG_PEEK),
    ("trunc", libc::MSG_TRUNC),
    ("dontwait", libc::MSG_DONTWAIT),
    ("eor", libc::MSG_EOR),
    ("waitall", libc::MSG_WAITALL),
];
pub(crate) const FLAGS_OUT: [(&str, i32); 4] = [
    ("OOB", libc::MSG_OOB),
    ("CTRUNC", libc::MSG_CTRUNC),
    ("TRUNC", libc::MSG_TRUNC),
    ("EOR", libc::MSG_EOR),
];
pub(crate) const POLL: [(&str, i16); 9] = [
    ("IN", libc::POLLIN),
    ("PRI", libc::POLLPRI),
    ("OUT", libc::POLLOUT),
    ("ERR", libc::POLLERR),
    ("HUP", libc::POLLHUP),
    ("NVAL", libc::POLLNVAL),
    ("RDNORM", libc::POLLRDNORM),
    ("WRNORM", libc::POLLWRNORM),
    ("RDHUP", libc::POLLRDHUP),
];
const TYPES: [(&str, i32); 5] = [
    ("stream", libc::SOCK_STREAM),
    ("dgram", libc::SOCK_DGRAM),
    ("raw", libc::SOCK_RAW),
    ("rdm", libc::SOCK_RDM),
    ("seqpacket", libc::SOCK_SEQPACKET),
];
const LEVELS: [(&str, i32); 3] = [
    ("socket", libc::SOL_SOCKET),
    ("tcp", libc::IPPROTO_TCP),
    ("tipc", xtipc::socket::SOL_TIPC),
];
const FILTERS: [(&str, u32); 3] = [("ports", 1), ("service", 2), ("cancel", 4)];
const HANDLE: [u8; 8] = *b"a handle";
const SOCKET_OPTIONS: [(&str, i32); 34] = [
    ("linger", libc::SO_LINGER),
    ("debug", libc::SO_DEBUG),
    ("dontroute", libc::SO_DONTROUTE),
    ("broadcast", libc::SO_BROADCAST),
    ("keepalive", libc::SO_KEEPALIVE),
    ("oobinline", libc::SO_OOBINLINE),
    ("no_check", libc::SO_NO_CHECK),
    ("priority", libc::SO_PRIORITY),
    ("bsdcompat", libc::SO_BSDCOMPAT),
    ("reuseport", libc::SO_REUSEPORT),
    ("passcred", libc::SO_PASSCRED),
    ("peercred", libc::SO_PEERCRED),
    ("sndlowat", libc::SO_SNDLOWAT),
    ("timestamp", libc::SO_TIMESTAMP),
    ("peersec", libc::SO_PEERSEC),
    ("sndbufforce", libc::SO_SNDBUFFORCE),
    ("rcvbufforce", libc::SO_RCVBUFFORCE),
    ("timestampns", libc::SO_TIMESTAMPNS),
    ("mark", libc::SO_MARK),
    ("rxq_ovfl", libc::SO_RXQ_OVFL),
    ("peek_off", libc::SO_PEEK_OFF),
    ("busy_poll", libc::SO_BUSY_POLL),
    ("incoming_cpu", libc::SO_INCOMING_CPU),
    ("reuseaddr", libc::SO_REUSEADDR),
    ("type", libc::SO_TYPE),
    ("error", libc::SO_ERROR),
    ("sndbuf", libc::SO_SNDBUF),
    ("rcvbuf", libc::SO_RCVBUF),
    ("rcvlowat", libc::SO_RCVLOWAT),
    ("rcvtimeo", libc::SO_RCVTIMEO),
    ("sndtimeo", libc::SO_SNDTIMEO),
    ("acceptconn", libc::SO_ACCEPTCONN),
    ("protocol", libc::SO_PROTOCOL),
    ("domain", libc::SO_DOMAIN),
];
const TIPC_OPTIONS: [(&str, i32); 12] = [
    ("importance", 127),
    ("src_droppable", 128),
    ("dest_droppable", 129),
    ("conn_timeout", 130),
    ("node_recvq_depth", 131),
    ("sock_recvq_depth", 132),
    ("mcast_broadcast", 133),
    ("mcast_replicast", 134),
    ("group_join", 135),
    ("group_leave", 136),
    ("sock_recvq_used", 137),
    ("nodelay", 138),
];
const ERRNOS: [(&str, i32); 28] = [
    ("EACCES", libc::EACCES),
    ("EADDRINUSE", libc::EADDRINUSE),
    ("EADDRNOTAVAIL", libc::EADDRNOTAVAIL),
    ("EAFNOSUPPORT", libc::EAFNOSUPPORT),
    ("EAGAIN", libc::EAGAIN),
    ("EALREADY", libc::EALREADY),
    ("EBADF", libc::EBADF),
    ("ECONNABORTED", libc::ECONNABORTED),
    ("ECONNREFUSED", libc::ECONNREFUSED),
    ("ECONNRESET", libc::ECONNRESET),
    ("EDESTADDRREQ", libc::EDESTADDRREQ),
    ("EDOM", libc::EDOM),
    ("EHOSTUNREACH", libc::EHOSTUNREACH),
    ("EINPROGRESS", libc::EINPROGRESS),
    ("EINTR", libc::EINTR),
    ("EINVAL", libc::EINVAL),
    ("EISCONN", libc::EISCONN),
    ("EMSGSIZE", libc::EMSGSIZE),
    ("ENETDOWN", libc::ENETDOWN),
    ("ENOPROTOOPT", libc::ENOPROTOOPT),
    ("ENOTCONN", libc::ENOTCONN),
    ("ENOTTY", libc::ENOTTY),
    ("EOPNOTSUPP", libc::EOPNOTSUPP),
    ("EPERM", libc::EPERM),
    ("EPIPE", libc::EPIPE),
    ("EPROTONOSUPPORT", libc::EPROTONOSUPPORT),
    ("EPROTOTYPE", libc::EPROTOTYPE),
    ("ETIMEDOUT", libc::ETIMEDOUT),
];

fn look_up<T: Copy>(table: &[(&str, T)], word: &str) -> Option<T> {
    table
        .iter()
        .find(|(name, _)| *name == word)
        .map(|(_, value)| *value)
}

pub(crate) fn number(word: &str) -> Result<i64> {
    let (digits, radix) = match word.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (word, 10),
    };
    i64::from_str_radix(digits, radix).with_context(|| format!("`{word}` is no number"))
}

pub(crate) fn unsigned(word: &str) -> Result<u32> {
    Ok(u32::try_from(number(word)?)?)
}

pub(crate) fn socket_type(word: &str) -> Result<i32> {
    look_up(&TYPES, word).map_or_else(|| Ok(number(word)? as i32), Ok)
}

pub(crate) fn flag(word: &str) -> Result<i32> {
    look_up(&FLAGS, word).with_context(|| format!("`{word}` is no flag"))
}

pub(crate) fn poll_bit(word: &str) -> Result<i16> {
    look_up(&POLL, word).with_context(|| format!("`{word}` is no poll event"))
}

pub(crate) fn level_and_option(level: &str, option: &str) -> Result<(i32, i32)> {
    let options = match level {
        "socket" => &SOCKET_OPTIONS[..],
        "tipc" => &TIPC_OPTIONS[..],
        _ => &[],
    };
    let level = look_up(&LEVELS, level).map_or_else(|| Ok(number(level)? as i32), anyhow::Ok)?;
    let option = look_up(options, option).map_or_else(|| Ok(number(option)? as i32), anyhow::Ok)?;
    Ok((level, option))
}

pub(crate) fn errno_name(errno: i32) -> String {
    let named = ERRNOS.iter().find(|(_, number)| *number == errno);
    named.map_or_else(|| format!("errno {errno}"), |(name, _)| (*name).into())
}

/// `abc`, `empty`, or `a*1000`.
pub(crate) fn data(word: &str) -> Result<Vec<u8>> {
    Ok(match word.split_once('*') {
        None if word == "empty" => Vec::new(),
        None => word.into(),
        Some((text, count)) => text.repeat(count.parse()?).into(),
    })
}

pub(crate) fn shown(data: &[u8]) -> String {
    let printable = data.iter().all(|byte| (b' '..=b'~').contains(byte));
    match data {
        _ if data.len() <= 40 && printable => format!("\"{}\"", String::from_utf8_lossy(data)),
        [first, rest @ ..] if rest.iter().all(|byte| byte == first) => {
            format!("{}*{}", char::from(*first), data.len())
        }
        _ => {
            let add =
                |digest: u32, byte: &u8| digest.wrapping_mul(31).wrapping_add(u32::from(*byte));
            format!(
                "{} bytes, digest {:08x}",
                data.len(),
                data.iter().fold(0, add)
            )
        }
    }
}

/// The names of the bits that are set.
pub(crate) fn names_of<T: Copy>(table: &[(&str, T)], is_set: impl Fn(T) -> bool) -> Vec<String> {
    let set = table.iter().filter(|(_, bit)| is_set(*bit));
    set.map(|(name, _)| (*name).into()).collect()
}

/// `key=value` among words.
pub(crate) fn setting(words: &[&str], key: &str) -> Result<Option<i64>> {
    for word in words {
        if let Some((name, value)) = word.split_once('=')
            && name == key
        {
            return Ok(Some(number(value)?));
        }
    }
    Ok(None)
}

/// A value of an option: a number, `null`, milliseconds as `5ms`, or words as `1:2:3:4`.
pub(crate) fn option_value(word: &str) -> Result<Option<Vec<u8>>> {
    if word == "null" {
        return Ok(None);
    }
    if let Some(millis) = word.strip_suffix("ms") {
        let millis = number(millis)?;
        let halves = [millis / 1000, millis % 1000 * 1000];
        return Ok(Some(
            halves.iter().flat_map(|half| half.to_ne_bytes()).collect(),
        ));
    }
    let mut bytes = Vec::new();
    for part in word.split(':') {
        bytes.extend(unsigned(part)?.to_ne_bytes());
    }
    Ok(Some(bytes))
}

/// The 32-bit words in bytes.
pub(crate) fn words_in(bytes: &[u8]) -> Vec<u32> {
    let words = bytes.chunks_exact(4);
    words
        .map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
        .collect()
}

/// A request to the topology service: `TYPE:LOWER:UPPER`, `forever` or milliseconds, filters.
pub(crate) fn subscription(what: &str, timeout: &str, filters: &[&str]) -> Result<Vec<u8>> {
    let mut words = what.split(':').map(unsigned).collect::<Result<Vec<_>>>()?;
    words.push(match timeout {
        "forever" => u32::MAX,
        millis => unsigned(millis)?,
    });
    let filter = |word: &&&str| FILTERS.iter().find(|(name, _)| *name == **word);
    words.push(
        filters
            .iter()
            .filter_map(|word| filter(&word))
            .map(|(_, bit)| bit)
            .sum(),
    );
    let swapped = filters.contains(&"swapped");
    let ordered = words
        .iter()
        .map(|word| if swapped { word.swap_bytes() } else { *word });
    let mut bytes: Vec<u8> = ordered.flat_map(u32::to_ne_bytes).collect();
    bytes.extend(HANDLE);
    Ok(bytes)
}

/// Ancillary data as text.
pub(crate) fn shown_control(mut control: &[u8]) -> Result<Vec<String>> {
    const HEADER_LEN: usize = 16;
    let mut shown_parts = Vec::new();
    while let Some((header, rest)) = control.split_first_chunk::<HEADER_LEN>() {
        let [len, _, level, kind] = words_in(header)[..] else {
            bail!("a header has four words");
        };
        if level as i32 != xtipc::socket::SOL_TIPC {
            bail!("ancillary data of level {level}");
        }
        let data = &rest[..len as usize - HEADER_LEN];
        let numbers = || {
            let words: Vec<String> = words_in(data).iter().map(u32::to_string).collect();
            words.join(":")
        };
        shown_parts.push(match kind {
            2 => format!("returned {}", shown(data)),
            _ if data.len() % 4 != 0 => format!("control {kind} of {} bytes", data.len()),
            1 => format!("error {}", numbers()),
            3 => format!("sent to {}", numbers()),
            kind => bail!("ancillary data of type {kind}"),
        });
        let aligned = (len as usize).next_multiple_of(8);
        control = control.get(aligned..).unwrap_or_default();
    }
    Ok(shown_parts)
}
