//! How a client stores and proposes: each body at one node that passes it on, then the next version's
//! register. It is a step of its task, never two at once.

use super::*;

impl World {
    // ---- storing ----

    pub(super) fn store_next(&mut self, client: usize) {
        let task = self.task(client);
        if task.storing.is_none() {
            let Some((id, body)) = task.waiting.pop() else { return self.all_is_stored(client) };
            let (holders, tried) = (BTreeSet::new(), BTreeSet::new());
            task.storing = Some(Storing { id, body, holders, tried });
        }
        let usable = self.usable(client);
        let Some(storing) = &self.task(client).storing else { return };
        let wanted = usable.len().clamp(1, 2);
        let (id, body, holders) = (storing.id, Arc::clone(&storing.body), storing.holders.clone());
        let tried = storing.tried.clone();
        if holders.len() >= wanted {
            return self.body_is_stored(client);
        }
        let order = self.placement_of(&id);
        let is_free =
            |node: &&usize| usable.contains(node) && !holders.contains(node) && !tried.contains(node);
        let Some(to) = order.iter().find(is_free).copied() else {
            if !holders.is_empty() {
                return self.body_is_stored(client);
            }
            self.task(client).storing.as_mut().expect("being stored").tried.clear();
            return self.again_soon(client);
        };
        let onward = order.iter().filter(|node| **node != to && !holders.contains(node)).copied();
        let onward: Vec<usize> = onward.take(placement::COPIES.saturating_sub(holders.len() + 1)).collect();
        let durable = 2usize.saturating_sub(holders.len()).clamp(1, onward.len() + 1);
        let asked = Asked::Store { to };
        self.client_asks(client, to, asked, |number| Packet::Store { number, id, body, onward, durable });
    }

    pub(super) fn placement_of(&self, id: &BodyId) -> Vec<usize> {
        let Some(founding) = &self.founding else { return Vec::new() };
        let members: Vec<Weighted> = founding.members.iter().map(Weighted::from).collect();
        placement::order(&members, id).iter().filter_map(|peer| self.index_of(peer)).collect()
    }

    pub(super) fn body_is_stored(&mut self, client: usize) {
        let task = self.task(client);
        if let Some(storing) = task.storing.take() {
            task.fewest = task.fewest.min(storing.holders.len());
            task.bodies.push(storing.id);
        }
        self.store_next(client);
    }

    pub(super) fn all_is_stored(&mut self, client: usize) {
        match self.task(client).stage {
            Stage::StoringManifest => self.enter(client, Stage::Proposing),
            _ => self.enter(client, Stage::Reading),
        }
    }

    // ---- writing ----

    /// Seals and signs the version after `current`, and stores what it names.
    pub(super) fn write_next(
        &mut self,
        client: usize,
        current: Option<(VerifiedRegister, Option<Manifest>)>,
    ) {
        let unix_ms = 1_700_000_000_000 + self.now;
        let task = self.task(client);
        let before = current.as_ref().map(|(register, _)| register.clone());
        let version = before.as_ref().map_or(1, |b| b.version + 1);
        let tombstone = task.goal == Goal::Remove;
        let (bytes, thumbnail) = (task.sealed.as_ref().map_or(0, |(_, bytes)| *bytes), None);
        let media_type = MediaType::octet_stream();
        let info = ObjectInfo { name: task.name.clone(), media_type, bytes, unix_ms, thumbnail };
        let mut manifest = before.as_ref().and_then(|b| b.manifest);
        if let Some((sealed, _)) = task.sealed.as_ref().filter(|_| !tombstone) {
            let plan = ManifestPlan {
                info: info.clone(),
                chunks: vec![sealed.clone()],
                predecessors: predecessors(current.as_ref()),
                redundancy: Redundancy::Copies(placement::COPIES as u64),
            };
            let bodies = manifest::seal(keys(), version, &plan).expect("a plan of ours");
            manifest = bodies.last().map(|body| body.id);
            task.waiting = bodies.into_iter().map(|body| (body.id, Arc::new(body.bytes))).collect();
        }
        let plan = RegisterPlan {
            info: &info,
            version,
            previous: before.as_ref().map_or(Digest::ZERO, VerifiedRegister::hash),
            manifest,
            tombstone,
            fence: 0,
            requests: register::requests_with(before.as_ref().map_or(&[], |b| &b.requests), task.request),
        };
        let value = register::sign(keys(), &plan).expect("a register of ours");
        (task.proposed, task.attempts) = (Some(value), 0);
        self.enter(client, Stage::StoringManifest);
    }
}
