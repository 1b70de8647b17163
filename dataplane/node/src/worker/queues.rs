//! A further worker: it serves AF_XDP queues of worker 0's bearers, so that the kernel's work for them is not on the
//! processor of the engine.
//!
//! It moves references between the kernel's rings and those to worker 0, and knows nothing of packets
//! ([`xtipc_xsk::handover`]). It is pinned, watched and idles by the policy as worker 0 does, and ends with it.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::TryRecvError;

use xtipc_xsk::handover::ServedQueue;

use super::{Failure, LISTEN_INTERVAL_NS, RECEIVE_BUDGET, tell_ready};
use crate::clock::now_ns;
use crate::crew::Seat;
use crate::mail::Sender;
use crate::policy::{Core, IdlePolicy, Policy, Step};
use crate::steward::Event;
use crate::wait::{Interest, Token, Waiter};

/// The bell of worker 0. Queues have the tokens above.
const BELL: Token = Token(0);
/// How long a sleep may be while the kernel sends: it does not tell when it has sent.
const COMPLETION_INTERVAL_NS: u64 = 5_000_000;

struct Served {
    queue: ServedQueue,
    token: Token,
}

struct Server {
    seat: Seat,
    served: Vec<Served>,
    next_token: u64,
    waiter: Waiter,
    ready: Vec<Token>,
    idle: IdlePolicy,
    listen_due_ns: u64,
    /// When it gave its core away, if it did after the last look.
    yielded_ns: Option<u64>,
    /// Worker 0 has ended.
    over: bool,
}

pub(super) fn run(seat: Seat, policy: Policy, events: Sender<Event>) -> Result<(), Failure> {
    let core = match policy {
        Policy::Busy => Core::Own,
        Policy::Adaptive | Policy::Sleep => Core::Shared,
    };
    let mut waiter = Waiter::new()?;
    waiter.add(&seat.queues, Interest::Read, BELL)?;
    seat.tally.set_backend(waiter.backend());
    seat.pulse.begin(now_ns());
    tell_ready(seat.index, &waiter, &events);
    let mut server = Server {
        seat,
        served: Vec::new(),
        next_token: 1,
        waiter,
        ready: Vec::with_capacity(64),
        idle: IdlePolicy::new(policy, core),
        listen_due_ns: 0,
        yielded_ns: None,
        over: false,
    };
    while !server.over {
        server.step()?;
    }
    while let Some(served) = server.served.pop() {
        server.waiter.remove(served.token)?;
    }
    Ok(())
}

impl Server {
    /// One look at all queues, and what the policy has a worker do after one that found nothing.
    fn step(&mut self) -> Result<(), Failure> {
        let now_ns = now_ns();
        if let Some(then_ns) = self.yielded_ns.take() {
            self.idle.yielded(now_ns.saturating_sub(then_ns));
        }
        self.seat.pulse.round(now_ns);
        let raised = self.seat.pulse.is_raised();
        count(&self.seat.tally.rounds);
        if now_ns >= self.listen_due_ns {
            self.waiter.wait(Some(now_ns), &mut self.ready)?;
            self.listen(now_ns)?;
        }
        let mut worked = false;
        for served in &mut self.served {
            worked |= served.queue.serve(RECEIVE_BUDGET);
        }
        if raised {
            self.seat.pulse.come_down();
        }
        if self.served.iter().any(|served| served.queue.is_closing()) {
            self.close_queues()?;
        }
        if worked {
            self.seat.pulse.stop_spin();
            self.idle.worked(now_ns);
            return Ok(());
        }
        self.rest(now_ns)
    }

    fn rest(&mut self, now_ns: u64) -> Result<(), Failure> {
        match self.idle.idle(now_ns) {
            Step::Spin => {
                self.seat.pulse.spin(now_ns, self.idle.is_shared());
                spin_loop();
            }
            Step::Yield => {
                self.seat.pulse.spin(now_ns, self.idle.is_shared());
                if self.idle.is_yield_due() {
                    self.yielded_ns = Some(now_ns);
                    std::thread::yield_now();
                } else {
                    spin_loop();
                }
            }
            Step::Sleep => {
                let mut queues = self.served.iter_mut().map(|served| &mut served.queue);
                let slept = if queues.all(ServedQueue::before_sleep) {
                    self.sleep()
                } else {
                    Ok(())
                };
                for served in &mut self.served {
                    served.queue.awake();
                }
                slept?;
            }
        }
        Ok(())
    }

    fn sleep(&mut self) -> Result<(), Failure> {
        let at_work = |served: &Served| served.queue.is_kernel_at_work();
        let due_ns = (self.served.iter().any(at_work)).then(|| now_ns() + COMPLETION_INTERVAL_NS);
        count(&self.seat.tally.sleeps);
        let spin_ns = self.idle.spin_budget_ns();
        self.seat
            .tally
            .spin_budget_ns
            .store(spin_ns, Ordering::Relaxed);
        self.seat.pulse.start_sleep(due_ns);
        self.waiter.wait(due_ns, &mut self.ready)?;
        let now_ns = now_ns();
        self.seat.pulse.round(now_ns);
        if let (true, Some(due_ns)) = (self.ready.is_empty(), due_ns) {
            self.idle.woken(due_ns, now_ns);
        }
        self.listen(now_ns)
    }

    /// Takes over what worker 0 has handed to this one, if its bell was rung.
    fn listen(&mut self, now_ns: u64) -> Result<(), Failure> {
        self.listen_due_ns = now_ns + LISTEN_INTERVAL_NS;
        if !self.ready.contains(&BELL) {
            return Ok(());
        }
        self.seat.queues.silence();
        loop {
            match self.seat.queues.try_recv() {
                Ok(queue) => {
                    let token = Token(self.next_token);
                    self.next_token += 1;
                    self.waiter.add(&queue, Interest::Read, token)?;
                    self.served.push(Served { queue, token });
                }
                Err(ending) => {
                    self.over = ending == TryRecvError::Disconnected;
                    return Ok(());
                }
            }
        }
    }

    /// Closes the sockets that worker 0 has done with.
    fn close_queues(&mut self) -> Result<(), Failure> {
        let closing = |served: &mut Served| served.queue.is_closing();
        for served in self.served.extract_if(.., closing) {
            self.waiter.remove(served.token)?;
            served.queue.close();
        }
        Ok(())
    }
}

/// The only one who writes it.
fn count(counter: &AtomicU64) {
    let counted = counter.load(Ordering::Relaxed) + 1;
    counter.store(counted, Ordering::Relaxed);
}
