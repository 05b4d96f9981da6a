//! Kafka's scripts: the class that each runs, and the options that 3.9.1 spells otherwise.
//!
//! Transcripts are written with the names of 4.3.1. An option that 3.9.1 does not know at all is
//! not in the table: its tools then say so, as they do to anybody.

use crate::java::KAFKA_OLDER;

/// The class that a script ran in 3.9.1.
enum Older {
    Same,
    Was(&'static str),
    Missing,
}

/// The names of Kafka's scripts and the classes that they run.
const TOOLS: &[(&str, &str, Older)] = &[
    ("kafka-topics", "org.apache.kafka.tools.TopicCommand", Older::Same),
    (
        "kafka-console-producer",
        "org.apache.kafka.tools.ConsoleProducer",
        Older::Was("kafka.tools.ConsoleProducer"),
    ),
    ("kafka-console-consumer", "org.apache.kafka.tools.consumer.ConsoleConsumer", Older::Same),
    (
        "kafka-consumer-groups",
        "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        Older::Same,
    ),
    ("kafka-configs", "kafka.admin.ConfigCommand", Older::Same),
    ("kafka-get-offsets", "org.apache.kafka.tools.GetOffsetShell", Older::Same),
    ("kafka-delete-records", "org.apache.kafka.tools.DeleteRecordsCommand", Older::Same),
    ("kafka-log-dirs", "org.apache.kafka.tools.LogDirsCommand", Older::Same),
    (
        "kafka-broker-api-versions",
        "org.apache.kafka.tools.BrokerApiVersionsCommand",
        Older::Was("kafka.admin.BrokerApiVersionsCommand"),
    ),
    ("kafka-cluster", "org.apache.kafka.tools.ClusterTool", Older::Same),
    ("kafka-features", "org.apache.kafka.tools.FeatureCommand", Older::Same),
    ("kafka-metadata-quorum", "org.apache.kafka.tools.MetadataQuorumCommand", Older::Same),
    ("kafka-groups", "org.apache.kafka.tools.GroupsCommand", Older::Missing),
    ("kafka-verifiable-producer", "org.apache.kafka.tools.VerifiableProducer", Older::Same),
    ("kafka-verifiable-consumer", "org.apache.kafka.tools.VerifiableConsumer", Older::Same),
    ("kafka-leader-election", "org.apache.kafka.tools.LeaderElectionCommand", Older::Same),
    (
        "kafka-reassign-partitions",
        "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
        Older::Same,
    ),
    ("kafka-producer-perf-test", "org.apache.kafka.tools.ProducerPerformance", Older::Same),
    ("kafka-consumer-perf-test", "org.apache.kafka.tools.ConsumerPerformance", Older::Same),
    ("kafka-transactions", "org.apache.kafka.tools.TransactionsCommand", Older::Same),
    ("kafka-acls", "org.apache.kafka.tools.AclCommand", Older::Was("kafka.admin.AclCommand")),
    ("kafka-client-metrics", "org.apache.kafka.tools.ClientMetricsCommand", Older::Same),
    ("kafka-replica-verification", "org.apache.kafka.tools.ReplicaVerificationTool", Older::Same),
    (
        "kafka-dump-log",
        "org.apache.kafka.tools.DumpLogSegments",
        Older::Was("kafka.tools.DumpLogSegments"),
    ),
];

/// Script, option, what 3.9.1 calls it, and what it puts before the option's value.
const OPTIONS: &[(&str, &str, &str, &str)] = &[
    ("kafka-console-producer", "--reader-property", "--property", ""),
    ("kafka-console-producer", "--command-property", "--producer-property", ""),
    ("kafka-console-consumer", "--formatter-property", "--property", ""),
    ("kafka-console-consumer", "--command-property", "--consumer-property", ""),
    ("kafka-producer-perf-test", "--bootstrap-server", "--producer-props", "bootstrap.servers="),
];

/// The class that a script runs in a version; none if the version has no such script.
pub fn class_of(script: &str, version: &str) -> Option<&'static str> {
    let (_, class, older) = TOOLS.iter().find(|(name, ..)| *name == script)?;
    match older {
        Older::Was(class) if version == KAFKA_OLDER => Some(class),
        Older::Missing if version == KAFKA_OLDER => None,
        _ => Some(class),
    }
}

/// The arguments of a script as a version spells them.
pub fn spelled(script: &str, args: Vec<String>, version: &str) -> Vec<String> {
    if version != KAFKA_OLDER {
        return args;
    }
    let mut prefix = "";
    let mut spelled = Vec::new();
    for arg in args {
        let option = OPTIONS.iter().find(|(name, new, ..)| *name == script && *new == arg);
        spelled.push(match option {
            Some((_, _, old, _)) => (*old).to_owned(),
            None => format!("{prefix}{arg}"),
        });
        prefix = option.map_or("", |(.., prefix)| prefix);
    }
    spelled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::java::KAFKA;

    fn check(version: &str, line: &str, expected: &str) {
        let mut words = line.split(' ').map(str::to_owned);
        let script = words.next().unwrap_or_default();
        assert_eq!(spelled(&script, words.collect(), version).join(" "), expected);
    }

    #[test]
    fn older_tools_get_the_options_that_they_know() {
        let line = "kafka-console-consumer --topic a --formatter-property print.key=true";
        check(KAFKA, line, "--topic a --formatter-property print.key=true");
        check(KAFKA_OLDER, line, "--topic a --property print.key=true");
        let line = "kafka-producer-perf-test --bootstrap-server b:1 --topic a";
        check(KAFKA_OLDER, line, "--producer-props bootstrap.servers=b:1 --topic a");
        check(KAFKA_OLDER, "kafka-topics --bootstrap-server b:1", "--bootstrap-server b:1");
    }

    #[test]
    fn a_script_that_came_later_has_no_older_class() {
        assert_eq!(class_of("kafka-groups", KAFKA_OLDER), None);
        assert!(class_of("kafka-groups", KAFKA).is_some());
        assert_eq!(class_of("kafka-acls", KAFKA_OLDER), Some("kafka.admin.AclCommand"));
    }
}
