//! xtipc: a SEQPACKET connection between applications of one node, in loaned buffers.
//!
//! Each end writes the first bytes of a message where the other one reads them, and hands the whole of it over. The rest is
//! left as it is: what it costs to make or to use a message's content is the application's, not the transport's.

use std::time::Instant;

use anyhow::{Context, Result};
use xtipc::{Connection, Node, SharedMessage};

use super::Wait;
use super::connection::{accept, connect};
use crate::round_trip::{Asker, PATIENCE};

/// Bytes of a message that are written and read: as many as a short message has.
pub(crate) const TOUCHED: usize = 64;

fn receive(connection: &Connection, wait: Wait) -> Result<SharedMessage> {
    let received = match wait {
        Wait::Sleeping => connection.recv_shared(),
        Wait::Spinning => connection.recv_shared_spin(Instant::now() + PATIENCE),
    };
    received?.context("the peer has ended the connection")
}

/// Hands over a message of `size` bytes that begins with these.
fn hand_over(connection: &Connection, first: &[u8], size: usize) -> Result<()> {
    let mut loan = connection.loan(size)?;
    loan.write(0, first);
    connection.send_loan(loan)?;
    Ok(())
}

/// Answers each message by one of the same length that begins like it.
pub(crate) fn echo(node: &Node, wait: Wait) -> Result<()> {
    let connection = accept(node)?;
    let mut first = [0; TOUCHED];
    // Until the other end closes, in order or by force.
    while let Ok(message) = receive(&connection, wait) {
        let size = message.len();
        let first = &mut first[..size.min(TOUCHED)];
        message.copy_to(0, first);
        drop(message);
        hand_over(&connection, first, size)?;
    }
    Ok(())
}

/// The end that asks.
pub(crate) struct Ask {
    connection: Connection,
    wait: Wait,
    size: usize,
}

impl Ask {
    pub(crate) fn new(node: &Node, wait: Wait, size: usize) -> Result<Self> {
        let connection = connect(node)?;
        Ok(Self {
            connection,
            wait,
            size,
        })
    }
}

impl Asker for Ask {
    fn ask(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize> {
        hand_over(&self.connection, message, self.size)?;
        let echo = receive(&self.connection, self.wait)?;
        let len = answer.len();
        if echo.len() != self.size {
            return Ok(echo.len());
        }
        echo.copy_to(0, answer);
        Ok(len)
    }
}
