//! The follower's side of a partition: taking in what the leader sent, and cutting what the leader does not have.
//!
//! Invariants: nothing is taken from a leader of another epoch than the one that is followed, nor for a log that
//! ended elsewhere, or in another epoch, than this one does; what is cut is cut durably, and the log directory's
//! checkpoint is written before anything is appended again, by a leader either (the guard of a truncation holds that
//! up).
//!
//! Source: Kafka's `ReplicaFetcherThread` and `AbstractFetcherThread`; KIP-101, KIP-279, KIP-595 (truncation on fetch).

use super::moving::append_given;
use super::{Owned, Partition};
use crate::log::{AppendError, FlushOwed, Log, ReadError};
use crate::machines::replica::{Event, Role};
use bytes::Bytes;
use ottla_protocol::batch::{BatchError, batches};
use ottla_protocol::{BrokerId, LeaderEpoch, Offset};
use parking_lot::MutexGuard;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Where a log ends, and in which epoch. Two logs of a partition that end alike are alike, since one leader wrote each
/// epoch; and so is one log at two times, whatever it went through between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogPosition {
    /// The offset of the next record.
    pub(crate) end: Offset,
    /// The epoch of the last record.
    pub(crate) last_epoch: LeaderEpoch,
}

impl LogPosition {
    fn of(log: &Log) -> Self {
        let last_epoch = log.latest_epoch().unwrap_or(LeaderEpoch::UNKNOWN);
        LogPosition { end: log.log_end_offset(), last_epoch }
    }
}

/// Where a follower's log stands, as its fetch tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FetchState {
    /// Where to fetch on.
    pub(crate) position: LogPosition,
    /// Where the log starts.
    pub(crate) log_start_offset: Offset,
    /// The high watermark that is known.
    pub(crate) high_watermark: Offset,
}

/// What a leader sent for one partition.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    /// The epoch of the leader that was asked.
    pub(crate) leader_epoch: LeaderEpoch,
    /// Where the log ended that it was asked for.
    pub(crate) position: LogPosition,
    /// Batches; the last may be cut.
    pub(crate) records: Bytes,
    /// The leader's high watermark.
    pub(crate) high_watermark: Offset,
    /// The leader's log start offset.
    pub(crate) log_start_offset: Offset,
}

/// What to cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Truncation {
    /// The leader's log left ours where `epoch` ends there: at `end_offset`.
    Diverging {
        /// The leader's largest epoch not above our last one.
        epoch: LeaderEpoch,
        /// Where it ends at the leader.
        end_offset: Offset,
    },
    /// Everything from here on.
    To(Offset),
    /// Everything; the log goes on here.
    StartAt(Offset),
}

/// Why nothing was taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FollowerError {
    /// The partition follows in another epoch by now, leads, is closed, or has moved on: what was sent is of no use.
    #[error("the partition has moved on")]
    Stale,
    /// The log is empty and starts within the first batch that was sent, which begins here.
    #[error("the first batch begins at {0}, before the log's start")]
    StartsWithin(Offset),
    /// The log refused it.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log cannot be cut, and is offline.
    #[error(transparent)]
    Truncate(#[from] ReadError),
}

/// Holds up leadership and further truncations until the checkpoint of a truncation is written.
#[must_use]
pub(crate) struct TruncationGuard<'a> {
    partition: &'a Partition,
    _one_at_a_time: MutexGuard<'a, ()>,
}

impl Drop for TruncationGuard<'_> {
    fn drop(&mut self) {
        self.partition.owned.lock().is_cutting = false;
    }
}

impl Partition {
    /// Follows `leader`, or waits for one where it is `BrokerId::NONE`.
    pub(crate) fn follow(&self, leader: BrokerId, leader_epoch: LeaderEpoch, partition_epoch: i32) {
        let mut owned = self.owned.lock();
        self.step(&mut owned, Event::Follow { leader, leader_epoch, partition_epoch });
        drop(owned);
        // Producers and fetches that wait learn that this broker does not lead.
        self.tell_all();
    }

    /// Where to fetch on; `None` where it does not follow in this epoch, or its log directory is offline.
    pub(crate) fn fetch_state(&self, leader_epoch: LeaderEpoch) -> Option<FetchState> {
        if self.is_offline() {
            return None;
        }
        let owned = self.owned.lock();
        let log = owned.followed(leader_epoch).ok()?;
        Some(FetchState {
            position: LogPosition::of(log),
            log_start_offset: log.log_start_offset(),
            high_watermark: owned.replica.high_watermark(),
        })
    }

    /// Appends what the leader sent, and takes its high watermark and log start offset over. Answers the log's end and
    /// what a sync has to come before; it has begun.
    ///
    /// # Errors
    /// Every [`FollowerError`] but `Truncate`.
    pub(crate) fn take_fetched(
        self: &Arc<Self>,
        fetched: Fetched,
    ) -> Result<(Offset, FlushOwed), FollowerError> {
        let now = self.clock.now();
        let mut owned = self.owned.lock();
        let is_cutting = owned.is_cutting;
        let log = owned.followed_mut(fetched.leader_epoch)?;
        if is_cutting || LogPosition::of(log) != fetched.position {
            return Err(FollowerError::Stale);
        }
        let records = usable(&fetched);
        let has_records = !records.is_empty();
        let (mut flush, mut has_rolled) = (FlushOwed::Nothing, false);
        if has_records {
            let appended = append(log, records, now);
            if let Err(FollowerError::Append(AppendError::Storage(cause))) = &appended {
                self.note_failure(log, Some(cause));
            }
            (flush, has_rolled) = appended?;
        }
        let end = log.log_end_offset();
        self.log_end_offset.store(end.0, Ordering::Release);
        let join = owned.group_commit.join(flush, end);
        if join == super::Join::Nothing && has_records {
            self.settled_end.store(end.0, Ordering::Release);
            let now = self.clock.steady();
            self.step(&mut owned, Event::Appended { log_end_offset: end, now });
        }
        self.step(&mut owned, Event::LeaderHighWatermark(fetched.high_watermark));
        let high_watermark = owned.replica.high_watermark();
        if let Some(log) = owned.log.as_mut() {
            // It is not above the high watermark, so it cannot be refused.
            let start = fetched.log_start_offset.min(high_watermark);
            let _ = log.set_log_start_offset(start, high_watermark);
        }
        drop(owned);
        self.join_group_commit(join);
        if has_rolled {
            self.start_roll_flush();
        }
        Ok((end, flush))
    }

    /// Cuts what the leader does not have, as it said of a log that ended at `position`. The checkpoint has to be
    /// written before the guard goes. Blocks for the disk.
    ///
    /// # Errors
    /// `Stale`; `Truncate`, and the log is offline.
    pub(crate) fn truncate(
        &self,
        leader_epoch: LeaderEpoch,
        position: LogPosition,
        truncation: Truncation,
    ) -> Result<TruncationGuard<'_>, FollowerError> {
        let one_at_a_time = self.syncing.lock();
        let now = self.clock.now();
        let mut owned = self.owned.lock();
        let log = owned.followed_mut(leader_epoch)?;
        if LogPosition::of(log) != position {
            // An older answer, to a fetch of another lane: what it would cut may be what the leader counts on by now.
            return Err(FollowerError::Stale);
        }
        let before = log.log_end_offset();
        let cut = match truncation {
            Truncation::To(offset) => log.truncate_to(offset, now),
            Truncation::Diverging { epoch, end_offset } => {
                let offset = diverging_offset(log, epoch, end_offset);
                log.truncate_to(offset, now)
            }
            Truncation::StartAt(offset) => log.truncate_fully_and_start_at(offset, now),
        };
        if let Err(error) = cut {
            tracing::error!(partition = ?self, %error, "cannot truncate: the log is offline");
            self.note_failure(log, None);
            return Err(error.into());
        }
        let end = log.log_end_offset();
        let high_watermark = owned.replica.high_watermark();
        if end < high_watermark {
            // Only an unclean election, or a lost disk, does this.
            tracing::warn!(partition = ?self, %end, %high_watermark, "truncated below the high watermark");
        } else {
            tracing::info!(partition = ?self, %before, %end, ?truncation, "truncated");
        }
        self.log_end_offset.store(end.0, Ordering::Release);
        self.settled_end.fetch_min(end.0, Ordering::AcqRel);
        if let Truncation::StartAt(_) = truncation {
            self.settled_end.store(end.0, Ordering::Release);
        }
        self.step(&mut owned, Event::Truncated { log_end_offset: self.settled_end() });
        if let Truncation::StartAt(log_start_offset) = truncation {
            self.step(&mut owned, Event::LogStartMoved { log_start_offset });
        }
        owned.moving.take_if(|moving| moving.is_ahead_of(end));
        owned.is_cutting = true;
        drop(owned);
        self.tell_all();
        Ok(TruncationGuard { partition: self, _one_at_a_time: one_at_a_time })
    }
}

impl Owned {
    fn followed(&self, leader_epoch: LeaderEpoch) -> Result<&Log, FollowerError> {
        let follows = matches!(self.replica.role(), Role::Follower(_));
        if !follows || self.replica.leader_epoch() != leader_epoch {
            return Err(FollowerError::Stale);
        }
        self.log.as_ref().ok_or(FollowerError::Stale)
    }

    fn followed_mut(&mut self, leader_epoch: LeaderEpoch) -> Result<&mut Log, FollowerError> {
        self.followed(leader_epoch)?;
        self.log.as_mut().ok_or(FollowerError::Stale)
    }
}

/// What of the records may be appended: whole batches, none of an epoch that this follower has not heard of, which
/// the leader may have written after it lost its place (KAFKA-18723). Damage is left for the log to name.
fn usable(fetched: &Fetched) -> Bytes {
    let mut len = 0;
    for batch in batches(&fetched.records) {
        match batch {
            Ok((header, batch)) if header.leader_epoch <= fetched.leader_epoch => {
                len += batch.len();
            }
            Ok(_) | Err(BatchError::Short { .. }) => break,
            Err(_) => return fetched.records.clone(),
        }
    }
    fetched.records.slice(..len)
}

fn append(
    log: &mut Log,
    records: Bytes,
    now: ottla_protocol::Timestamp,
) -> Result<(FlushOwed, bool), FollowerError> {
    let first = batches(&records).next().and_then(Result::ok).map(|(header, _)| header);
    match append_given(log, records, now) {
        Ok(info) => Ok((info.flush, info.has_rolled)),
        Err(AppendError::UnexpectedOffset { first_offset, log_end_offset })
            if log_end_offset == log.log_start_offset()
                && first.is_some_and(|first| first.last_offset() >= log_end_offset) =>
        {
            Err(FollowerError::StartsWithin(first_offset))
        }
        Err(error) => Err(error.into()),
    }
}

/// Where to cut, given the leader's largest epoch not above our last one, and its end there. Where we do not know that
/// epoch, our own largest below it ends what may be common; the next fetch looks further.
fn diverging_offset(log: &Log, epoch: LeaderEpoch, end_offset: Offset) -> Offset {
    let end = log.log_end_offset();
    let offset = match log.end_offset_for_epoch(epoch) {
        Some((own, own_end)) if own == epoch => own_end.min(end_offset),
        Some((_, own_end)) => own_end,
        None => end_offset,
    };
    offset.min(end).max(Offset(0))
}
