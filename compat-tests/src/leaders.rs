//! The death of a node that leads thousands of partitions: how long until every one can be written elsewhere.
//!
//! The Java client writes one record to each partition at once, right after SIGKILL: it puts many partitions into one
//! request, where librdkafka sends one for each, which a broker answers one after another. Printed is the time from the
//! signal to the last acknowledgement, asserted that nothing is lost, doubled or fails.
//!
//! `COMPAT_PARTITIONS` is how many: 5,000, and 300 with Apache Kafka, which opens them slowly.

use std::time::{Duration, Instant};

use crate::broker::Side;
use crate::clients;
use crate::cluster::Cluster;
use crate::disk::judge;
use crate::java::KAFKA;
use crate::paths::Paths;
use crate::report::Report;
use crate::writer::{self, Job, Tape, Work, Writer, now_us};

const PARTITIONS: usize = 5000;
const PARTITIONS_OF_KAFKA: usize = 300;
/// How long one record to each partition may take.
const LIMIT: Duration = Duration::from_secs(90);
/// Sweeps before the kill: the client knows all leaders, and its connections are there.
const WARM_UP: usize = 3;

/// Runs it.
///
/// # Errors
/// If the cluster does not start.
pub fn run(paths: &Paths, side: Side, report: &Report) -> Result<(), String> {
    let wanted = std::env::var("COMPAT_PARTITIONS").ok().and_then(|text| text.parse().ok());
    let fewer = if side.is_kafka() { PARTITIONS_OF_KAFKA } else { PARTITIONS };
    let partitions = wanted.unwrap_or(fewer);
    let client = ("java", clients::java_client(paths, KAFKA, "HistoryLoad")?);
    let mut cluster = Cluster::start(paths, side, 3, &[])?;
    judge(&format!("leaders/{partitions} [{side}]"), report, || {
        writer::taped(paths, &mut cluster, "leaders", |cluster, tape| {
            scenario(cluster, &client, partitions, tape)
        })
    });
    Ok(())
}

fn scenario(
    cluster: &mut Cluster,
    client: &(&str, Vec<String>),
    partitions: usize,
    tape: &Tape,
) -> Result<String, String> {
    let controller = cluster.controller()?;
    let mut ids = cluster.ids();
    // The one that is killed is not the controller.
    ids.sort_by_key(|id| *id == controller);
    let victim = ids[0];
    let begin = Instant::now();
    cluster.create("many", &vec![ids; partitions], &[("min.insync.replicas", "2")])?;
    let created = begin.elapsed().as_millis();
    let job = Job { topic: "many", partitions, work: Work::Sweeps };
    let mut writer = Writer::start(client, &cluster.servers(), &job, tape)?;
    let mut warm = 0;
    for _ in 0..WARM_UP {
        warm = sweep(&mut writer, partitions, now_us())?;
    }
    tape.note(&format!("kill of node {victim}"));
    let killed = now_us();
    cluster.kill(victim);
    let took = sweep(&mut writer, partitions, killed)?;
    let restart = cluster.launch(victim)?.as_millis();
    let begin = Instant::now();
    cluster.await_in_sync(&["many"])?;
    let in_sync = begin.elapsed().as_millis();
    let text = writer::expect_clean(
        writer.name().to_owned().as_str(),
        &writer.finish(&cluster.servers())?,
    )?;
    Ok(format!(
        "{partitions} partitions created in {created} ms, all written in {warm} ms, after a kill of their leader in \
         {took} ms; it listens again after {restart} ms, and is in sync {in_sync} ms later\n  {text}"
    ))
}

/// Writes one record to each partition; answers the milliseconds from a time to the last acknowledgement.
fn sweep(writer: &mut Writer, partitions: usize, from: u64) -> Result<u64, String> {
    let least = partitions + writer.look(|history| history.acknowledged());
    writer.sweep()?;
    writer.wait_until_acknowledged(least, LIMIT)?;
    let last = writer.look(|history| history.last_acknowledged_us());
    Ok(last.unwrap_or(from).saturating_sub(from) / 1000)
}
