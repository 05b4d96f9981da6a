//! What formatting leaves, and what it refuses.

use super::*;
use crate::broker::quorum::METADATA_DIR;
use crate::config::{Source, Values};
use crate::env::{Clock, RealDisk, SystemClock};

fn config(dir: &Path, more: &[(&str, &str)]) -> Config {
    let mut values = Values::default();
    let given = [
        ("log.dirs", dir.to_str().unwrap()),
        ("process.roles", "broker,controller"),
        ("node.id", "1"),
        ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093"),
        ("controller.listener.names", "CONTROLLER"),
        ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"),
    ];
    for (key, value) in given.iter().chain(more) {
        values.set(key, value, Source::Override);
    }
    Config::from_values(values).unwrap()
}

const BOOTSTRAP_SERVERS: (&str, &str) = ("controller.quorum.bootstrap.servers", "localhost:9093");
const VOTERS: (&str, &str) = ("controller.quorum.voters", "1@localhost:9093");

fn request(voters: InitialVoters) -> FormatRequest {
    FormatRequest {
        cluster_id: Some("a-cluster".to_owned()),
        voters,
        ignore_formatted: false,
        release: None,
        features: Vec::new(),
    }
}

fn format_at(config: &Config, request: &FormatRequest) -> Result<Vec<String>, FormatError> {
    format(&RealDisk, config, request, SystemClock.now())
}

fn voters_in(dir: &Path) -> Option<crate::broker::quorum::VoterSet> {
    let path = dir.join(METADATA_DIR);
    let id = snapshots::newest(&RealDisk, &path).ok()??;
    let bytes = snapshots::read(&RealDisk, &path, id).unwrap();
    let mut records = VoterRecords::default();
    for batch in batches(&bytes) {
        let (header, batch) = batch.unwrap();
        let batch = bytes.slice_ref(batch);
        crate::broker::quorum::take_voters(&header, &batch, &mut records).unwrap();
    }
    assert_eq!(records.kraft_version(), 1);
    records.voters()
}

#[test]
fn a_standalone_quorum_names_this_directory() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), &[BOOTSTRAP_SERVERS]);
    let lines = format_at(&config, &request(InitialVoters::Standalone)).unwrap();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let meta = read_meta_properties(&RealDisk, dir.path()).unwrap().unwrap();
    assert_eq!(meta.cluster_id.as_deref(), Some("a-cluster"));
    let voters = voters_in(dir.path()).unwrap();
    let own = voters.get(BrokerId(1)).unwrap();
    assert_eq!(Some(own.directory_id), meta.directory_id);
    assert_eq!(own.address("CONTROLLER"), Some(&("localhost".to_owned(), 9093)));
    let formatted = read_bootstrap(&RealDisk, dir.path()).unwrap().unwrap();
    assert_eq!(formatted, crate::machines::metadata::features::formatted_features());
    let again = format_at(&config, &request(InitialVoters::Standalone));
    assert!(matches!(again, Err(FormatError::Formatted { .. })), "{again:?}");
    let ignored = FormatRequest { ignore_formatted: true, ..request(InitialVoters::Standalone) };
    assert_eq!(format_at(&config, &ignored).unwrap().len(), 1);
}

#[test]
fn levels_are_those_of_a_release_or_as_they_are_named() {
    let levels = |release: Option<&str>, features: &[(&str, i16)]| {
        let features = features.iter().map(|(name, level)| ((*name).to_owned(), *level)).collect();
        let release = release.map(str::to_owned);
        let request = FormatRequest { release, features, ..request(InitialVoters::Configured) };
        let on = feature_levels(&request, false)?.into_iter().filter(|(_, level)| *level > 0);
        Ok::<_, FormatError>(on.map(|(_, level)| level).collect::<Vec<_>>())
    };
    assert_eq!(levels(Some("3.8"), &[]).unwrap(), [20]);
    assert_eq!(levels(Some("4.0-IV0"), &[]).unwrap(), [22, 1]);
    assert_eq!(levels(Some("4.3"), &[]).unwrap(), [30, 1, 1, 1, 1, 2]);
    assert_eq!(levels(None, &[("group.version", 0)]).unwrap(), [30, 1, 1, 1, 2]);
    for (release, features) in [
        (Some("3.2"), [].as_slice()),
        (Some("4.4"), &[]),
        (Some("4.3"), &[("metadata.version", 29)]),
        (None, &[("metadata.version", 31)]),
        (None, &[("no.version", 1)]),
        (Some("3.9"), &[("eligible.leader.replicas.version", 1)]),
        (None, &[("kraft.version", 1)]),
    ] {
        assert!(levels(release, features).is_err(), "{release:?} {features:?}");
    }
}

#[test]
fn contradictions_are_refused_and_change_nothing() {
    let given = Voter {
        id: BrokerId(2),
        directory_id: Uuid::from_u128(2),
        endpoints: Vec::new(),
        kraft_versions: (0, 1),
    };
    for (key, voters) in [
        (BOOTSTRAP_SERVERS, InitialVoters::Configured),
        (VOTERS, InitialVoters::Standalone),
        (VOTERS, InitialVoters::Given(vec![given.clone()])),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let refusal = format_at(&config(dir.path(), &[key]), &request(voters));
        assert!(matches!(refusal, Err(FormatError::Refused(_))), "{refusal:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
    // One that is not among them gets them all the same, as in Kafka.
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), &[BOOTSTRAP_SERVERS]);
    format_at(&config, &request(InitialVoters::Given(vec![given]))).unwrap();
    assert_eq!(voters_in(dir.path()).unwrap().count(), 1);
}
