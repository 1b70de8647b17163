"""Answers by service name: a message never overtakes the binding its sender made before."""
import time

from cluster import PairTest

ANSWER = 40100
# Questions under way at once. One after the other would mostly wait for lost packets to be noticed.
WIDTH = 64


class XtipcAnswersTest(PairTest):
    def test_who_binds_and_asks_gets_every_answer_by_name(self):
        self.ask(1_000_000 if self.segment.full else 20_000, width=1)

    def test_who_binds_and_asks_gets_every_answer_by_name_over_a_wire_that_loses_5_percent(self):
        with self.impaired("beta", self.alpha, self.beta):
            self.ask(100_000 if self.segment.full else 1_000, WIDTH)

    def ask(self, count, width):
        client, server = self.drive(self.alpha).open(), self.drive(self.beta).open()
        began = time.monotonic()
        server.start_answer(count)
        answered = client.ask(server.address, ANSWER, count, width, timeout_s=60 + count / 50)
        print(f"{answered} of {count} answers by service name, {(time.monotonic() - began) / count * 1e6:.0f} us each")
        self.assertEqual((answered, server.answered()), (count, (count, 0)))
        self.await_equal_tables(self.alpha, self.beta, timeout_s=30)
