//! Rules that are broken on purpose, each at an edge of the simulation where that is possible, so that it is known that
//! a checker would see it.

use crate::checks::Checker;
use clap::ValueEnum;

/// A rule that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mutation {
    /// Disks say that they have synced what they have not, the metadata's above all; and all lose power.
    DisksClaimSyncs,
    /// Records count in the page cache, and yet all machines may lose power at once.
    PageCachesLosePower,
    /// A disk turns a bit over, in a log.
    DiskFlipsBits,
    /// Leaders forget the sequences of their producers.
    ForgetsProducers,
    /// A leader's high watermark goes back now and then.
    HighWatermarkGoesBack,
    /// One link is never mended.
    LinkStaysCut,
}

/// Each checker, with a mutation that it must see.
pub(crate) const PROOFS: &[(Checker, Mutation)] = &[
    (Checker::Epochs, Mutation::DisksClaimSyncs),
    (Checker::Images, Mutation::DisksClaimSyncs),
    (Checker::HighWatermarks, Mutation::HighWatermarkGoesBack),
    (Checker::Logs, Mutation::DiskFlipsBits),
    (Checker::Reads, Mutation::PageCachesLosePower),
    (Checker::Lost, Mutation::PageCachesLosePower),
    (Checker::ExactlyOnce, Mutation::ForgetsProducers),
    (Checker::Positions, Mutation::PageCachesLosePower),
    (Checker::Health, Mutation::LinkStaysCut),
];
