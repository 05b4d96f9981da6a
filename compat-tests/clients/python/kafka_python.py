"""The group scenario with kafka-python."""

from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

import scenario


class Client:
    def __init__(self, servers):
        self.servers = servers

    def create(self, topics):
        admin = KafkaAdminClient(bootstrap_servers=self.servers)
        admin.create_topics([NewTopic(topic, 3, 1) for topic in topics])
        admin.close()
        # Apache Kafka answers before the partitions are led, and a producer's first batch that
        # comes too early may end up behind its second; this asks until there is a leader.
        consumer = KafkaConsumer(bootstrap_servers=self.servers)
        consumer.beginning_offsets([TopicPartition(topic, n) for topic in topics for n in range(3)])
        consumer.close()

    def produce(self, topic, codec, records):
        producer = KafkaProducer(
            bootstrap_servers=self.servers,
            compression_type=None if codec == "none" else codec,
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
        )
        futures = [producer.send(topic, key=key, value=value) for key, value in records]
        producer.flush(timeout=scenario.LIMIT_S)
        for future in futures:
            future.get(timeout=scenario.LIMIT_S)
        producer.close()

    def consume(self, member):
        class Listener(ConsumerRebalanceListener):
            def on_partitions_revoked(self, revoked):
                pass

            def on_partitions_assigned(self, assigned):
                if assigned:
                    member.assigned.set()

        consumer = KafkaConsumer(
            bootstrap_servers=self.servers,
            group_id=self.scenario.prefix,
            client_id=member.name,
            auto_offset_reset="earliest",
            heartbeat_interval_ms=500,
        )
        consumer.subscribe(self.scenario.topics, listener=Listener())
        while not member.leave.is_set():
            for records in consumer.poll(timeout_ms=100).values():
                for record in records:
                    self.scenario.take(record.topic, record.key, record.value)
        consumer.close()


scenario.main(Client, ["none", "gzip", "snappy", "lz4", "zstd"])
