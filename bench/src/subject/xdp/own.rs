//! A socket and the frame pool of xtipc.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::Result;
use xtipc_xsk::interface::Interface;
use xtipc_xsk::{BindMode, FramePool, PoolConfig, Reserve, SocketConfig, XskSocket};

use super::Rings;

/// See the module.
pub(crate) struct Own {
    socket: XskSocket,
    pool: FramePool,
}

impl AsFd for Own {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Rings for Own {
    fn open(interface: &str, bind: BindMode) -> Result<Self> {
        let interface = Interface::query(interface)?;
        let mut pool = FramePool::new(&PoolConfig::default())?;
        let config = SocketConfig::new(interface.index, 0, bind);
        let socket = XskSocket::open(&mut pool, &config)?;
        Ok(Self { socket, pool })
    }

    fn push(&mut self, header: &[u8], message: &[u8]) -> Result<bool> {
        let Some(frame) = self.pool.alloc(Reserve::Data) else {
            return Ok(false);
        };
        let bytes = self.pool.bytes_mut(frame);
        let bytes = bytes.expect("a frame just allocated is not in transmission");
        let len = header.len() + message.len();
        bytes[..header.len()].copy_from_slice(header);
        bytes[header.len()..len].copy_from_slice(message);
        let pushed = self
            .socket
            .send(&mut self.pool, frame, 0, len, Reserve::Data);
        // The ring holds it as long as it needs it.
        self.pool.release(frame);
        Ok(pushed.is_ok())
    }

    fn kick(&mut self) -> Result<()> {
        self.socket.kick()?;
        self.socket.complete(&mut self.pool);
        Ok(())
    }

    fn receive(&mut self, budget: usize, mut on_frame: impl FnMut(&[u8])) -> Result<usize> {
        let received = self.socket.receive(budget, |frame| on_frame(frame));
        self.socket.wake_fill()?;
        Ok(received)
    }
}
