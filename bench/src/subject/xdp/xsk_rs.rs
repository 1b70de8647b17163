//! A socket of xsk-rs.

use anyhow::Result;
use xtipc_bench_sockets::xsk_rs::XskRsSocket;
use xtipc_xsk::BindMode;

use super::Rings;

impl Rings for XskRsSocket {
    fn open(interface: &str, bind: BindMode) -> Result<Self> {
        Ok(Self::open(interface, bind)?)
    }

    fn push(&mut self, header: &[u8], message: &[u8]) -> Result<bool> {
        Ok(self.push(&[header, message])?)
    }

    fn kick(&mut self) -> Result<()> {
        Ok(self.kick()?)
    }

    fn receive(&mut self, budget: usize, on_frame: impl FnMut(&[u8])) -> Result<usize> {
        Ok(self.receive(budget, on_frame)?)
    }
}
