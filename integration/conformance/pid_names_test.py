"""Two worlds that differ in pids alone read the same; whatever else differs still does."""

import unittest

from pid_names import names_in, with_names

LOG = """[2026-11-30 18:00:00.000 Control  {daemon:>5}] Starting control daemon using socket DIR
[2026-11-30 18:00:00.100 Control  {daemon:>5}] NEW CLIENT {client} from user 0: Server is not ready
[2026-11-30 18:00:00.200 Control  {daemon:>5}] Starting new server {server} for user 0
[2026-11-30 18:00:00.300 Control  {daemon:>5}] NEW CLIENT {client} from user 0: Server already exists
"""
UUID = "GPU-00000000-0000-4000-8000-000000000000"


class World:
    def __init__(self, daemon, server, client):
        self.client, self.server = client, server
        self.names = names_in(LOG.format(daemon=daemon, server=server, client=client), 7)

    def row(self, client_width=10, server_width=15):
        cells = f"{self.client:<{client_width}}{0:<10}{self.server:<{server_width}}"
        return self.read(f"out: {cells}{UUID[:22]:<26}4026531836     PROBE")

    def read(self, text):
        return with_names(text.format(client=self.client, server=self.server), self.names)


class PidNames(unittest.TestCase):
    def setUp(self):
        self.four_digits, self.five = World(9971, 9998, 9999), World(9995, 10021, 10022)
        self.across = World(9985, 9999, 10000)

    def test_digits_of_pids_do_not_change_a_row(self):
        self.assertEqual(self.four_digits.row(), self.five.row())
        self.assertEqual(self.across.row(), self.five.row())
        self.assertIn("<client 1>", self.five.row())
        self.assertIn("<server 1>", self.five.row())

    def test_another_width_of_a_column_is_seen(self):
        for widths in ({"client_width": 11}, {"server_width": 14}):
            self.assertNotEqual(self.five.row(**widths), self.five.row())

    def test_pids_in_sentences_have_names(self):
        said = "Server {server} exited with status 1. Client {client} was of server {server}."
        self.assertEqual(self.across.read(said), self.five.read(said))
        self.assertEqual(self.five.read(said), "Server <server 1> exited with status 1. "
                                               "Client <client 1> was of server <server 1>.")

    def test_digits_of_other_things_are_no_pids(self):
        world = World(daemon=8000, server=100, client=4000)
        for text in (f"> ask {UUID}", "out: 100.0", "out: 0.100", "pid_100", "100ms"):
            self.assertEqual(world.read(text), text)

    def test_who_is_not_in_the_log_keeps_the_pid(self):
        self.assertEqual(self.five.read("NEW CLIENT 4711"), "NEW CLIENT 4711")


if __name__ == "__main__":
    unittest.main()
