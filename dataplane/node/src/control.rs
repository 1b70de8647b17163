//! The control socket: each tool that connects gets a thread that carries its questions to worker 0.
//!
//! A question never waits longer than its patience, and a crowd of silent tools cannot exhaust the daemon.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use xtipc_management::{Failure, Request, Response, serve};

use crate::bearer::Preparation;
use crate::config::BearerSpec;
use crate::door::Admission;
use crate::epoch::Epochs;
use crate::mail::Sender;
use crate::steward::{Command, Query};
use crate::worker::STILL_HELD;

/// Tools served at the same time; more wait for a while and are then refused by closing.
const CLIENTS_MAX: usize = 16;
/// A worker answers between two rounds; if it does not, the tool is told.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// The kernel takes a second, or two.
const RELEASE_PATIENCE: Duration = Duration::from_secs(4);
const RELEASE_INTERVAL: Duration = Duration::from_millis(200);
const STACK_SIZE: usize = 256 * 1024;

/// Takes the connections of the control socket. Owned by the steward.
pub struct Control {
    worker: Sender<Command>,
    epochs: Arc<Mutex<Epochs>>,
    /// One count for each thread that serves a client, and one for us.
    clients: Arc<()>,
}

impl Control {
    /// Questions go to `worker`, which is worker 0.
    pub fn new(worker: Sender<Command>, epochs: Arc<Mutex<Epochs>>) -> Self {
        Self {
            worker,
            epochs,
            clients: Arc::new(()),
        }
    }

    /// Serves one tool on a thread of its own. `socket` blocks.
    pub(crate) fn admit(&self, socket: OwnedFd) -> Admission {
        if Arc::strong_count(&self.clients) > CLIENTS_MAX {
            let reason = "as many tools are connected as are served at the same time";
            return Admission::NoRoom { socket, reason };
        }
        let stream = UnixStream::from(socket);
        let trusted = is_trusted(&stream);
        let (worker, epochs) = (self.worker.clone(), Arc::clone(&self.epochs));
        let counted = Arc::clone(&self.clients);
        let thread = std::thread::Builder::new()
            .name("control".into())
            .stack_size(STACK_SIZE)
            .spawn(move || {
                if let Err(error) = serve(&stream, |request| {
                    match admitted(&request, trusted, &epochs) {
                        Ok(_) if matches!(request, Request::BearerEnable { .. }) => {
                            enable(&worker, &request)
                        }
                        Ok(epoch) => ask(&worker, request, epoch),
                        Err(failure) => Response::Error(failure),
                    }
                }) {
                    tracing::debug!(%error, "a tool was let go");
                }
                drop(counted);
            });
        match thread {
            Ok(_) => Admission::Served,
            Err(error) => Admission::Refused(error.to_string()),
        }
    }
}

/// Keys are not for everybody who may open the control socket.
fn is_trusted(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid();
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid.is_root() || peer.uid == own)
}

/// Whether a tool may have this request carried out, and the epoch that goes with it.
fn admitted(
    request: &Request,
    trusted: bool,
    epochs: &Mutex<Epochs>,
) -> Result<Option<u32>, Failure> {
    if !matches!(request, Request::KeySet { .. } | Request::KeyFlush) {
        return Ok(None);
    }
    if !trusted {
        return Err(Failure {
            errno: libc::EPERM,
            text: "keys are changed by root and by the daemon's user".into(),
        });
    }
    if !matches!(request, Request::KeySet { key: Some(_), .. }) {
        return Ok(None);
    }
    let mut epochs = epochs.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = epochs.take().map(Some);
    taken.map_err(|error| Failure {
        errno: libc::EIO,
        text: error.to_string(),
    })
}

/// The kernel lets go of a bearer that was disabled some time later; one that is enabled at once waits for that.
fn enable(worker: &Sender<Command>, request: &Request) -> Response {
    let deadline = Instant::now() + RELEASE_PATIENCE;
    loop {
        match ask(worker, request.clone(), None) {
            Response::Error(failure) if failure.text == STILL_HELD && Instant::now() < deadline => {
                std::thread::sleep(RELEASE_INTERVAL);
            }
            answer => return answer,
        }
    }
}

fn ask(worker: &Sender<Command>, request: Request, epoch: Option<u32>) -> Response {
    let (reply, answer) = mpsc::sync_channel(1);
    let prepared = match &request {
        Request::BearerEnable { bearer } => BearerSpec::from_operator(bearer)
            .map(|spec| Preparation::of(&spec))
            .unwrap_or_default(),
        _ => Preparation::default(),
    };
    let query = Query {
        request,
        epoch,
        prepared,
        reply,
    };
    if let Err(error) = worker.send(Command::Query(Box::new(query))) {
        return Response::error(libc::EAGAIN, format!("cannot ask the worker: {error}"));
    }
    answer.recv_timeout(ANSWER_PATIENCE).unwrap_or_else(|_| {
        let seconds = ANSWER_PATIENCE.as_secs();
        Response::error(
            libc::ETIMEDOUT,
            format!("the worker gave no answer within {seconds} s"),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use xtipc_management::{KeyText, Reply};

    use super::*;
    use crate::mail;

    fn epochs() -> Arc<Mutex<Epochs>> {
        Arc::new(Mutex::new(Epochs::new(Path::new("/nonexistent"))))
    }

    #[test]
    fn keys_are_for_those_who_are_trusted_and_come_with_an_epoch() {
        let set = |key: Option<&str>| Request::KeySet {
            key: key.map(|key| KeyText::new(key.into())),
            algorithm: "gcm(aes)".into(),
            node: None,
            master: false,
            rekeying: None,
        };
        let base = tempfile::tempdir().unwrap();
        let epochs = Mutex::new(Epochs::new(base.path()));
        let refused = admitted(&Request::KeyFlush, false, &epochs).unwrap_err();
        assert_eq!(refused.errno, libc::EPERM);
        assert_eq!(admitted(&Request::KeyGet, false, &epochs), Ok(None));
        assert_eq!(admitted(&set(None), true, &epochs), Ok(None));
        let first = admitted(&set(Some("k")), true, &epochs).unwrap();
        let second = admitted(&set(Some("k")), true, &epochs).unwrap();
        assert!(first.is_some() && first < second);
    }

    #[test]
    fn a_question_reaches_the_worker_and_its_answer_the_tool() {
        let (sender, receiver) = mail::channel(4).unwrap();
        let worker = std::thread::spawn(move || {
            loop {
                match receiver.try_recv() {
                    Ok(Command::Query(query)) => {
                        assert_eq!(query.request, Request::NodeList);
                        query
                            .reply
                            .send(Response::Ok(Reply::Nodes(vec![])))
                            .unwrap();
                        return;
                    }
                    Ok(_) => panic!("no question"),
                    Err(_) => std::thread::yield_now(),
                }
            }
        });
        let reply = Response::Ok(Reply::Nodes(vec![]));
        assert_eq!(ask(&sender, Request::NodeList, None), reply);
        worker.join().unwrap();
        let ended = ask(&sender, Request::NodeList, None);
        let text = "cannot ask the worker: that thread has ended";
        assert_eq!(ended, Response::error(libc::EAGAIN, text));
    }

    #[test]
    fn there_is_room_for_so_many_tools_and_for_another_when_one_has_left() {
        let (sender, _receiver) = mail::channel(4).unwrap();
        let control = Control::new(sender, epochs());
        let mut tools = Vec::new();
        for _ in 0..CLIENTS_MAX {
            let (tool, ours) = UnixStream::pair().unwrap();
            assert!(matches!(control.admit(ours.into()), Admission::Served));
            tools.push(tool);
        }
        let (_tool, ours) = UnixStream::pair().unwrap();
        let Admission::NoRoom { socket, .. } = control.admit(ours.into()) else {
            panic!("one too many");
        };
        tools.pop();
        while Arc::strong_count(&control.clients) > CLIENTS_MAX {
            std::thread::yield_now();
        }
        assert!(matches!(control.admit(socket), Admission::Served));
    }
}
