import org.apache.kafka.clients.admin.AdminClient;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicReference;

/**
 * The group scenario (compat-tests/src/clients.rs says what it is) with Apache Kafka's Java client.
 * Arguments: bootstrap servers, prefix of topics, number of records for each codec. It uses nothing
 * that client 2.8 does not have, so that one class runs with every version.
 */
public final class GroupScenario {
    private static final String[] CODECS = {"none", "gzip", "snappy", "lz4", "zstd"};
    private static final int KEYS = 100;
    private static final int PARTITIONS = 3;
    private static final long LIMIT_MS = Long.getLong("limit.ms", 120_000);

    private final String servers;
    private final String prefix;
    private final int count;
    private final Map<String, Integer> last = new HashMap<>();
    private final AtomicReference<String> failure = new AtomicReference<>();
    private long seen;
    private long redelivered;

    private GroupScenario(String servers, String prefix, int count) {
        this.servers = servers;
        this.prefix = prefix;
        this.count = count;
    }

    private final class Member extends Thread {
        private volatile boolean leave;
        private volatile boolean assigned;

        Member(String name) {
            super(name);
        }

        @Override
        public void run() {
            Properties config = config();
            config.put("group.id", prefix);
            config.put("client.id", getName());
            config.put("auto.offset.reset", "earliest");
            config.put("heartbeat.interval.ms", "500");
            config.put("key.deserializer", StringDeserializer.class.getName());
            config.put("value.deserializer", StringDeserializer.class.getName());
            try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(config)) {
                consumer.subscribe(topics(), new ConsumerRebalanceListener() {
                    @Override
                    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                    }

                    @Override
                    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                        assigned |= !partitions.isEmpty();
                    }
                });
                while (!leave && failure.get() == null) {
                    for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(100))) {
                        take(record.topic(), record.key(), record.value());
                    }
                }
            } catch (Exception e) {
                failure.compareAndSet(null, getName() + ": " + e);
            }
        }

        void end() throws InterruptedException {
            leave = true;
            join();
        }
    }

    private Properties config() {
        Properties config = new Properties();
        config.put("bootstrap.servers", servers);
        return config;
    }

    private List<String> topics() {
        List<String> topics = new ArrayList<>();
        for (String codec : CODECS) {
            topics.add(prefix + "-" + codec);
        }
        return topics;
    }

    /** A record again is a redelivery; a record out of turn is one lost or out of order. */
    private synchronized void take(String topic, String key, String value) {
        int number = Integer.parseInt(value.substring(0, value.indexOf(' ')));
        String name = topic + "/" + key;
        int expected = last.containsKey(name) ? last.get(name) + KEYS : Integer.parseInt(key.substring(1));
        if (number == expected) {
            last.put(name, number);
            seen++;
        } else if (number < expected) {
            redelivered++;
        } else {
            failure.compareAndSet(null, name + ": " + number + " came instead of " + expected);
        }
    }

    private synchronized long seen() {
        return seen;
    }

    private void produce(int from, int to) throws Exception {
        for (String codec : CODECS) {
            Properties config = config();
            config.put("compression.type", codec);
            config.put("acks", "all");
            config.put("enable.idempotence", "true");
            config.put("linger.ms", "5");
            config.put("key.serializer", StringSerializer.class.getName());
            config.put("value.serializer", StringSerializer.class.getName());
            try (KafkaProducer<String, String> producer = new KafkaProducer<>(config)) {
                for (int i = from; i < to; i++) {
                    String value = i + " the same words again and again for " + codec;
                    producer.send(new ProducerRecord<>(prefix + "-" + codec, "k" + i % KEYS, value),
                        (metadata, e) -> {
                            if (e != null) {
                                failure.compareAndSet(null, "produce: " + e);
                            }
                        });
                }
                producer.flush();
            }
        }
    }

    private interface Condition {
        boolean holds();
    }

    private void await(String what, Condition condition) throws InterruptedException {
        long deadline = System.currentTimeMillis() + LIMIT_MS;
        while (!condition.holds()) {
            String failed = failure.get();
            if (failed != null) {
                throw new IllegalStateException(failed);
            }
            if (System.currentTimeMillis() > deadline) {
                throw new IllegalStateException("no " + what + "; records seen: " + seen());
            }
            Thread.sleep(10);
        }
    }

    /**
     * Apache Kafka answers CreateTopics before its broker leads the partitions. A producer's first
     * batch that comes too early is refused, its second may be taken, and then the first is sent
     * again behind it. The client asks for offsets until there is a leader.
     */
    private void awaitLeaders(AdminClient admin) throws Exception {
        Map<TopicPartition, OffsetSpec> wanted = new HashMap<>();
        for (String topic : topics()) {
            for (int partition = 0; partition < PARTITIONS; partition++) {
                wanted.put(new TopicPartition(topic, partition), OffsetSpec.earliest());
            }
        }
        admin.listOffsets(wanted).all().get();
    }

    private void run() throws Exception {
        try (AdminClient admin = AdminClient.create(config())) {
            List<NewTopic> wanted = new ArrayList<>();
            for (String topic : topics()) {
                wanted.add(new NewTopic(topic, PARTITIONS, (short) 1));
            }
            admin.createTopics(wanted).all().get();
            awaitLeaders(admin);
        }
        int first = count * 4 / 10;
        int second = count * 7 / 10;
        Member one = new Member("one");
        Member two = new Member("two");
        Member three = new Member("three");
        one.start();
        two.start();
        produce(0, first);
        await("first part", () -> seen() >= (long) first * CODECS.length / 2);
        three.start();
        produce(first, second);
        await("member that joined", () -> three.assigned);
        one.end();
        produce(second, count);
        await("end", () -> seen() == (long) count * CODECS.length);
        two.end();
        three.end();
        await("good end", () -> true);
        System.out.println("ok " + seen + " records, " + redelivered + " redelivered");
    }

    public static void main(String[] args) {
        try {
            new GroupScenario(args[0], args[1], Integer.parseInt(args[2])).run();
            Runtime.getRuntime().halt(0);
        } catch (Exception e) {
            System.err.println("failed: " + e);
            Runtime.getRuntime().halt(1);
        }
    }
}
