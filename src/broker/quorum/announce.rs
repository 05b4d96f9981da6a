//! How nodes with the role of a controller tell the leader that they are there.
//!
//! One without a vote says so every few seconds, and the leader sends it the log: so it is up to date when it is given
//! a vote, by an operator or because it asks for one (KIP-1186). A voter says once an epoch which directory it has and
//! where it listens (KIP-853). Whoever hears no leader asks the voters that it knows and the bootstrap servers.

use super::changes::Answered;
use super::codec::{Answer, Message};
use super::network::{RaftTransport, ask_at};
use super::shared::Shared;
use super::voter_set::Voter;
use crate::broker::Address;
use ottla_protocol::{BrokerId, ErrorCode, LeaderEpoch};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// How often somebody without a vote says that it is there.
const AGAIN: Duration = Duration::from_secs(3);
/// While there is nothing to do but wait for another leader.
const NEVER: Duration = Duration::from_secs(3600);
/// The same while it waits for something.
const SOON: Duration = Duration::from_millis(200);
/// Silence of a leader after which it is looked for.
const SILENCE: Duration = Duration::from_secs(1);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a change may take that a node has asked for.
const CHANGE_MAX: Duration = Duration::from_secs(10);
/// How often a node that cannot join says why.
const SAY_SO: Duration = Duration::from_secs(5);

/// I am here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Announcement {
    /// Who, and where it listens.
    pub voter: Voter,
    /// It asks for a vote, as long as there are fewer voters than this.
    pub voters_max: Option<u32>,
}

/// What a node is to the one that it announced itself to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// That one does not lead.
    Unknown,
    /// It has a vote.
    Voter,
    /// It follows without one.
    Learner,
    /// Its id has a vote, with this other directory.
    Replaced(Uuid),
    /// The voters are those of the configuration, and it is none of them.
    Fixed,
}

/// The answer to an announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Announced {
    /// What the node is.
    pub standing: Standing,
    /// The newest epoch that is known.
    pub epoch: LeaderEpoch,
    /// Who leads it, and where that listens.
    pub leader: Option<(BrokerId, Address)>,
}

/// Notes the announcement, and does what it asks for where this voter leads.
pub(super) async fn receive(shared: &Arc<Shared>, announcement: Announcement) -> Announced {
    let known = *shared.leader.borrow();
    let params = shared.log.params();
    let leader = known.leader.and_then(|id| Some((id, params.addresses.get(id)?)));
    let standing = match shared.log.leading() {
        None => Standing::Unknown,
        Some(_) => stand(shared, announcement).await,
    };
    Announced { standing, epoch: known.epoch, leader }
}

async fn stand(shared: &Arc<Shared>, announcement: Announcement) -> Standing {
    let Announcement { voter, voters_max } = announcement;
    let voters = shared.log.voters();
    match voters.get(voter.id) {
        Some(_) if !voters.is_dynamic => {
            shared.told.lock().insert(voter.id, voter);
            Standing::Voter
        }
        None if !voters.is_dynamic => Standing::Fixed,
        Some(known) if known.directory_id == voter.directory_id => {
            if *known != voter {
                change(shared, move |shared| async move {
                    shared.update_voter(voter, CHANGE_MAX).await
                });
            }
            Standing::Voter
        }
        Some(known) => {
            let directory_id = known.directory_id;
            // One that answers is there: then two nodes have the same id, and the second is refused as a broker.
            if voters_max.is_some() && voters.count() > 1 && !shared.hears(voter.id, SILENCE) {
                let id = voter.id;
                change(shared, move |shared| async move {
                    shared.remove_voter(id, directory_id, CHANGE_MAX).await
                });
            }
            Standing::Replaced(directory_id)
        }
        None => {
            shared.note_learner(&voter);
            shared.let_learners_in().await;
            let wants_vote = voters_max.is_some_and(|max| voters.count() < max as usize);
            let is_let_in = |learners: BTreeSet<BrokerId>| learners.contains(&voter.id);
            if wants_vote && shared.learner_ids().await.is_ok_and(is_let_in) {
                change(shared, move |shared| async move {
                    shared.add_voter(voter, Answered::Written, CHANGE_MAX).await
                });
            }
            Standing::Learner
        }
    }
}

/// Changes the voters for a node that has asked; it asks again where that cannot be done now.
fn change<F>(shared: &Arc<Shared>, change: impl FnOnce(Arc<Shared>) -> F)
where
    F: Future<Output = Result<(), ErrorCode>> + Send + 'static,
{
    let changing = change(Arc::clone(shared));
    tokio::spawn(async move {
        if let Err(error) = changing.await {
            tracing::debug!(%error, "the voters are not changed now");
        }
    });
}

/// Announces this node as long as the quorum runs, and forgets those who announce themselves no more.
pub(super) async fn run(shared: Arc<Shared>, transport: Arc<dyn RaftTransport>) {
    let mut leaders = shared.leader.subscribe();
    let mut announced = (LeaderEpoch::UNKNOWN, Standing::Unknown);
    let mut said: Option<Instant> = None;
    while !shared.is_closing() {
        let known = *leaders.borrow_and_update();
        let params = shared.log.params();
        let has_vote = shared.has_vote();
        let is_heard = shared.contact.lock().heard.is_some_and(|at| at.elapsed() < SILENCE);
        let pause = if shared.log.leading().is_some() {
            shared.let_learners_in().await;
            let is_up_to_date = update_own(&shared);
            match shared.learners.lock().is_empty() {
                _ if !is_up_to_date => SOON,
                true => NEVER,
                false => AGAIN,
            }
        } else if is_heard && has_vote && announced == (known.epoch, Standing::Voter) {
            AGAIN
        } else {
            let answer = find(&shared, transport.as_ref(), is_heard).await;
            if let Some(answer) = &answer {
                announced = (answer.epoch, answer.standing);
            }
            let wants_vote = params.bootstrap.auto_join && !has_vote;
            let standing = answer.map_or(Standing::Unknown, |answer| answer.standing);
            explain(&shared, standing, &mut said);
            match standing {
                Standing::Voter if has_vote => AGAIN,
                Standing::Learner if is_heard && !wants_vote => AGAIN,
                _ => SOON,
            }
        };
        // That the leader is another one is to be known at once.
        let _ = tokio::time::timeout(pause, leaders.changed()).await;
    }
}

/// A leader that listens elsewhere than the log says has it say so; answers whether the log is right.
fn update_own(shared: &Arc<Shared>) -> bool {
    let own = &shared.log.params().own;
    let voters = shared.log.voters();
    let known = voters.get(own.id).filter(|_| voters.is_dynamic);
    let is_other = known.is_some_and(|it| it.directory_id == own.directory_id && it != own);
    if is_other {
        let own = own.clone();
        change(shared, move |shared| async move { shared.update_voter(own, CHANGE_MAX).await });
    }
    !is_other
}

/// Says what an operator has to do.
fn explain(shared: &Shared, standing: Standing, said: &mut Option<Instant>) {
    if said.is_some_and(|said| said.elapsed() < SAY_SO) {
        return;
    }
    let id = shared.log.params().node_id();
    match standing {
        Standing::Replaced(directory_id) => {
            let directory_id = ottla_protocol::uuid_to_text(directory_id);
            tracing::warn!(
                "voter {id} of the metadata quorum is another directory, {directory_id}: remove it \
                 (kafka-metadata-quorum remove-controller), or set controller.quorum.auto.join.enable"
            );
        }
        Standing::Fixed => {
            tracing::warn!(
                "this controller is not among the quorum's voters, which cannot change while kraft.version is 0 \
                 (kafka-features upgrade --feature kraft.version=1)"
            );
        }
        Standing::Unknown if !shared.has_vote() => {
            tracing::warn!("no leader of the metadata quorum is found to follow");
        }
        _ => return,
    }
    *said = Some(Instant::now());
}

/// Asks one after another until the leader answers.
async fn find(
    shared: &Arc<Shared>,
    transport: &dyn RaftTransport,
    is_heard: bool,
) -> Option<Announced> {
    let params = shared.log.params();
    let wanted = params.bootstrap.auto_join && !shared.has_vote();
    let voters_max = u32::try_from(params.bootstrap.voters_max).unwrap_or(u32::MAX);
    let message = Message::Announce(Announcement {
        voter: params.own.clone(),
        voters_max: wanted.then_some(voters_max),
    });
    let leader = shared.leader.borrow().leader.filter(|_| is_heard);
    let mut targets: Vec<Address> =
        leader.and_then(|id| params.addresses.get(id)).into_iter().collect();
    if targets.is_empty() {
        let others = shared.log.voters();
        let others = others.ids().filter(|id| *id != params.node_id());
        targets = others.filter_map(|id| params.addresses.get(id)).collect();
        targets.extend(params.bootstrap.servers.borrow().iter().cloned());
    }
    let mut last = None;
    for target in targets {
        let Some(answer) = announce_at(transport, target.clone(), &message).await else { continue };
        if let Some((id, address)) = &answer.leader {
            // The log, which tells it too, may not be here yet.
            params.addresses.set(*id, address.clone());
        }
        if answer.standing != Standing::Unknown {
            return Some(answer);
        }
        if let Some((_, address)) = &answer.leader
            && *address != target
            && let Some(answer) = announce_at(transport, address.clone(), &message).await
            && answer.standing != Standing::Unknown
        {
            return Some(answer);
        }
        last = Some(answer);
    }
    last
}

async fn announce_at(
    transport: &dyn RaftTransport,
    target: Address,
    message: &Message,
) -> Option<Announced> {
    let asked = tokio::time::timeout(PATIENCE, ask_at(transport, target, message)).await;
    match asked {
        Ok(Ok(Answer::Announced(answer))) => Some(answer),
        _ => None,
    }
}
