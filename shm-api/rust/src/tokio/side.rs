//! One descriptor of a socket in the reactor, and how a task waits on it.
//!
//! The reactor is edge-triggered: readiness is taken first, then the attempt is made, and only an attempt in vain takes
//! the readiness back; news that come meanwhile are a new edge. What a socket can send or accept comes as an answer
//! of the daemon, which makes the descriptor readable too; whoever dispatches it wakes the tasks that wait for it, since
//! a receiver may have emptied the descriptor before the reactor saw it for the sender.

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use xtipc_segment::Ready;

use crate::attachment::Attachment;
use crate::{Error, Result};

#[derive(Debug)]
pub(super) struct Side {
    attachment: Arc<Attachment>,
    socket: u32,
    fd: AsyncFd<OwnedFd>,
}

impl Side {
    pub(super) fn new((attachment, socket): (&Arc<Attachment>, u32)) -> Result<Self> {
        let pollable = attachment.watch(socket)?;
        // The reactor knows a descriptor once only.
        let own = pollable.try_clone()?;
        Ok(Self {
            attachment: Arc::clone(attachment),
            socket,
            fd: register(own)?,
        })
    }

    /// Makes an attempt each time something has come, until it need not wait.
    pub(super) async fn attempt<T>(&self, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        loop {
            let mut guard = self.fd.readable().await?;
            match attempt() {
                Err(Error::WouldBlock) => guard.clear_ready(),
                other => return other,
            }
        }
    }

    /// The same for a socket with one task at a time.
    pub(super) fn poll_attempt<T>(
        &self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut() -> Result<T>,
    ) -> Poll<Result<T>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            match attempt() {
                Err(Error::WouldBlock) => guard.clear_ready(),
                other => return Poll::Ready(other),
            }
        }
    }

    /// Makes an attempt whenever the socket can do this, until it need not wait.
    pub(super) async fn attempt_when<T>(
        &self,
        what: Ready,
        mut attempt: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        loop {
            match attempt() {
                Err(Error::WouldBlock) => self.can(what).await?,
                other => return other,
            }
        }
    }

    async fn can(&self, what: Ready) -> Result<()> {
        let mut edge = pin!(self.fd.readable());
        poll_fn(|cx| {
            loop {
                let news = edge.as_mut().poll(cx);
                if self.is_able(cx, what)? {
                    return Poll::Ready(Ok(()));
                }
                ready!(news)?.clear_ready();
                edge.set(self.fd.readable());
            }
        })
        .await
    }

    /// The same for a socket with one task at a time.
    pub(super) fn poll_can(&self, cx: &mut Context<'_>, what: Ready) -> Poll<Result<()>> {
        loop {
            let news = self.fd.poll_read_ready(cx);
            if self.is_able(cx, what)? {
                return Poll::Ready(Ok(()));
            }
            ready!(news)?.clear_ready();
        }
    }

    /// Whether the socket can do this; else the daemon tells when, and the task is woken.
    fn is_able(&self, cx: &Context<'_>, what: Ready) -> Result<bool> {
        let mut core = self.attachment.core()?;
        core.dispatch();
        if let Some(failure) = core.failure {
            return Err(failure.into());
        }
        if core.queue(self.socket)?.ready.intersects(what) {
            return Ok(true);
        }
        if core.await_ready(self.socket, what)?.is_err() {
            // No room for the question: other requests under way are answered soon.
            cx.waker().wake_by_ref();
        }
        if core.queue(self.socket)?.ready.intersects(what) {
            return Ok(true);
        }
        let wakers = &mut core.queue(self.socket)?.wakers;
        if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
        Ok(false)
    }
}

/// Adds a descriptor to the reactor.
#[expect(
    deprecated,
    reason = "the replacement is unsafe; what it asks for holds of an OwnedFd that the AsyncFd owns to its end"
)]
fn register(own: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(own, Interest::READABLE)
}
