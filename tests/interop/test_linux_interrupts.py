"""Interrupts of a NIC: xtipcd in a guest of its own with two processors, on the guest's virtio NIC."""
import lab
from cluster import LinuxTest

FLAGS = "--cpus", "1"


class InterruptsTest(LinuxTest):
    def test_interrupts_go_to_the_worker_and_back_also_after_a_kill(self):
        if not self.segment.full:
            self.skipTest("boots a guest of its own: with --full")
        suite = self.segment.guest.name.removeprefix(f"{lab.PREFIX}-")
        guest = self.enter(lab.Guest(suite, self.switch, ["interrupts"], label="interrupts", share=lab.TARGET, processors=2))
        guest.wait()
        # Set by hand, so that what is put back is told from what the system would choose.
        numbers = [line.split(":")[0].strip() for line in guest.exec("grep -E 'virtio[0-9]+-(in|out)put' /proc/interrupts").splitlines()]
        for number in numbers:
            guest.exec(f"echo 0 > /proc/irq/{number}/smp_affinity_list")
        node = self.enter(lab.GuestDaemon(guest, "moves", *FLAGS))
        self.assert_placed(node, "1")
        self.await_link(node, self.alpha, timeout_s=20)
        node.kill()
        self.assertIn("1", self.places(guest, numbers), "a killed daemon puts nothing back")
        node = self.enter(lab.GuestDaemon(guest, "moves", *FLAGS, "--interrupts", "leave"))
        self.assertEqual(set(self.places(guest, numbers)), {"0"})
        self.assertEqual(self.interrupts(node)["reason"], "asked for by interrupts = leave")
        node.stop()
        node = self.enter(lab.GuestDaemon(guest, "moves", *FLAGS))
        self.assert_placed(node, "1")
        node.stop()
        self.assertEqual(set(self.places(guest, numbers)), {"0"})

    def places(self, guest, numbers):
        return [guest.exec("cat", f"/proc/irq/{number}/smp_affinity_list").strip() for number in numbers]

    def interrupts(self, node):
        return node.tool_json("status")[0]["bearers"][0]["interrupts"]

    def assert_placed(self, node, cpu):
        interrupts = self.interrupts(node)
        print(f"  {interrupts}", flush=True)
        self.assertEqual((interrupts["placed"], interrupts["reason"]), (True, "at the processors of the workers"))
        self.assertEqual({line["cpus"] for line in interrupts["lines"] if line["queue"] == 0}, {cpu})
        self.assertIn("  interrupts: placed (at the processors of the workers)\n", node.tool("status"))
