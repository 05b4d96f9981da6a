//! What becomes of a broker whose controller does not hear of a log directory that failed.

use super::*;
use crate::broker::controller_link::Active;
use crate::broker::directories::ClusterIds;
use crate::broker::fixture::LONG;
use crate::broker::tests::settings_with;
use crate::env::RealDisk;
use ottla_protocol::BrokerId;

#[tokio::test]
async fn gives_up_when_the_controller_cannot_be_told_in_time_of_a_directory_that_failed() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let paths = dirs.each_ref().map(|dir| dir.path());
    let settings = Arc::new(settings_with(&paths, &[("log.dir.failure.timeout.ms", "50")]));
    let owned = paths.map(PathBuf::from);
    let (disk, ids) = (Arc::new(RealDisk), ClusterIds::default());
    let directories = Directories::open(disk, &owned, paths[0], BrokerId(1), &ids).unwrap();
    let directories = Arc::new(directories);
    let active = watch::Sender::new(Active::Unknown);
    let link = Arc::new(ControllerLink::new(active.subscribe(), &settings));
    let image = Arc::<ArcSwap<Image>>::default();
    let membership = Membership::new(settings, Arc::clone(&directories), link, image);
    let membership = Arc::new(membership);
    let stop = watch::Sender::new(false);
    let reporting = tokio::spawn(Arc::clone(&membership).report_failures(stop.subscribe()));
    let untold = tokio::time::timeout(Duration::from_millis(100), membership.untold()).await;
    assert!(untold.is_err(), "nothing has failed: {untold:?}");
    directories.all[1].health.take_offline();
    let untold = tokio::time::timeout(LONG, membership.untold()).await.unwrap();
    assert!(untold.ends_with(&format!("have failed: {}", paths[1].display())), "{untold}");
    reporting.await.unwrap();
}
