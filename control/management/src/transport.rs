//! Framing: one JSON object per line, request and response in turn, any number of pairs on one connection.
//!
//! The socket is `SOCK_STREAM`. A line ends with `\n`, and JSON escapes any newline inside. A request line has at most
//! [`MAX_REQUEST`] octets and a response line at most [`MAX_RESPONSE`], `\n` included; neither side ever buffers more.
//! Bytes from the other side give a value or an error, never a panic.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use crate::{Request, Response};

/// The longest request line.
pub const MAX_REQUEST: usize = 4096;

/// The longest response line: room for some 500,000 bindings.
pub const MAX_RESPONSE: usize = 64 << 20;

/// How long [`serve`] waits for a silent or a slow client.
const CLIENT_PATIENCE: Duration = Duration::from_secs(30);

/// `EINVAL`, for a request nobody can read.
const INVALID_ARGUMENT: i32 = 22;

/// `EMSGSIZE`, for an answer beyond the limit.
const MESSAGE_TOO_LONG: i32 = 90;

/// What can be wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The socket failed.
    #[error("control socket: {0}")]
    Io(#[from] io::Error),
    /// The line is longer than allowed.
    #[error("a line of more than {limit} octets")]
    TooLong {
        /// The limit of that direction.
        limit: usize,
    },
    /// The stream ended inside a line.
    #[error("the line ends in the middle")]
    Truncated,
    /// The line is no JSON of the expected shape.
    #[error("not understood: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// Reads a request line, with or without its newline.
pub fn decode_request(line: &[u8]) -> Result<Request, TransportError> {
    decode(line, MAX_REQUEST)
}

/// Reads a response line, with or without its newline.
pub fn decode_response(line: &[u8]) -> Result<Response, TransportError> {
    decode(line, MAX_RESPONSE)
}

fn decode<T: DeserializeOwned>(line: &[u8], limit: usize) -> Result<T, TransportError> {
    if line.len() > limit {
        return Err(TransportError::TooLong { limit });
    }
    Ok(serde_json::from_slice(line)?)
}

/// The line of a request, newline included.
pub fn encode_request(request: &Request) -> Result<Vec<u8>, TransportError> {
    encode(request, MAX_REQUEST)
}

/// The line of a response, newline included. One that is too long becomes an `EMSGSIZE` error that says so.
pub fn encode_response(response: &Response) -> Vec<u8> {
    encode(response, MAX_RESPONSE).unwrap_or_else(|error| {
        let refusal = Response::error(
            MESSAGE_TOO_LONG,
            format!("the answer cannot be sent: {error}"),
        );
        encode(&refusal, MAX_RESPONSE)
            .expect("an error response is a short object of a number and a string")
    })
}

fn encode<T: Serialize>(value: &T, limit: usize) -> Result<Vec<u8>, TransportError> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    if line.len() > limit {
        Err(TransportError::TooLong { limit })
    } else {
        Ok(line)
    }
}

/// Reads one line of at most `limit` octets; `None` at an end of stream between lines.
pub(crate) fn read_line(
    reader: &mut impl BufRead,
    limit: usize,
) -> Result<Option<Vec<u8>>, TransportError> {
    let mut line = Vec::new();
    reader
        .by_ref()
        .take(limit as u64)
        .read_until(b'\n', &mut line)?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) if line.len() >= limit => Err(TransportError::TooLong { limit }),
        Some(_) => Err(TransportError::Truncated),
    }
}

/// Answers the requests of one client until it closes the connection.
///
/// A line that cannot be read is answered with `EINVAL`; after one that is too long the connection is also closed,
/// since where the next begins is unknown. Blocks for at most 30 s on a client that is silent or does not read, so
/// a caller gives each client its own thread or is content with that.
pub fn serve(
    stream: &UnixStream,
    mut answer: impl FnMut(Request) -> Response,
) -> Result<(), TransportError> {
    stream.set_read_timeout(Some(CLIENT_PATIENCE))?;
    stream.set_write_timeout(Some(CLIENT_PATIENCE))?;
    let mut reader = BufReader::with_capacity(MAX_REQUEST, stream);
    let mut writer = stream;
    loop {
        let line = match read_line(&mut reader, MAX_REQUEST) {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(()),
            Err(error @ TransportError::TooLong { .. }) => {
                writer.write_all(&encode_response(&Response::error(
                    INVALID_ARGUMENT,
                    error.to_string(),
                )))?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let response = match decode_request(&line) {
            Ok(request) => answer(request),
            Err(error) => Response::error(INVALID_ARGUMENT, format!("request {error}")),
        };
        writer.write_all(&encode_response(&response))?;
    }
}
