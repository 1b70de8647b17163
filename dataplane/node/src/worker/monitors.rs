//! Who watches whom, for operators (`docs/protocol/monitor.md`).

use xtipc_management::{MonitorInfo, MonitoredInfo, MonitorsInfo, Reply, Request, Response};
use xtipc_protocol::addr::BearerId;
use xtipc_protocol::monitor::{Monitor, MonitoredNode, Role, THRESHOLD_MAX};

use super::Worker;

impl Worker {
    pub(super) fn manage_monitors(&mut self, request: &Request) -> Response {
        match request {
            Request::MonitorSet { threshold } if *threshold as usize > THRESHOLD_MAX => {
                let text =
                    format!("a threshold of {threshold}: 0 to {THRESHOLD_MAX} nodes are accepted");
                Response::error(libc::EINVAL, text)
            }
            Request::MonitorSet { threshold } => {
                self.engine.set_monitor_threshold(*threshold as usize);
                Response::Ok(Reply::Done)
            }
            _ => Response::Ok(Reply::Monitors(self.monitors())),
        }
    }

    fn monitors(&self) -> MonitorsInfo {
        let enabled = self.bearers.iter().enumerate().filter_map(|(id, slot)| {
            let monitor = self.engine.monitor(BearerId(id as u8))?;
            Some((slot.as_ref()?.bearer.info().name, monitor))
        });
        MonitorsInfo {
            threshold: self.engine.monitor_threshold() as u32,
            bearers: enabled.map(|(name, monitor)| info(name, monitor)).collect(),
        }
    }
}

fn info(bearer: String, monitor: &Monitor) -> MonitorInfo {
    let ring = monitor.is_ring();
    MonitorInfo {
        bearer,
        generation: monitor.list_generation().into(),
        ring,
        nodes: monitor.list().map(|node| of_node(node, ring)).collect(),
    }
}

fn of_node(node: MonitoredNode, ring: bool) -> MonitoredInfo {
    let applied = node.record.as_ref().map_or(0, |(_, applied)| *applied);
    let domain = node.record.map(|(members, _)| {
        let members = members.into_iter();
        members.map(|(member, up)| (member.0, up)).collect()
    });
    MonitoredInfo {
        address: node.addr.0,
        up: node.up,
        direct: !ring || node.role != Role::Indirect,
        generation: node.generation.into(),
        domain,
        applied: applied as u32,
    }
}
