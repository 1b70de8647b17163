"""A Linux TIPC node in a guest, and the programs of the tests on it."""
import pathlib

import lab


class LinuxDriver(lab.Driver):
    """The program on a Linux node. It takes a guest a second to start one, so some go on for the next who asks."""

    SPARE_MAX = 4

    def __init__(self, node):
        self.node = node
        self.is_returned = False
        if node.spare_programs:
            self.process, self.pid = node.spare_programs.pop()
            self.buffer = b""
            return
        # As text: the guest has a /tmp of its own, and this may be a checkout below the machine's.
        program = pathlib.Path(__file__).with_name("drive.py").read_text()
        super().__init__([lab.GUEST, "exec", node.guest.name, "-i", "--", *node.prefix, "python3", "-ES", "-c", program])

    def is_as_new(self):
        """The program closes all it has; False if it does not say so in time."""
        try:
            self.request("renew")
            return (self.answer(2) or [None])[0] == "ready"
        except (lab.LabError, BrokenPipeError):
            return False

    def close(self):
        if self.is_returned:
            return
        self.is_returned = True
        spare = self.node.spare_programs
        if not self.node.namespace and len(spare) < self.SPARE_MAX and self.is_as_new():
            spare.append((self.process, self.pid))
        else:
            super().close()


class LinuxNode(lab.Node):
    """A Linux TIPC node: the guest's main namespace, or another one in the same guest."""

    def __init__(self, guest, identity, interface="eth0", cluster_id=None, namespace=None):
        self.guest, self.identity, self.interface = guest, identity, interface
        self.cluster_id, self.namespace = cluster_id, namespace
        self.spare_programs = []
        if namespace:
            # The kernel gives an interface back some time after the namespace that had it is gone.
            guest.exec(f"n=0; until [ -e /sys/class/net/{interface} ] || [ $((n += 1)) -gt 50 ]; do sleep 0.1; done;"
                       f" ip netns add {namespace} && ip link set {interface} netns {namespace} &&"
                       f" ip -n {namespace} link set lo up")

    @property
    def prefix(self):
        return ["ip", "netns", "exec", self.namespace] if self.namespace else []

    def close(self):
        """Ends the programs that nobody asks for any more."""
        for process, _ in self.spare_programs:
            process.kill()
            process.communicate()

    def exec(self, *words, timeout_s=30):
        return self.guest.exec(*self.prefix, *words, timeout_s=timeout_s)

    def configure(self):
        self.exec("ip", "link", "set", self.interface, "up")
        if self.cluster_id:
            self.exec("tipc", "node", "set", "clusterid", str(self.cluster_id))
        self.exec("tipc", "node", "set", "identity", self.identity)

    def enable(self):
        self.exec("tipc", "bearer", "enable", "media", "eth", "device", self.interface)

    def disable(self):
        self.exec("tipc", "bearer", "disable", "media", "eth", "device", self.interface)

    def tool(self, *words):
        return self.exec("tipc", *words)

    def mac(self):
        text = self.exec("cat", f"/sys/class/net/{self.interface}/address")
        return bytes.fromhex(text.strip().replace(":", ""))

    def start_loss(self, percent):
        """The node loses this share of what it sends, and as much of what it receives."""
        self.guest.exec(" && ".join([
            f"tc qdisc add dev {self.interface} root netem loss {percent}%",
            "ip link add loss type ifb && ip link set loss up",
            f"tc qdisc add dev {self.interface} ingress",
            f"tc filter add dev {self.interface} parent ffff: matchall action mirred egress redirect dev loss",
            f"tc qdisc add dev loss root netem loss {percent}%"]))

    def end_loss(self):
        self.guest.exec(f"tc qdisc del dev {self.interface} root; tc qdisc del dev {self.interface} ingress;"
                        " ip link del loss")

    def drive(self):
        return LinuxDriver(self)
