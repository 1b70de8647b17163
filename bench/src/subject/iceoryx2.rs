//! iceoryx2, publish and subscribe through shared memory, of two threads that spin: the other transport of messages inside of a
//! machine. Threads, as its files are removed only by who ends in order; messages take the same way between processes.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use iceoryx2::service::port_factory::PortFactory as _;
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;

use crate::lab::pin;
use crate::rate::{BATCH, SINK_PATIENCE, Sink, Source, put_number};
use crate::round_trip::{Asker, PATIENCE};

/// Messages under way, as in the ring of shared memory.
const MESSAGES: usize = 1024;
const THERE: &str = "there";
const BACK: &str = "back";

/// One direction. Nothing is lost in it: a sender waits while the receiver's buffer is full.
fn direction(node: &Node<ipc::Service>, name: &str) -> Result<PortFactory<ipc::Service, [u8], ()>> {
    let name = format!("xtipc-bench/{}/{name}", std::process::id());
    let builder = node
        .service_builder(&name.as_str().try_into()?)
        .publish_subscribe::<[u8]>()
        .max_publishers(1)
        .max_subscribers(1)
        .enable_safe_overflow(false)
        .subscriber_max_buffer_size(MESSAGES);
    Ok(builder.open_or_create()?)
}

fn node() -> Result<Node<ipc::Service>> {
    set_log_level(LogLevel::Error);
    // The run ends its processes itself.
    let builder = NodeBuilder::new().signal_handling_mode(SignalHandlingMode::Disabled);
    Ok(builder.create::<ipc::Service>()?)
}

struct Sender {
    publisher: Publisher<ipc::Service, [u8], ()>,
}

impl Sender {
    /// As soon as there is a receiver.
    fn new(node: &Node<ipc::Service>, name: &str, size: usize) -> Result<Self> {
        let service = direction(node, name)?;
        let begun = Instant::now();
        while service.dynamic_config().number_of_subscribers() == 0 {
            ensure!(begun.elapsed() < PATIENCE, "nobody receives");
            thread::yield_now();
        }
        let builder = service.publisher_builder().initial_max_slice_len(size);
        let builder = builder.backpressure_strategy(BackpressureStrategy::RetryUntilDelivered);
        Ok(Self {
            publisher: builder.create()?,
        })
    }

    fn send(&self, message: &[u8]) -> Result<()> {
        let sample = self.publisher.loan_slice_uninit(message.len())?;
        sample.write_from_slice(message).send()?;
        Ok(())
    }
}

struct Receiver {
    subscriber: Subscriber<ipc::Service, [u8], ()>,
}

impl Receiver {
    fn new(node: &Node<ipc::Service>, name: &str) -> Result<Self> {
        let service = direction(node, name)?;
        Ok(Self {
            subscriber: service.subscriber_builder().create()?,
        })
    }

    /// Copies the next message, if there is one, and gives its length.
    fn receive(&self, out: &mut [u8]) -> Result<Option<usize>> {
        let Some(sample) = self.subscriber.receive()? else {
            return Ok(None);
        };
        let len = sample.payload().len().min(out.len());
        out[..len].copy_from_slice(&sample.payload()[..len]);
        Ok(Some(len))
    }
}

/// Sends everything back, until `stop`.
fn echo(size: usize, stop: &AtomicBool) -> Result<()> {
    let node = node()?;
    let receiver = Receiver::new(&node, THERE)?;
    let sender = Sender::new(&node, BACK, size)?;
    let mut message = vec![0; size];
    while !stop.load(Ordering::Relaxed) {
        match receiver.receive(&mut message)? {
            Some(len) => sender.send(&message[..len])?,
            None => spin_loop(),
        }
    }
    Ok(())
}

/// Asks a thread on the second processor.
pub(crate) struct Ask {
    sender: Sender,
    receiver: Receiver,
    stop: Arc<AtomicBool>,
    echo: Option<JoinHandle<Result<()>>>,
}

impl Ask {
    pub(crate) fn new(cpu: usize, size: usize) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let echo = thread::spawn(move || {
            pin(cpu)?;
            echo(size, &stopped)
        });
        let node = node()?;
        let receiver = Receiver::new(&node, BACK)?;
        let sender = Sender::new(&node, THERE, size)?;
        Ok(Self {
            sender,
            receiver,
            stop,
            echo: Some(echo),
        })
    }
}

impl Asker for Ask {
    fn ask(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize> {
        self.sender.send(message)?;
        for _ in 0..u32::MAX {
            if let Some(len) = self.receiver.receive(answer)? {
                return Ok(len);
            }
            spin_loop();
        }
        None.context("no echo")
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Its files go with its thread, and it has told its answers.
        let _ = self.echo.take().map(JoinHandle::join);
    }
}

/// The end that sends.
pub(crate) struct Send {
    sender: Sender,
    message: Vec<u8>,
}

impl Send {
    pub(crate) fn new(size: usize) -> Result<Self> {
        Ok(Self {
            sender: Sender::new(&node()?, THERE, size)?,
            message: vec![0; size],
        })
    }
}

impl Source for Send {
    fn send(&mut self, first: u64) -> Result<u64> {
        for number in first..first + BATCH as u64 {
            put_number(&mut self.message, number);
            self.sender.send(&self.message)?;
        }
        Ok(BATCH as u64)
    }
}

/// The end that receives.
pub(crate) struct Receive {
    receiver: Receiver,
    message: Vec<u8>,
}

impl Receive {
    pub(crate) fn new(size: usize) -> Result<Self> {
        Ok(Self {
            receiver: Receiver::new(&node()?, THERE)?,
            message: vec![0; size],
        })
    }
}

impl Sink for Receive {
    fn receive(&mut self, seen: &mut dyn FnMut(&[u8])) -> Result<()> {
        let begun = Instant::now();
        let mut received = 0;
        for round in 1_u32.. {
            match self.receiver.receive(&mut self.message)? {
                Some(len) => {
                    seen(&self.message[..len]);
                    received += 1;
                }
                None => spin_loop(),
            }
            let over = round.is_multiple_of(256) && begun.elapsed() > SINK_PATIENCE;
            if received == BATCH || over {
                break;
            }
        }
        Ok(())
    }
}
