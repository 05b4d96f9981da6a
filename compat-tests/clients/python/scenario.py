"""The group scenario (compat-tests/src/clients.rs says what it is) for clients in Python.

A client brings `create(topics)`, `produce(topic, codec, records)` and `consume(member)`, which reads
until `member.leave` and gives every record to `take`.
"""

import os
import sys
import threading
import time

KEYS = 100
LIMIT_S = int(os.environ.get("COMPAT_LIMIT_S", "120"))


class Member(threading.Thread):
    def __init__(self, scenario, name):
        super().__init__(name=name, daemon=True)
        self.scenario = scenario
        self.leave = threading.Event()
        self.assigned = threading.Event()
        self.start()

    def run(self):
        try:
            self.scenario.client.consume(self)
        except Exception as e:  # whatever it is, it ends the scenario
            self.scenario.fail(f"{self.name}: {e!r}")

    def end(self):
        self.leave.set()
        self.join()


class Scenario:
    def __init__(self, client, codecs, prefix, count):
        self.client = client
        self.codecs = codecs
        self.prefix = prefix
        self.count = count
        self.topics = [f"{prefix}-{codec}" for codec in codecs]
        self.lock = threading.Lock()
        self.last = {}
        self.seen = 0
        self.redelivered = 0
        self.failure = None

    def fail(self, why):
        with self.lock:
            self.failure = self.failure or why

    def take(self, topic, key, value):
        """A record again is a redelivery; a record out of turn is one lost or out of order."""
        number = int(value.split(b" ", 1)[0])
        name = (topic, key)
        with self.lock:
            last = self.last.get(name)
            expected = int(key[1:]) if last is None else last + KEYS
            if number == expected:
                self.last[name] = number
                self.seen += 1
            elif number < expected:
                self.redelivered += 1
            elif self.failure is None:
                self.failure = f"{name}: {number} came instead of {expected}"

    def produce(self, first, end):
        for codec, topic in zip(self.codecs, self.topics):
            records = (
                (b"k%d" % (i % KEYS), b"%d the same words again and again for %s" % (i, codec.encode()))
                for i in range(first, end)
            )
            self.client.produce(topic, codec, records)

    def wait(self, what, holds):
        deadline = time.monotonic() + LIMIT_S
        while True:
            if self.failure:
                raise RuntimeError(self.failure)
            if holds():
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"no {what}; records seen: {self.seen}")
            time.sleep(0.01)

    def run(self):
        self.client.create(self.topics)
        first, second = self.count * 4 // 10, self.count * 7 // 10
        one, two = Member(self, "one"), Member(self, "two")
        self.produce(0, first)
        self.wait("first part", lambda: self.seen >= first * len(self.codecs) // 2)
        three = Member(self, "three")
        self.produce(first, second)
        self.wait("member that joined", three.assigned.is_set)
        one.end()
        self.produce(second, self.count)
        self.wait("end", lambda: self.seen == self.count * len(self.codecs))
        two.end()
        three.end()
        self.wait("good end", lambda: True)


def main(client_of, codecs):
    servers, prefix, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    scenario = Scenario(client_of(servers), codecs, prefix, count)
    scenario.client.scenario = scenario
    try:
        scenario.run()
    except Exception as e:
        print(f"failed: {e!r}", file=sys.stderr, flush=True)
        os._exit(1)
    print(f"ok {scenario.seen} records, {scenario.redelivered} redelivered", flush=True)
