//! How a client fetches a manifest and a chunk, by the real schedule, and opens them with the real seals.

use super::*;

impl World {
    // ---- fetching ----

    pub(super) fn want_body(&mut self, client: usize, body: BodyId) {
        let holders = self.placement_of(&body);
        let connected = self.neighbours(Party::Client(client));
        for node in 0..self.nodes.len() {
            let (peer, usable) = (self.nodes[node].peer, connected.contains(&node));
            self.feed_schedule(client, schedule::Event::Usable { peer, usable });
        }
        let holders = holders.into_iter().map(|node| self.nodes[node].peer).collect();
        self.feed_schedule(client, schedule::Event::Want { body, holders });
    }

    pub(super) fn ring_schedule(&mut self, client: usize) {
        self.feed_schedule(client, schedule::Event::Timer(schedule::Timer::Wake));
        // A body that was given up is wanted again after a while.
        let pending = self.clients[client].task.as_ref().map(|task| (task.schedule.pending(), task.stage));
        if let Some((0, Stage::FetchingManifest(body) | Stage::FetchingChunk(body))) = pending {
            self.want_body(client, body);
        }
    }

    pub(super) fn feed_schedule(&mut self, client: usize, event: schedule::Event) {
        let (now, mut out) = (Millis(self.now), Outbox::new());
        let Some(task) = &mut self.clients[client].task else { return };
        task.schedule.handle(now, event, &mut out);
        let pending = task.schedule.pending();
        let checked = self.oracle.bounds.fetches(pending);
        self.check(checked);
        for action in out.drain().collect::<Vec<_>>() {
            match action {
                schedule::Action::Fetch { body, from } => {
                    if let Some(from) = self.index_of(&from) {
                        let asked = Asked::Fetch { body, from };
                        self.client_asks(client, from, asked, |number| Packet::Fetch { number, id: body });
                    }
                }
                schedule::Action::Cancel { body, from } => {
                    let from = self.index_of(&from);
                    let is_it = |asked: &Asked| {
                        matches!(asked, Asked::Fetch { body: b, from: f }
                        if *b == body && Some(*f) == from)
                    };
                    self.clients[client].asked.retain(|_, asked| !is_it(asked));
                }
                schedule::Action::Arm { at, .. } => {
                    let delay = at.since(now).0 + 1;
                    self.wake_client(client, delay);
                }
                schedule::Action::GiveUp { .. } => self.again_soon(client),
                schedule::Action::Done { .. } => {}
            }
        }
    }

    pub(super) fn body_came(&mut self, client: usize, body: BodyId, from: usize, fetched: Fetched) {
        let peer = self.nodes[from].peer;
        let end = match &fetched {
            Fetched::Body(bytes) if chunk::body_id(bytes) == body => schedule::End::Good,
            Fetched::Body(_) => return self.fail(|| "a bad copy was given out".into()),
            Fetched::NotHere => schedule::End::NotHere,
            Fetched::Corrupt => schedule::End::Corrupt,
        };
        self.feed_schedule(client, ended(peer, body, end));
        if let Fetched::Body(bytes) = fetched {
            let stage = self.task(client).stage;
            if stage == Stage::FetchingManifest(body) {
                self.manifest_came(client, body, &bytes);
            } else if stage == Stage::FetchingChunk(body) {
                self.chunk_came(client, &bytes);
            }
        }
    }

    pub(super) fn manifest_came(&mut self, client: usize, id: BodyId, bytes: &[u8]) {
        let task = self.task(client);
        let Some((register, _)) = task.current.clone() else { return };
        let version = register.version - u64::from(register.is_tombstone());
        let (object, goal) = (task.object, task.goal);
        let manifest = match manifest::open(keys(), &object, version, &id, bytes) {
            Ok(manifest) => manifest,
            Err(error) => return self.fail(|| format!("a manifest does not open: {error}")),
        };
        if matches!(goal, Goal::Put { .. }) {
            return self.write_next(client, Some((register, Some(manifest))));
        }
        let Layout::Chunks(chunks) = &manifest.layout else { return };
        let Some(first) = chunks.first().map(|c| c.chunk.id) else { return };
        self.task(client).current = Some((register, Some(manifest)));
        self.enter(client, Stage::FetchingChunk(first));
    }

    pub(super) fn chunk_came(&mut self, client: usize, bytes: &[u8]) {
        let Some((register, Some(manifest))) = self.task(client).current.clone() else { return };
        let Layout::Chunks(chunks) = &manifest.layout else { return };
        let mut bytes = bytes.to_vec();
        let true_bytes = manifest.chunk_true_bytes(0);
        let opened = chunk::open(&chunks[0], &mut bytes, true_bytes, IdCheck::Done);
        let Ok(opened) = opened else { return self.fail(|| "a chunk does not open".into()) };
        let (head, _) = opened.split_first_chunk::<8>().expect("a value has more bytes");
        let value = u64::from_le_bytes(*head);
        if opened != plain(value) {
            return self.fail(|| format!("the bytes of value {value} are not what was written"));
        }
        self.end_task(client, Some(Told::Read { version: register.version, value }));
    }
}
