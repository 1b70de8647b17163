//! Interrupts of a made-up system.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::bearer::tests::interface;
use tempfile::TempDir;
use xtipc_xsk::interface::DeviceKind;

/// A NIC with four queues, whose interrupts have the numbers 20 to 23 and go to all of four processors; 24 is about the NIC as such,
/// and 30 somebody else's.
struct Fake {
    root: TempDir,
    run_dir: TempDir,
    interface: Interface,
}

impl Fake {
    fn new(names: [&str; 4]) -> Self {
        let fake = Self {
            root: tempfile::tempdir().unwrap(),
            run_dir: tempfile::tempdir().unwrap(),
            interface: interface(DeviceKind::Hardware, "igb"),
        };
        fake.write("sys/class/net/eth0/ifindex", "7\n");
        fs::create_dir_all(fake.at("sys/devices/pci/virtio0")).unwrap();
        symlink(
            "../../../devices/pci/virtio0",
            fake.at("sys/class/net/eth0/device"),
        )
        .unwrap();
        let mut lines = "           CPU0       CPU1\n".to_owned();
        let others = [(24, "eth0"), (30, "other-TxRx-0")];
        for (number, name) in (20..24).zip(names).chain(others) {
            lines += &format!(" {number}:   5   0 PCI-MSIX-0000:00:03.0   1-edge      {name}\n");
            if number != 30 {
                fake.write(&format!("sys/devices/pci/msi_irqs/{number}"), "msix\n");
            }
            fake.go_to(number, "0-3");
        }
        lines += " NMI:   0   0   Non-maskable interrupts\n";
        fake.write("proc/interrupts", &lines);
        fake
    }

    fn igb() -> Self {
        Self::new(["eth0-TxRx-0", "eth0-TxRx-1", "eth0-TxRx-2", "eth0-TxRx-3"])
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn go_to(&self, number: u32, cpus: &str) {
        self.write(&format!("proc/irq/{number}/smp_affinity_list"), cpus);
    }

    fn places(&self) -> Vec<String> {
        let system = System::new(self.root.path().into());
        let numbers = [20, 21, 22, 23, 24, 30];
        numbers.map(|n| system.affinity(n).unwrap()).to_vec()
    }

    fn place(&self, cpus: &[(u32, usize)]) -> Interrupts {
        self.place_or_not(Ok(cpus.to_vec()))
    }

    fn place_or_not(&self, cpus: Result<Vec<(u32, usize)>, String>) -> Interrupts {
        let system = System::new(self.root.path().into());
        Interrupts::place(system, &self.interface, cpus, self.run_dir.path())
    }

    fn notes(&self) -> usize {
        fs::read_dir(self.run_dir.path()).unwrap().count()
    }
}

fn told(interrupts: &Interrupts) -> (bool, String) {
    let info = interrupts.info().unwrap();
    (info.placed, info.reason)
}

#[test]
fn those_of_the_queues_in_use_go_to_their_workers_and_back_at_the_end() {
    let fake = Fake::igb();
    let placed = fake.place(&[(0, 2), (1, 3)]);
    assert_eq!(fake.places(), ["2", "3", "0-3", "0-3", "0-3", "0-3"]);
    assert_eq!(
        told(&placed),
        (true, "at the processors of the workers".into())
    );
    let lines = placed.info().unwrap().lines;
    let shown: Vec<_> = lines
        .iter()
        .map(|l| (l.number, l.queue, &l.cpus[..]))
        .collect();
    assert_eq!(
        shown,
        [(20, 0, "2"), (21, 1, "3"), (22, 2, "0-3"), (23, 3, "0-3")]
    );
    assert_eq!(fake.notes(), 1);
    drop(placed);
    assert_eq!(fake.places(), ["0-3"; 6]);
    assert_eq!(fake.notes(), 0);
}

#[test]
fn the_next_start_puts_back_what_a_killed_daemon_left() {
    let fake = Fake::igb();
    fake.go_to(21, "1");
    std::mem::forget(fake.place(&[(0, 2), (1, 1), (2, 3)]));
    assert_eq!(fake.places(), ["2", "1", "3", "0-3", "0-3", "0-3"]);
    // The administrator has had another idea meanwhile.
    fake.go_to(22, "0");
    let next = fake.place(&[(0, 3)]);
    assert_eq!(fake.places(), ["3", "1", "0", "0-3", "0-3", "0-3"]);
    drop(next);
    assert_eq!(fake.places(), ["0-3", "1", "0", "0-3", "0-3", "0-3"]);
}

#[test]
fn a_number_that_means_another_interrupt_by_now_is_let_alone() {
    let fake = Fake::igb();
    std::mem::forget(fake.place(&[(0, 2)]));
    let text = fs::read_to_string(fake.at("proc/interrupts")).unwrap();
    fake.write("proc/interrupts", &text.replace("eth0-TxRx-0", "nvme0q1"));
    drop(fake.place(&[]));
    assert_eq!(fake.places()[0], "2");
}

#[test]
fn without_processors_all_stay_and_the_reason_is_told() {
    let fake = Fake::igb();
    let left = fake.place_or_not(Err("the workers are not pinned (cpus)".into()));
    assert_eq!(
        told(&left),
        (false, "the workers are not pinned (cpus)".into())
    );
    drop(left);
    assert_eq!(fake.places(), ["0-3"; 6]);
}

#[test]
fn a_refusal_is_told_and_the_others_are_moved() {
    let fake = Fake::igb();
    // A file that cannot be written, by root neither.
    let file = fake.at("proc/irq/20/smp_affinity_list");
    fs::remove_file(&file).unwrap();
    symlink("/proc/version", &file).unwrap();
    let placed = fake.place(&[(0, 2), (1, 3)]);
    let (is_placed, reason) = told(&placed);
    assert!(
        !is_placed && reason.starts_with("the kernel refused to move interrupt 20: "),
        "{reason}"
    );
    assert_eq!(fake.places()[1], "3");
    drop(placed);
    assert_eq!(fake.places()[1], "0-3");
}

#[test]
fn without_a_place_for_the_note_none_is_moved() {
    let fake = Fake::igb();
    let system = System::new(fake.root.path().into());
    let nowhere = Path::new("/nonexistent");
    let left = Interrupts::place(system, &fake.interface, Ok(vec![(0, 2)]), nowhere);
    assert!(told(&left).1.starts_with("cannot note interrupts in"));
    assert_eq!(fake.places(), ["0-3"; 6]);
}

#[test]
fn what_others_move_is_told_and_stays() {
    let fake = Fake::igb();
    fake.write("proc/1/comm", "init\n");
    fake.write("proc/412/comm", "irqbalance\n");
    let placed = fake.place(&[(0, 2)]);
    let (is_placed, reason) = told(&placed);
    assert!(
        is_placed && reason.contains("WARNING: irqbalance runs"),
        "{reason}"
    );
    fake.go_to(20, "1");
    let (is_placed, reason) = told(&placed);
    assert!(
        !is_placed && reason.starts_with("somebody else has moved interrupt 20"),
        "{reason}"
    );
    drop(placed);
    assert_eq!(fake.places()[0], "1");
}

#[test]
fn drivers_name_the_queues_of_their_interrupts_in_many_ways() {
    for (name, queue) in [
        ("eth0-TxRx-3", Some(3)),
        ("i40e-eth0-TxRx-12", Some(12)),
        ("eth0-Tx-Rx-7", Some(7)),
        ("virtio0-input.1", Some(1)),
        ("virtio12-output.0", Some(0)),
        ("mlx5_comp5@pci:0000:08:00.0", Some(5)),
        ("eth0-rx-0", Some(0)),
        ("eth0-fp-2", Some(2)),
        ("eth0-q4", Some(4)),
        ("eth0", None),
        ("virtio0-config", None),
        ("mlx5_async0@pci:0000:08:00.0", None),
        ("ena-mgmnt@pci:0000:00:05.0", None),
        ("eth0-TxRx-99999999999", None),
    ] {
        assert_eq!(system::queue_in(name), queue, "{name}");
    }
}

#[test]
fn an_interface_without_interrupts_of_its_queues_shows_none() {
    // Counted from 1, these are not the numbers of queues.
    let fake = Fake::new(["eth0-txrx-1", "eth0-txrx-2", "eth0-txrx-3", "eth0-txrx-4"]);
    let placed = fake.place(&[(1, 2)]);
    assert_eq!(placed.info(), None);
    assert_eq!(fake.places(), ["0-3"; 6]);
    // Of another namespace.
    let fake = Fake::igb();
    fake.write("sys/class/net/eth0/ifindex", "8\n");
    assert_eq!(fake.place(&[(0, 2)]).info(), None);
    assert_eq!(fake.places(), ["0-3"; 6]);
}
