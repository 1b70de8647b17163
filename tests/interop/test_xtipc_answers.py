"""Answers by service name: a message never overtakes the binding its sender made before."""
import time

from cluster import SegmentTest

ANSWER = 40100
PATIENCE_MS = 2000


class XtipcAnswersTest(SegmentTest):
    def test_who_binds_and_asks_gets_every_answer_by_name(self):
        beta = self.started("beta")
        self.await_link(self.alpha, beta)
        count = 1_000_000 if self.segment.full else 20_000
        client, server = self.drive(self.alpha).open(), self.drive(beta).open()
        began = time.monotonic()
        server.start_answer(count)
        answered = client.ask(server.address, ANSWER, count, PATIENCE_MS, timeout_s=count / 500)
        print(f"{answered} of {count} answers by service name, {(time.monotonic() - began) / count * 1e6:.0f} us each")
        self.assertEqual((answered, server.answered()), (count, (count, 0)))
        self.await_equal_tables(self.alpha, beta)
