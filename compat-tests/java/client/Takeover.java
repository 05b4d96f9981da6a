import org.apache.kafka.clients.admin.AdminClient;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.Future;

/**
 * What lies in a cluster before and after another broker took its directory over (compat-tests/src/takeover.rs).
 * "write SERVERS ROUND [transactions] [keep]" creates and, without keep, deletes topics, writes with every codec,
 * tombstones and transactions among it, and commits offsets. "digest SERVERS" prints a line for each topic, partition and group.
 */
public final class Takeover {
    private static final String[] CODECS = {"none", "gzip", "snappy", "lz4", "zstd"};
    private static final int RECORDS = 300;
    private static final String PLAIN = "plain";
    private static final String COMPACTED = "compacted";
    private static final Duration LIMIT = Duration.ofSeconds(30);

    private static Properties config(String servers) {
        Properties config = new Properties();
        config.put("bootstrap.servers", servers);
        config.put("key.serializer", StringSerializer.class.getName());
        config.put("value.serializer", StringSerializer.class.getName());
        config.put("key.deserializer", StringDeserializer.class.getName());
        config.put("value.deserializer", StringDeserializer.class.getName());
        return config;
    }

    private static void write(String servers, int round, List<String> options) throws Exception {
        try (AdminClient admin = AdminClient.create(config(servers))) {
            if (round == 0) {
                NewTopic compacted = new NewTopic(COMPACTED, 1, (short) 1).configs(Map.of(
                    "cleanup.policy", "compact", "min.cleanable.dirty.ratio", "0.01", "segment.bytes", "1048576"));
                admin.createTopics(Arrays.asList(new NewTopic(PLAIN, 3, (short) 1), compacted)).all().get();
            } else if (!options.contains("keep")) {
                admin.deleteTopics(Collections.singleton("round-" + (round - 1))).all().get();
            }
            admin.createTopics(Collections.singleton(new NewTopic("round-" + round, 2, (short) 1))).all().get();
        }
        for (String codec : CODECS) {
            Properties config = config(servers);
            config.put("enable.idempotence", "true");
            config.put("acks", "all");
            config.put("compression.type", codec);
            config.put("linger.ms", "5");
            try (KafkaProducer<String, String> producer = new KafkaProducer<>(config)) {
                List<Future<?>> sent = new ArrayList<>();
                for (int i = 0; i < RECORDS; i++) {
                    String text = codec + " of round " + round + ", record " + i;
                    ProducerRecord<String, String> plain = new ProducerRecord<>(PLAIN, "k" + i % 97, text);
                    plain.headers().add("number", Integer.toString(i).getBytes(StandardCharsets.UTF_8));
                    sent.add(producer.send(plain));
                    String value = i % 50 == 7 ? null : text;
                    sent.add(producer.send(new ProducerRecord<>(COMPACTED, "k" + i % 50, value)));
                    sent.add(producer.send(new ProducerRecord<>("round-" + round, "k" + i, text)));
                }
                for (Future<?> one : sent) {
                    one.get();
                }
            }
        }
        if (options.contains("transactions")) {
            writeTransactions(servers, round);
        }
        readOn(servers);
        Properties config = config(servers);
        config.put("group.id", "group-" + round);
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(config)) {
            consumer.commitSync(Map.of(
                new TopicPartition(PLAIN, 0), new OffsetAndMetadata(10 + round, "first"),
                new TopicPartition(PLAIN, 2), new OffsetAndMetadata(20 + round)));
        }
    }

    private static void writeTransactions(String servers, int round) {
        Properties config = config(servers);
        config.put("transactional.id", "takeover");
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(config)) {
            producer.initTransactions();
            for (int n = 0; n < 4; n++) {
                producer.beginTransaction();
                for (int i = 0; i < 50; i++) {
                    String text = "transaction " + n + " of round " + round + ", record " + i;
                    producer.send(new ProducerRecord<>(PLAIN, i % 3, "t" + i, text));
                }
                producer.flush();
                if (n % 2 == 0) {
                    producer.commitTransaction();
                } else {
                    producer.abortTransaction();
                }
            }
        }
    }

    /** Reads what came since the last round, whichever broker that had, and commits with the leader epochs seen. */
    private static void readOn(String servers) throws Exception {
        Properties config = config(servers);
        config.put("group.id", "reader");
        config.put("enable.auto.commit", "false");
        config.put("auto.offset.reset", "earliest");
        List<TopicPartition> partitions = Arrays.asList(
            new TopicPartition(PLAIN, 0), new TopicPartition(PLAIN, 1), new TopicPartition(PLAIN, 2));
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(config)) {
            consumer.assign(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions, LIMIT);
            long deadline = System.nanoTime() + LIMIT.toNanos();
            long count = 0;
            for (TopicPartition partition : partitions) {
                while (consumer.position(partition, LIMIT) < ends.get(partition)) {
                    if (System.nanoTime() > deadline) {
                        throw new IllegalStateException("group reader does not go on in " + partition);
                    }
                    count += consumer.poll(Duration.ofMillis(200)).count();
                }
            }
            if (count < RECORDS) {
                throw new IllegalStateException("group reader has read " + count + " records");
            }
            consumer.commitSync(LIMIT);
        }
    }

    private static void digest(String servers) throws Exception {
        Properties config = config(servers);
        config.put("isolation.level", "read_committed");
        config.put("enable.auto.commit", "false");
        config.put("auto.offset.reset", "none");
        try (AdminClient admin = AdminClient.create(config(servers));
             KafkaConsumer<String, String> consumer = new KafkaConsumer<>(config)) {
            Map<String, List<PartitionInfo>> topics = consumer.listTopics(LIMIT);
            // A Kafka with ZooKeeper answers before its controller has told it which topics there are.
            long deadline = System.nanoTime() + LIMIT.toNanos();
            while (topics.keySet().stream().allMatch(topic -> topic.startsWith("__"))) {
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException("no topics");
                }
                Thread.sleep(50);
                topics = consumer.listTopics(LIMIT);
            }
            for (String topic : new TreeSet<>(topics.keySet())) {
                if (topic.startsWith("__")) {
                    continue;
                }
                System.out.println("d " + topic + " " + configs(admin, topic));
                for (int partition = 0; partition < topics.get(topic).size(); partition++) {
                    System.out.println("d " + read(consumer, new TopicPartition(topic, partition)));
                }
            }
            TreeSet<String> groups = new TreeSet<>();
            admin.listConsumerGroups().all().get().forEach(group -> groups.add(group.groupId()));
            for (String group : groups) {
                TreeMap<String, String> offsets = new TreeMap<>();
                admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().forEach(
                    (partition, offset) -> offsets.put(partition.toString(), offset.offset() + offset.metadata()));
                System.out.println("d " + group + " " + offsets);
            }
        }
    }

    private static TreeMap<String, String> configs(AdminClient admin, String topic) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        Config config = admin.describeConfigs(Collections.singleton(resource)).all().get().get(resource);
        TreeMap<String, String> own = new TreeMap<>();
        for (ConfigEntry entry : config.entries()) {
            if (entry.source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG) {
                own.put(entry.name(), entry.value());
            }
        }
        return own;
    }

    /** Of a compacted topic the last value of each key counts, of others every record. */
    private static String read(KafkaConsumer<String, String> consumer, TopicPartition partition) throws Exception {
        List<TopicPartition> one = Collections.singletonList(partition);
        long begin = consumer.beginningOffsets(one, LIMIT).get(partition);
        long end = consumer.endOffsets(one, LIMIT).get(partition);
        consumer.assign(one);
        consumer.seek(partition, begin);
        TreeMap<String, String> last = new TreeMap<>();
        MessageDigest digest = MessageDigest.getInstance("SHA-256");
        long count = 0;
        long deadline = System.nanoTime() + LIMIT.toNanos();
        while (consumer.position(partition, LIMIT) < end) {
            if (System.nanoTime() > deadline) {
                throw new IllegalStateException(partition + " does not come to its end " + end);
            }
            for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) {
                StringBuilder text = new StringBuilder();
                text.append(record.offset()).append(' ').append(record.timestamp()).append(' ');
                text.append(record.key()).append(' ').append(record.value());
                for (Header header : record.headers()) {
                    text.append(' ').append(header.key()).append('=');
                    text.append(new String(header.value(), StandardCharsets.UTF_8));
                }
                if (!partition.topic().equals(COMPACTED)) {
                    count++;
                    digest.update(text.toString().getBytes(StandardCharsets.UTF_8));
                } else if (record.value() == null) {
                    last.remove(record.key());
                } else {
                    last.put(record.key(), text.toString());
                }
            }
        }
        digest.update(last.toString().getBytes(StandardCharsets.UTF_8));
        StringBuilder hex = new StringBuilder();
        for (byte b : digest.digest()) {
            hex.append(String.format("%02x", b));
        }
        // A compacted topic's records are fewer after each cleaning.
        String range = partition.topic().equals(COMPACTED) ? "to " + end : begin + " to " + end;
        return partition + " " + range + ", " + (count + last.size()) + " records " + hex;
    }

    public static void main(String[] args) {
        int status = 0;
        try {
            if (args[0].equals("write")) {
                write(args[1], Integer.parseInt(args[2]), Arrays.asList(args).subList(3, args.length));
            } else {
                digest(args[1]);
            }
            System.out.println("ok");
        } catch (Exception e) {
            System.err.println("failed: " + e);
            status = 1;
        }
        System.out.flush();
        Runtime.getRuntime().halt(status);
    }
}
