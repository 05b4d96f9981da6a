//! What goes wrong, how it is put right again, and what is looked at.

use super::*;

impl World {
    /// Everything is as it should be: one more may go wrong.
    fn is_whole(&self) -> bool {
        let all = self.nodes.values().all(|node| node.partition.is_some() && !node.is_cut_off);
        all && self.metadata.isr.len() == NODES.len() && self.metadata.alive.len() == NODES.len()
    }

    fn elect(&mut self) {
        let can_lead = |id: &&BrokerId| self.metadata.alive.contains_key(id);
        let new = match self.mutation {
            Mutation::ElectsAnyReplica => self.metadata.alive.keys().last().copied(),
            _ => self.metadata.isr.iter().find(can_lead).copied(),
        };
        self.name_leader(new.unwrap_or(BrokerId::NONE));
    }

    fn name_leader(&mut self, leader: BrokerId) {
        self.metadata.leader = leader;
        if self.mutation == Mutation::ElectsAnyReplica
            && leader != BrokerId::NONE
            && !self.metadata.isr.contains(&leader)
        {
            self.metadata.isr = vec![leader];
        }
        if self.mutation != Mutation::KeepsEpochOfElection {
            self.metadata.leader_epoch.0 += 1;
        }
        self.metadata.partition_epoch += 1;
    }

    pub(super) fn elect_any_of_isr(&mut self) {
        let alive = &self.metadata.alive;
        let able: Vec<BrokerId> = match self.mutation {
            Mutation::ElectsAnyReplica => alive.keys().copied().collect(),
            _ => self.metadata.isr.iter().copied().filter(|id| alive.contains_key(id)).collect(),
        };
        if able.is_empty() {
            return;
        }
        let leader = able[self.rng.below(able.len())];
        if leader != self.metadata.leader {
            self.name_leader(leader);
            self.publish();
        }
    }

    /// The controller notices that a broker is gone.
    fn fence(&mut self, id: BrokerId) {
        if self.metadata.alive.remove(&id).is_none() {
            return;
        }
        if self.metadata.isr.len() > 1 {
            self.metadata.isr.retain(|member| *member != id);
        }
        self.metadata.partition_epoch += 1;
        if self.metadata.leader == id {
            self.elect();
        }
        self.publish();
    }

    pub(super) fn crash(&mut self, id: BrokerId, crash: Crash) {
        if !self.is_whole() {
            return;
        }
        self.trace.push(format!("{id}: {crash:?}"));
        let node = self.node(id);
        node.partition = None;
        node.disk.crash(crash);
        self.break_connections(id);
    }

    fn break_connections(&mut self, id: BrokerId) {
        self.network.retain(|it| it.from != id && it.to != id);
        self.fetching.clear();
        let under_way = self.network.iter().filter_map(|it| match &it.message {
            Message::Fetch { lane, .. } => Some((it.from, *lane)),
            Message::Fetched { lane, .. } | Message::Refused { lane } => Some((it.to, *lane)),
            _ => None,
        });
        self.fetching = under_way.collect();
    }

    pub(super) fn restart(&mut self, id: BrokerId) -> Check {
        if self.nodes[&id].partition.is_some() {
            if self.metadata.alive.contains_key(&id) || self.nodes[&id].is_cut_off {
                return Ok(());
            }
            return self.register(id);
        }
        let keeps_epoch = self.mutation == Mutation::KeepsEpochOfRestart;
        if !(keeps_epoch && self.metadata.leader == id) {
            // It is noticed before it is let in again.
            self.fence(id);
        }
        self.node(id).metadata = self.metadata.clone();
        self.open(id);
        self.trace.push(format!("{id} starts: {:?}", self.metadata));
        if self.metadata.alive.contains_key(&id) { Ok(()) } else { self.register(id) }
    }

    fn register(&mut self, id: BrokerId) -> Check {
        let epoch = BrokerEpoch(self.next_broker_epoch);
        self.next_broker_epoch += 1;
        self.metadata.alive.insert(id, epoch);
        self.node(id).broker_epoch = epoch;
        if self.metadata.leader == BrokerId::NONE {
            self.elect();
        }
        self.publish();
        Ok(())
    }

    /// The network loses a broker, which the controller fences; it goes on believing what it believed.
    pub(super) fn cut_off(&mut self, id: BrokerId) {
        if !self.is_whole() {
            return;
        }
        self.trace.push(format!("{id} is cut off"));
        self.node(id).is_cut_off = true;
        self.break_connections(id);
        self.fence(id);
    }

    pub(super) fn reconnect(&mut self, id: BrokerId) {
        let node = self.node(id);
        if !std::mem::take(&mut node.is_cut_off) {
            return;
        }
        self.send(CONTROLLER, id, Message::Image(Box::new(self.metadata.clone())));
    }

    pub(super) fn checkpoint(&mut self, id: BrokerId) {
        let found = self.partition(id).and_then(|partition| partition.checkpoint());
        if let Some(found) = found {
            self.trace.push(format!("{id}: {found:?}"));
            let node = self.node(id);
            node.recovery_point = found.recovery_point;
            node.high_watermark = found.high_watermark;
            node.log_start_offset = found.log_start_offset;
        }
    }

    pub(super) fn flush(&mut self, id: BrokerId) {
        if let Some(partition) = self.partition(id) {
            partition.flush(super::super::Flush::Inactive).expect("a flush");
        }
    }

    pub(super) fn delete_records(&mut self, id: BrokerId) {
        let Some(partition) = self.partition(id) else { return };
        let (start, end) = (partition.log_start_offset(), partition.high_watermark());
        if end <= start || !self.rng.one_in(4) {
            return;
        }
        let before = start.plus(self.rng.below((end.0 - start.0) as usize) as i64);
        if let Ok(target) = partition.delete_records(before) {
            self.deleted_to = self.deleted_to.max(target);
        }
    }

    /// What must hold at any time.
    pub(super) fn look(&mut self) -> Check {
        self.take_acknowledgements();
        for id in NODES.map(BrokerId) {
            let Some(partition) = self.partition(id).filter(|it| it.is_leader()) else { continue };
            let (epoch, high_watermark) = (partition.leader_epoch(), partition.high_watermark());
            let leader = *self.leaders.entry(epoch).or_insert(id);
            if leader != id {
                return Err(format!("{leader} and {id} lead in epoch {epoch}"));
            }
            let before = self.high_watermarks.insert((id, epoch), high_watermark);
            if before.is_some_and(|before| before > high_watermark) {
                let before = before.unwrap_or_default();
                return Err(format!("{id}: high watermark {high_watermark} after {before}"));
            }
        }
        if self.rng.one_in(8) { self.check_equal() } else { Ok(()) }
    }

    fn take_acknowledgements(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        for one in waiting {
            let Some(partition) = self.partition(one.node) else { continue };
            match partition.acks(one.offset.plus(1), one.leader_epoch) {
                Acks::Wait => self.waiting.push(one),
                Acks::Done(Ok(())) => {
                    self.acknowledged.insert(one.offset, one.value);
                }
                Acks::Done(Err(_)) => {}
            }
        }
    }

    pub(super) fn check_acknowledged(&self, id: BrokerId) -> Check {
        let Some(partition) = self.partition(id) else { return Ok(()) };
        let from = partition.log_start_offset();
        if from > self.deleted_to {
            return Err(format!("{id} starts at {from}, and {} was deleted", self.deleted_to));
        }
        let records = self.records(id);
        for (offset, value) in self.acknowledged.range(from..) {
            let found = records.get(offset).map(|(_, found)| found);
            if found.is_none_or(|found| found[..] != value.to_be_bytes()) {
                return Err(format!("{id} leads without acknowledged {offset}: {found:?}"));
            }
        }
        Ok(())
    }

    fn check_equal(&self) -> Check {
        let all: Vec<_> = NODES
            .map(BrokerId)
            .into_iter()
            .filter_map(|id| {
                let partition = self.partition(id)?;
                let range = partition.log_start_offset()..partition.high_watermark();
                Some((id, range, self.records(id)))
            })
            .collect();
        for (n, (id, range, records)) in all.iter().enumerate() {
            for (other, other_range, others) in &all[n + 1..] {
                let from = range.start.max(other_range.start);
                let end = range.end.min(other_range.end).max(from);
                let (ours, theirs) = (records.range(from..end), others.range(from..end));
                if !ours.clone().eq(theirs.clone()) {
                    let (ours, theirs): (Vec<_>, Vec<_>) = (ours.collect(), theirs.collect());
                    let what = format!("{ours:?}\n{theirs:?}");
                    return Err(format!("{id} and {other} differ in {from}..{end}:\n{what}"));
                }
            }
        }
        Ok(())
    }

    /// Everything goes well again, and all replicas get the same.
    pub(super) fn heal(&mut self) -> Check {
        const ROUNDS: usize = 4000;
        for round in 0..ROUNDS {
            let id = BrokerId(NODES[round % NODES.len()]);
            self.clock.0.fetch_add(10, Ordering::Relaxed);
            self.reconnect(id);
            self.restart(id)?;
            self.fetch(id);
            self.ask_for_isr(id);
            for _ in 0..4 {
                self.deliver()?;
            }
            self.look()?;
            let ends: BTreeSet<(Offset, Offset)> = NODES
                .iter()
                .filter_map(|id| self.partition(BrokerId(*id)))
                .map(|it| (it.high_watermark(), it.log_end_offset()))
                .collect();
            let has_ended = ends.len() == 1 && ends.iter().all(|(high, end)| high == end);
            if has_ended && self.is_whole() {
                self.check_equal()?;
                return NODES.iter().try_for_each(|id| self.check_acknowledged(BrokerId(*id)));
            }
        }
        Err(format!("the replicas do not come together: {:?}", self.metadata))
    }
}
