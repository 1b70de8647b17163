"""A link with a real Linux node under full traffic: over a wire that loses, doubles and reorders, and over a sound one."""
import load
from cluster import LinuxTest


class LinuxImpairedTest(LinuxTest):
    def test_full_traffic_is_whole_over_a_wire_that_loses_doubles_and_reorders_5_percent(self):
        with self.impaired("linux", self.alpha, self.linux):
            traffic = load.Load(self, 600 if self.segment.full else 5, self.alpha, self.linux)
            with self.without_resets(self.alpha, self.linux):
                traffic.run()
            traffic.report("5 % loss, duplication and reordering each way")
            self.await_equal_tables(self.alpha, self.linux)

    def test_full_traffic_over_a_sound_wire_is_hardly_ever_sent_again(self):
        # Before it is judged, each end learns how late packets of the other may be.
        load.Load(self, 3, self.alpha, self.linux).run()
        traffic = load.Load(self, 120 if self.segment.full else 6, self.alpha, self.linux)
        with self.without_resets(self.alpha, self.linux):
            traffic.run()
        traffic.report("sound wire")
        traffic.check_hardly_repeated()
