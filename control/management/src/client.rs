//! A tool's end of the control socket.

use std::io::{self, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::transport::{self, TransportError, decode_response, encode_request};
use crate::{
    BearerInfo, Failure, KeysInfo, LinkFilter, LinkInfo, LinkSummary, MAX_RESPONSE, MediaInfo,
    MonitorsInfo, NodeInfo, OwnNode, Publication, Reply, Request, Response, SocketInfo, Status,
};

/// How long a daemon may take for an answer; it normally takes well under a millisecond.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why an answer did not come.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no daemon at {0}: is xtipcd running?")]
    NoDaemon(PathBuf),
    /// The socket file or a directory above it does not let this user in.
    #[error("permission denied at {0}: only root and the group of that socket may ask the daemon")]
    PermissionDenied(PathBuf),
    /// Any other failure to connect.
    #[error("cannot connect to {path}: {error}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The connection ended before the answer was complete.
    #[error(
        "the daemon at {0} closed the connection before it had answered: it has ended, or is busy with other tools"
    )]
    WentAway(PathBuf),
    /// No answer came in time.
    #[error("the daemon at {0} did not answer within {seconds} s", seconds = PATIENCE.as_secs())]
    Silent(PathBuf),
    /// The answer is none, or none to this request.
    #[error(
        "the daemon at {path} answered something else: {what}; are xtipc and xtipcd of one version?"
    )]
    Unexpected {
        /// The socket.
        path: PathBuf,
        /// What was wrong with the answer.
        what: String,
    },
    /// The request cannot be sent.
    #[error("the request is too long: {0}")]
    Request(TransportError),
    /// The daemon refused.
    #[error("{0}")]
    Refused(Failure),
}

/// A blocking connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

macro_rules! typed_request {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $kind:ty),*), $request:expr, $variant:ident => $answer:ty) => {
        $(#[$doc])*
        pub fn $name(&mut self $(, $argument: $kind)*) -> Result<$answer, ClientError> {
            match self.call(&$request)? {
                Reply::$variant(answer) => Ok(answer),
                _ => Err(self.unexpected("the reply to another request")),
            }
        }
    };
}

impl Client {
    /// Connects to the control socket at `path`.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let connected = UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        });
        match connected {
            Ok(stream) => Ok(Self {
                stream: BufReader::new(stream),
                path: path.to_owned(),
            }),
            Err(error) => Err(match error.kind() {
                io::ErrorKind::NotFound
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::NotADirectory => ClientError::NoDaemon(path.to_owned()),
                io::ErrorKind::PermissionDenied => ClientError::PermissionDenied(path.to_owned()),
                _ => ClientError::Connect {
                    path: path.to_owned(),
                    error,
                },
            }),
        }
    }

    /// Sends a request and waits for its answer.
    pub fn call(&mut self, request: &Request) -> Result<Reply, ClientError> {
        let line = encode_request(request).map_err(ClientError::Request)?;
        self.stream
            .get_mut()
            .write_all(&line)
            .map_err(|error| self.failed(error.into()))?;
        let answer = match transport::read_line(&mut self.stream, MAX_RESPONSE) {
            Ok(Some(line)) => decode_response(&line),
            Ok(None) => Err(TransportError::Truncated),
            Err(error) => Err(error),
        };
        match answer {
            Ok(Response::Ok(reply)) => Ok(reply),
            Ok(Response::Error(failure)) => Err(ClientError::Refused(failure)),
            Err(error) => Err(self.failed(error)),
        }
    }

    typed_request!(/// The known peers.
        nodes(), Request::NodeList, Nodes => Vec<NodeInfo>);
    typed_request!(/// The own node.
        node(), Request::NodeGet, Node => OwnNode);
    typed_request!(/// Names and states of the links.
        links(), Request::LinkList, Links => Vec<LinkSummary>);
    typed_request!(/// All facts about the links that `filter` selects.
        link_statistics(filter: LinkFilter), Request::LinkStatistics { filter }, LinkStatistics => Vec<LinkInfo>);
    typed_request!(/// All facts about one link.
        link(name: String), Request::LinkGet { name }, Link => LinkInfo);
    typed_request!(/// The bearers.
        bearers(), Request::BearerList, Bearers => Vec<BearerInfo>);
    typed_request!(/// The media.
        media(), Request::MediaList, Media => Vec<MediaInfo>);
    typed_request!(/// The binding table.
        name_table(), Request::NameTable, NameTable => Vec<Publication>);
    typed_request!(/// The sockets.
        sockets(details: bool), Request::SocketList { details }, Sockets => Vec<SocketInfo>);
    typed_request!(/// Who watches whom.
        monitors(), Request::MonitorGet, Monitors => MonitorsInfo);
    typed_request!(/// The keys in use.
        keys(), Request::KeyGet, Keys => KeysInfo);
    typed_request!(/// How the daemon runs.
        status(), Request::Status, Status => Box<Status>);

    /// Has the daemon change something.
    pub fn change(&mut self, request: &Request) -> Result<(), ClientError> {
        match self.call(request)? {
            Reply::Done => Ok(()),
            _ => Err(self.unexpected("the reply to another request")),
        }
    }

    fn failed(&self, error: TransportError) -> ClientError {
        match error {
            TransportError::Truncated => ClientError::WentAway(self.path.clone()),
            TransportError::Io(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    ClientError::Silent(self.path.clone())
                }
                _ => ClientError::WentAway(self.path.clone()),
            },
            TransportError::TooLong { .. } | TransportError::Malformed(_) => {
                self.unexpected(&error.to_string())
            }
        }
    }

    fn unexpected(&self, what: &str) -> ClientError {
        ClientError::Unexpected {
            path: self.path.clone(),
            what: what.to_owned(),
        }
    }
}
