import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

import java.time.Duration;
import java.time.Instant;
import java.util.Collections;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;

/**
 * The load of compat-tests/src/writer.rs with Apache Kafka's Java client at its defaults: an idempotent producer and,
 * where a group is named, its only member, that print all they do (the lines of compat-tests/src/history.rs) until
 * the standard input ends. Arguments: "history", bootstrap servers, topic, partitions, microseconds between two
 * records, and perhaps a group; or "sweep", bootstrap servers, topic, partitions.
 */
public final class HistoryLoad {
    private static final int KEYS = 4;

    private final String servers;
    private final String topic;
    private final int partitions;
    private final long pauseUs;
    private final AtomicReference<String> failure = new AtomicReference<>();
    private volatile boolean over;

    private HistoryLoad(String servers, String topic, int partitions, long pauseUs) {
        this.servers = servers;
        this.topic = topic;
        this.partitions = partitions;
        this.pauseUs = pauseUs;
    }

    private static long nowUs() {
        Instant now = Instant.now();
        return now.getEpochSecond() * 1_000_000 + now.getNano() / 1000;
    }

    private static void say(String line) {
        synchronized (System.out) {
            System.out.println(line);
        }
    }

    private KafkaProducer<String, String> producer(Properties config) {
        config.put("bootstrap.servers", servers);
        config.put("enable.idempotence", "true");
        config.put("acks", "all");
        config.put("key.serializer", StringSerializer.class.getName());
        config.put("value.serializer", StringSerializer.class.getName());
        return new KafkaProducer<>(config);
    }

    private void send(KafkaProducer<String, String> producer, long key, long sequence) {
        String what = key + " " + sequence;
        say("p " + nowUs() + " " + what);
        producer.send(new ProducerRecord<>(topic, (int) (key % partitions), "" + key, "" + sequence),
            (metadata, e) -> {
                if (e == null) {
                    say("a " + nowUs() + " " + what + " " + metadata.partition() + " " + metadata.offset());
                } else {
                    say("f " + nowUs() + " " + what + " " + ("" + e).replace('\n', ' '));
                }
            });
    }

    private long produce() {
        int keys = partitions * KEYS;
        long number = 0;
        try (KafkaProducer<String, String> producer = producer(new Properties())) {
            for (; !over; number++) {
                send(producer, number % keys, number / keys);
                LockSupport.parkNanos(pauseUs * 1000);
            }
            producer.flush();
        }
        return number;
    }

    /** One record to each partition for each line of the standard input; many partitions go in one request. */
    private String sweep() throws java.io.IOException {
        Properties config = new Properties();
        config.put("linger.ms", "20");
        long sweeps = 0;
        try (KafkaProducer<String, String> producer = producer(config)) {
            for (int read = System.in.read(); read >= 0; read = System.in.read()) {
                for (int partition = 0; partition < partitions; partition++) {
                    send(producer, partition, sweeps);
                }
                sweeps++;
            }
            producer.flush();
        }
        return sweeps + " sweeps";
    }

    private void consume(String group) {
        Properties config = new Properties();
        config.put("bootstrap.servers", servers);
        config.put("group.id", group);
        config.put("auto.offset.reset", "earliest");
        config.put("enable.auto.commit", "false");
        config.put("session.timeout.ms", "10000");
        config.put("heartbeat.interval.ms", "500");
        config.put("key.deserializer", StringDeserializer.class.getName());
        config.put("value.deserializer", StringDeserializer.class.getName());
        Map<TopicPartition, OffsetAndMetadata> read = new HashMap<>();
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(config)) {
            consumer.subscribe(Collections.singleton(topic));
            while (!over) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(100))) {
                    say("r " + nowUs() + " " + record.partition() + " " + record.offset() + " " + record.key() + " "
                        + record.value());
                    read.put(new TopicPartition(topic, record.partition()),
                        new OffsetAndMetadata(record.offset() + 1));
                }
                if (!read.isEmpty()) {
                    commit(consumer, read);
                    read.clear();
                }
            }
        } catch (Exception e) {
            failure.compareAndSet(null, "group: " + e);
        }
    }

    private void commit(KafkaConsumer<String, String> consumer, Map<TopicPartition, OffsetAndMetadata> read) {
        try {
            read.forEach((partition, offset) ->
                say("k " + nowUs() + " " + partition.partition() + " " + offset.offset()));
            consumer.commitSync(read, Duration.ofSeconds(5));
            read.forEach((partition, offset) ->
                say("c " + nowUs() + " " + partition.partition() + " " + offset.offset()));
        } catch (RetriableException | RebalanceInProgressException | CommitFailedException e) {
            // Done or not; the checker knows that nobody knows.
        }
        try {
            consumer.committed(read.keySet(), Duration.ofSeconds(5)).forEach((partition, offset) ->
                say("o " + nowUs() + " " + partition.partition() + " " + (offset == null ? -1 : offset.offset())));
        } catch (RetriableException e) {
            // Asked again after the next commit.
        }
    }

    private String run(String group) throws Exception {
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
        Thread reader = group == null ? null : new Thread(() -> consume(group));
        if (reader != null) {
            reader.start();
        }
        long sent = produce();
        if (reader != null) {
            reader.join();
        }
        if (failure.get() != null) {
            throw new IllegalStateException(failure.get());
        }
        return sent + " records";
    }

    public static void main(String[] args) {
        int status = 0;
        try {
            int partitions = Integer.parseInt(args[3]);
            boolean sweeps = args[0].equals("sweep");
            HistoryLoad load = new HistoryLoad(args[1], args[2], partitions, sweeps ? 0 : Long.parseLong(args[4]));
            say("ok " + (sweeps ? load.sweep() : load.run(args.length > 5 ? args[5] : null)));
        } catch (Exception e) {
            System.err.println("failed: " + e);
            status = 1;
        }
        System.out.flush();
        Runtime.getRuntime().halt(status);
    }
}
