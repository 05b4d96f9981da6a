"""The group scenario with confluent-kafka."""

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

import scenario


class Client:
    def __init__(self, servers):
        self.servers = servers

    def create(self, topics):
        admin = AdminClient({"bootstrap.servers": self.servers})
        created = admin.create_topics([NewTopic(topic, 3, 1) for topic in topics])
        for future in created.values():
            future.result()
        # Apache Kafka answers before the partitions are led, and a producer's first batch that
        # comes too early may end up behind its second.
        wanted = {
            TopicPartition(topic, partition): OffsetSpec.earliest()
            for topic in topics
            for partition in range(3)
        }
        self.scenario.wait("leaders", lambda: self.are_led(admin, wanted))

    @staticmethod
    def are_led(admin, wanted):
        try:
            for future in admin.list_offsets(wanted).values():
                future.result()
        except KafkaException:
            return False
        return True

    def produce(self, topic, codec, records):
        def delivered(error, _):
            if error:
                self.scenario.fail(f"produce: {error}")

        config = {
            "bootstrap.servers": self.servers,
            "compression.type": codec,
            "enable.idempotence": True,
            "linger.ms": 5,
        }
        producer = Producer(config)
        for key, value in records:
            while True:
                try:
                    producer.produce(topic, value, key, on_delivery=delivered)
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
        if producer.flush(scenario.LIMIT_S):
            raise RuntimeError("not everything was delivered")

    def consume(self, member):
        consumer = Consumer(
            {
                "bootstrap.servers": self.servers,
                "group.id": self.scenario.prefix,
                "client.id": member.name,
                "auto.offset.reset": "earliest",
                "heartbeat.interval.ms": 500,
            }
        )

        def assigned(_, partitions):
            if partitions:
                member.assigned.set()

        consumer.subscribe(self.scenario.topics, on_assign=assigned)
        while not member.leave.is_set():
            record = consumer.poll(0.1)
            if record is None:
                continue
            if record.error():
                raise RuntimeError(str(record.error()))
            self.scenario.take(record.topic(), record.key(), record.value())
        consumer.close()


scenario.main(Client, ["none", "gzip", "snappy", "lz4", "zstd"])
