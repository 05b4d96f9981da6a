import org.apache.kafka.clients.admin.AdminClient;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

import java.time.Duration;
import java.util.Collections;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicReference;

/**
 * The load of compat-tests/src/load.rs with Apache Kafka's Java client: an idempotent producer and a
 * group that commits, until the standard input ends. Arguments: "load", bootstrap servers, topic,
 * partitions, bytes that each record has more than its number. Prints "a PARTITION NUMBER" for each
 * acknowledged record and "c PARTITION OFFSET" for each acknowledged commit.
 */
public final class Load {
    private final String servers;
    private final String topic;
    private final int partitions;
    private final int padding;
    private final AtomicReference<String> failure = new AtomicReference<>();
    private volatile boolean over;

    private Load(String servers, String topic, int partitions, int padding) {
        this.servers = servers;
        this.topic = topic;
        this.partitions = partitions;
        this.padding = padding;
    }

    private Properties config() {
        Properties config = new Properties();
        config.put("bootstrap.servers", servers);
        config.put("reconnect.backoff.max.ms", "500");
        return config;
    }

    private long produce() throws InterruptedException {
        Properties config = config();
        config.put("enable.idempotence", "true");
        config.put("acks", "all");
        config.put("delivery.timeout.ms", "600000");
        config.put("max.block.ms", "600000");
        config.put("request.timeout.ms", "10000");
        config.put("key.serializer", StringSerializer.class.getName());
        config.put("value.serializer", StringSerializer.class.getName());
        if (padding > 0) {
            // What is to be delivered at the end must fit.
            config.put("buffer.memory", "4194304");
        }
        String rest = padding > 0 ? " " + "x".repeat(padding) : "";
        long number = 0;
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(config)) {
            for (; !over; number++) {
                for (int i = 0; i < partitions; i++) {
                    int partition = i;
                    long mine = number;
                    producer.send(new ProducerRecord<>(topic, partition, null, mine + rest),
                        (metadata, e) -> {
                            if (e == null) {
                                System.out.println("a " + partition + " " + mine);
                            } else {
                                failure.compareAndSet(null, "record " + mine + ": " + e);
                            }
                        });
                }
                Thread.sleep(0, 200_000);
            }
            producer.flush();
        }
        return number * partitions;
    }

    /** An acknowledged commit is never followed by an older committed offset. */
    private void commit() {
        Properties config = config();
        config.put("group.id", topic + "-group");
        config.put("auto.offset.reset", "earliest");
        config.put("enable.auto.commit", "false");
        config.put("session.timeout.ms", "10000");
        config.put("heartbeat.interval.ms", "500");
        config.put("default.api.timeout.ms", "5000");
        config.put("key.deserializer", StringDeserializer.class.getName());
        config.put("value.deserializer", StringDeserializer.class.getName());
        Map<TopicPartition, Long> acknowledged = new HashMap<>();
        Map<TopicPartition, OffsetAndMetadata> read = new HashMap<>();
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(config)) {
            consumer.subscribe(Collections.singleton(topic));
            while (!over && failure.get() == null) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(100))) {
                    read.put(new TopicPartition(topic, record.partition()),
                        new OffsetAndMetadata(record.offset() + 1));
                }
                read.keySet().retainAll(consumer.assignment());
                try {
                    consumer.commitSync(read, Duration.ofSeconds(5));
                    read.forEach((partition, offset) -> {
                        acknowledged.put(partition, offset.offset());
                        System.out.println("c " + partition.partition() + " " + offset.offset());
                    });
                    check(consumer, acknowledged);
                } catch (RetriableException | org.apache.kafka.clients.consumer.CommitFailedException e) {
                    // The broker is down or the group starts anew: later again.
                }
            }
        } catch (Exception e) {
            failure.compareAndSet(null, "group: " + e);
        }
    }

    private void check(KafkaConsumer<String, String> consumer, Map<TopicPartition, Long> acknowledged) {
        Map<TopicPartition, OffsetAndMetadata> committed =
            consumer.committed(acknowledged.keySet(), Duration.ofSeconds(5));
        acknowledged.forEach((partition, least) -> {
            OffsetAndMetadata offset = committed.get(partition);
            if (offset == null || offset.offset() < least) {
                failure.compareAndSet(null, partition + ": " + offset + " committed, not " + least);
            }
        });
    }

    private String run() throws Exception {
        try (AdminClient admin = AdminClient.create(config())) {
            admin.createTopics(Collections.singleton(new NewTopic(topic, partitions, (short) 1))).all().get();
        }
        Thread end = new Thread(() -> {
            try {
                while (System.in.read() >= 0) {
                    Thread.yield();
                }
            } catch (java.io.IOException e) {
                failure.compareAndSet(null, "input: " + e);
            }
            over = true;
        });
        end.setDaemon(true);
        end.start();
        Thread group = new Thread(this::commit);
        group.start();
        long sent = produce();
        group.join();
        if (failure.get() != null) {
            throw new IllegalStateException(failure.get());
        }
        return sent + " records";
    }

    public static void main(String[] args) {
        int status = 0;
        try {
            int partitions = Integer.parseInt(args[3]);
            Load load = new Load(args[1], args[2], partitions, Integer.parseInt(args[4]));
            System.out.println("ok " + load.run());
        } catch (Exception e) {
            System.err.println("failed: " + e);
            status = 1;
        }
        System.out.flush();
        Runtime.getRuntime().halt(status);
    }
}
