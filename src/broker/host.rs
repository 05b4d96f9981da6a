//! Runs a recorded machine over its log: the controller over `__cluster_metadata`, a group coordinator over a
//! partition of `__consumer_offsets`.
//!
//! The contract (see `machines/mod.rs`): records are appended as one batch, replayed, and only when the log says
//! that they are committed do the effects leave. An output without records waits for the last record written before
//! it, so nobody is ever told what a failover could undo. When an append fails the machine is dropped and every
//! waiting request learns so; the log is loaded anew when the broker is next elected. One that found no space, and left
//! the log as it was, costs that operation alone: hard state has not moved, and the next one may find space.
//!
//! Invariant: the machine's lock is never held across an `.await`.

use crate::env::Clock;
use crate::machines::{Entry, Machine, Output, RequestId};
use ottla_protocol::{Offset, Timestamp};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::sync::{Notify, oneshot};

/// Why a request was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// The machine is not here (any more): not elected, or its log failed.
    #[error("the machine is not active on this broker")]
    NotActive,
    /// Its log had no space for the records: nothing was changed, and the machine works on.
    #[error("there is no space for the records")]
    NoSpace,
}

/// What a machine writes to, and what its effects do.
pub trait Stage: Send + Sync + 'static {
    /// The machine.
    type Machine: Machine<Record: Send, Effect: Send> + Send;
    /// What a request is answered with.
    type Reply: Send;

    /// Appends `records` as one atomic batch and answers the first one's offset.
    ///
    /// # Errors
    /// The batch did not get into the log; the reason has been logged. With `NoSpace` the machine stays: only one whose
    /// `handle` and `tick` may be forgotten, and whose effects are replies to their own request, can be told so.
    fn append(
        &self,
        now: Timestamp,
        records: &[<Self::Machine as Machine>::Record],
    ) -> Result<Offset, HostError>;

    /// The machine has replayed what was appended last.
    fn replayed(&self, _machine: &mut Self::Machine) {}

    /// The offset below which the log is committed.
    fn committed(&self) -> Offset;

    /// Completes when [`Stage::committed`] or [`Stage::is_lost`] may have changed, counted from this call on.
    fn commit_moved(&self) -> impl Future<Output = ()> + Send;

    /// Whether what is appended and not committed never will be.
    fn is_lost(&self) -> bool {
        false
    }

    /// The machine has replayed new records, which are committed; runs before the effects that rest on them.
    fn publish(&self, machine: &mut Self::Machine);

    /// Does what the effect says; a reply goes back to the host.
    fn perform(
        &self,
        effect: <Self::Machine as Machine>::Effect,
    ) -> Option<(RequestId, Self::Reply)>;
}

/// Effects that wait until everything below `until` is committed.
struct Held<E> {
    until: Offset,
    effects: Vec<E>,
}

struct State<S: Stage> {
    machine: Option<S::Machine>,
    next_request: u64,
    waiting: BTreeMap<RequestId, oneshot::Sender<Result<S::Reply, HostError>>>,
    held: VecDeque<Held<<S::Machine as Machine>::Effect>>,
    /// The log's end as this host wrote it.
    written: Offset,
    /// Where the last publication stood.
    published: Offset,
}

/// A machine at work.
pub struct Host<S: Stage> {
    stage: S,
    clock: Arc<dyn Clock>,
    state: Mutex<State<S>>,
    alarm: Notify,
}

/// Requests that may wait in one host at a time; past it new ones are refused.
const WAITING_MAX: usize = 1 << 20;
/// Pause before what is due is tried again that found no space; as often as free space is looked at.
const NO_SPACE_PAUSE_MS: i64 = 1000;

impl<S: Stage> Host<S> {
    /// A host for a machine that has replayed its whole log up to `log_end`.
    pub fn new(stage: S, clock: Arc<dyn Clock>, machine: S::Machine, log_end: Offset) -> Arc<Self> {
        Arc::new(Host {
            stage,
            clock,
            state: Mutex::new(State {
                machine: Some(machine),
                next_request: 0,
                waiting: BTreeMap::new(),
                held: VecDeque::new(),
                written: log_end,
                published: Offset::UNKNOWN,
            }),
            alarm: Notify::new(),
        })
    }

    /// What the machine writes to.
    pub fn stage(&self) -> &S {
        &self.stage
    }

    /// Puts one request to the machine and waits for its reply.
    ///
    /// # Errors
    /// `NotActive` when the machine is gone, now or while the request waits; `NoSpace`.
    pub async fn call(
        &self,
        request: <S::Machine as Machine>::Request,
    ) -> Result<S::Reply, HostError> {
        let receiver = self.submit(request)?;
        receiver.await.unwrap_or(Err(HostError::NotActive))
    }

    fn submit(
        &self,
        request: <S::Machine as Machine>::Request,
    ) -> Result<oneshot::Receiver<Result<S::Reply, HostError>>, HostError> {
        let mut state = self.state.lock();
        if state.waiting.len() >= WAITING_MAX {
            return Err(HostError::NotActive);
        }
        let (now, wall) = (self.clock.steady(), self.clock.now());
        let id = RequestId(state.next_request);
        let machine = state.machine.as_mut().ok_or(HostError::NotActive)?;
        let before = machine.deadline();
        machine.set_wall_ahead(wall.0 - now.0);
        let output = machine.handle(now, id, request);
        let (sender, receiver) = oneshot::channel();
        state.next_request += 1;
        state.waiting.insert(id, sender);
        if let Err(error) = self.apply(&mut state, wall, output)
            && let Some(waiter) = state.waiting.remove(&id)
        {
            let _ = waiter.send(Err(error));
        }
        self.wake_ticker(&state, before);
        Ok(receiver)
    }

    /// Lets a caller look at, or configure the soft state of, the machine.
    ///
    /// # Errors
    /// `NotActive` when the machine is gone.
    pub fn with<T>(&self, look: impl FnOnce(&mut S::Machine) -> T) -> Result<T, HostError> {
        let mut state = self.state.lock();
        state.machine.as_mut().map(look).ok_or(HostError::NotActive)
    }

    /// Lets out what the log has committed since the last operation.
    #[cfg(test)]
    fn look_at_commits(&self) {
        let mut state = self.state.lock();
        self.release(&mut state);
    }

    /// Drops the machine: leadership is lost, or the broker stops. Waiting requests learn that it is not active.
    pub fn resign(&self) {
        let mut state = self.state.lock();
        drop_machine(&mut state);
        self.alarm.notify_waiters();
    }

    fn wake_ticker(&self, state: &State<S>, before: Option<Timestamp>) {
        if state.machine.as_ref().and_then(|machine| machine.deadline()) != before {
            self.alarm.notify_one();
        }
    }

    /// Writes and replays the records, with the wall clock's time, and holds the effects. An error is `NoSpace`:
    /// nothing of the output counts.
    fn apply(
        &self,
        state: &mut State<S>,
        now: Timestamp,
        output: Output<S::Machine>,
    ) -> Result<(), HostError> {
        if !output.records.is_empty() {
            let base = match self.stage.append(now, &output.records) {
                Ok(base) => base,
                Err(HostError::NoSpace) => return Err(HostError::NoSpace),
                Err(HostError::NotActive) => {
                    drop_machine(state);
                    return Ok(());
                }
            };
            let mut offset = base;
            if let Some(machine) = state.machine.as_mut() {
                for record in output.records {
                    machine.replay(&Entry { offset, timestamp: now, record });
                    offset = offset.plus(1);
                }
                self.stage.replayed(machine);
            }
            state.written = offset;
        }
        if !output.effects.is_empty() {
            state.held.push_back(Held { until: state.written, effects: output.effects });
        }
        self.release(state);
        Ok(())
    }

    /// Lets out the effects whose records are committed.
    fn release(&self, state: &mut State<S>) {
        if self.stage.is_lost() {
            drop_machine(state);
            return;
        }
        let committed = self.stage.committed();
        if committed >= state.written && state.published < state.written {
            state.published = state.written;
            if let Some(machine) = state.machine.as_mut() {
                self.stage.publish(machine);
            }
        }
        while state.held.front().is_some_and(|held| held.until <= committed) {
            let Some(held) = state.held.pop_front() else { break };
            for effect in held.effects {
                let Some((id, reply)) = self.stage.perform(effect) else { continue };
                if let Some(waiter) = state.waiting.remove(&id) {
                    // A client that has gone does not want its answer any more.
                    let _ = waiter.send(Ok(reply));
                }
            }
        }
    }

    /// Drives the machine's time until it resigns; one task for each host runs this.
    pub async fn run(self: Arc<Self>) {
        loop {
            let alarm = self.alarm.notified();
            let moved = self.stage.commit_moved();
            let deadline = {
                let mut state = self.state.lock();
                let (now, wall) = (self.clock.steady(), self.clock.now());
                let Some(machine) = state.machine.as_mut() else { return };
                let mut pause_ms_min = 1;
                if machine.deadline().is_some_and(|deadline| deadline <= now) {
                    machine.set_wall_ahead(wall.0 - now.0);
                    let output = machine.tick(now);
                    if self.apply(&mut state, wall, output).is_err() {
                        pause_ms_min = NO_SPACE_PAUSE_MS;
                    }
                } else {
                    self.release(&mut state);
                }
                let Some(machine) = state.machine.as_ref() else { return };
                machine.deadline().map(|deadline| (deadline.0 - now.0).max(pause_ms_min) as u64)
            };
            // Without a deadline only a request or a commit wakes this task: an idle broker uses no CPU.
            let wait = async {
                match deadline {
                    Some(ms) => tokio::time::sleep(std::time::Duration::from_millis(ms)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = alarm => {}
                () = moved => {}
                () = wait => {}
            }
        }
    }
}

fn drop_machine<S: Stage>(state: &mut State<S>) {
    state.machine = None;
    state.held.clear();
    state.waiting.clear();
}

#[cfg(test)]
mod tests;
