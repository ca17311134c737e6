//! The gate: who is let in, by which key and which rules, and what is remembered of those let in.
//!
//! It is shared state behind one short lock: no waiting, no I/O. The wire exchange (`admission`) asks it;
//! the rooms above feed it what they know durably and read what it saw. It must never let anybody in
//! whose proof was not checked, and it writes nothing to disk: keeping marks durably is the caller's.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use libp2p::{Multiaddr, PeerId};
use serde_bytes::ByteBuf;
use tokio::sync::{Notify, mpsc};

use super::refusal::Refusal;
use crate::{
    model::{
        FoundingId, Incarnation, ProcessId,
        hello::{BootMark, Hello, Kind, KnownPeer, PROTOCOL_VERSION, Side},
        limits,
    },
    seal::admission::{ClientRight, ClusterKey, ClusterTag, RoleKey},
};

/// What this process says of itself to those it meets.
#[derive(Clone, Debug)]
pub struct Me {
    /// Our identity; the one of the transport's key pair.
    pub peer: PeerId,
    /// [`Kind::Member`] for a node, [`Kind::Client`] for a client.
    pub kind: Kind,
    /// This start; boot 0 for a client.
    pub mark: BootMark,
    /// How many promises our disk had made durable before this start; 0 for a client.
    pub promises: u64,
    /// The incarnation of our disk; none for a client.
    pub incarnation: Option<Incarnation>,
    /// Our cluster's founding, once there is one.
    pub founding: Option<FoundingId>,
    /// A display name, at most [`limits::DISPLAY_NAME_BYTES_MAX`] bytes; longer is cut.
    pub name: String,
}

/// What we hold of a cluster: all of it, or the client right alone.
#[derive(Clone, Debug)]
pub enum Keys {
    /// The cluster key: we can be a member, and admit members and clients.
    Cluster(ClusterKey),
    /// The client right: we can dial as a client.
    Client(ClientRight),
}

/// The starts of our own home that we remember, this one included.
#[derive(Clone, Debug, Default)]
pub struct OwnStarts(BTreeMap<u64, ProcessId>);

/// What the gate tells the rooms above. Events may be lost when nobody reads them; the same facts are
/// in [`Gate::known_peers`], [`Gate::refused`] and [`Gate::rolled_back`].
#[derive(Clone, Debug)]
pub enum GateEvent {
    /// A peer was let in by both sides. For a member whose `mark.boot` grew, connections admitted
    /// earlier belong to a process that is gone: close them, and keep the mark durably.
    Admitted {
        /// Who.
        peer: PeerId,
        /// What it said.
        hello: Arc<Hello>,
        /// Where it is.
        addr: Multiaddr,
        /// Which end we are.
        side: Side,
        /// Whether an older start of this peer was known.
        newer_start: bool,
    },
    /// A peer was refused, by us or by it.
    Refused {
        /// Who, where the TLS handshake got as far as that.
        peer: Option<PeerId>,
        /// Where it is.
        addr: Multiaddr,
        /// Why.
        refusal: Refusal,
        /// Whether the other side refused us.
        by_them: bool,
    },
    /// A peer that proved its key has seen a start of ours that our home does not remember.
    RolledBack {
        /// Who saw it.
        peer: PeerId,
        /// What it saw.
        seen: BootMark,
    },
}

/// Shared by the transport and the rooms above; clones are the same gate.
#[derive(Clone)]
pub struct Gate(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Rung when a connection of an admitted peer is gone.
    left: Notify,
    /// Dials that were told to come again and do.
    in_line: AtomicUsize,
}

/// Counted as one dial that waits for its turn to be admitted, for as long as it lives.
pub(super) struct InLine(Gate);

impl Drop for InLine {
    fn drop(&mut self) {
        self.0.0.in_line.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counted as one connection of an admitted peer for as long as it lives.
#[derive(Debug)]
pub(super) struct Presence {
    gate: Gate,
    peer: PeerId,
}

struct State {
    me: Me,
    member_key: Option<RoleKey>,
    client_key: RoleKey,
    tag: ClusterTag,
    starts: OwnStarts,
    /// The members of our founding, by the incarnation that was founded. Empty before there is one.
    members: BTreeMap<PeerId, Incarnation>,
    known: BTreeMap<PeerId, Seen>,
    seen_count: u64,
    admitted: BTreeMap<PeerId, Admitted>,
    admitted_count: u64,
    refused: BTreeMap<Refusal, u64>,
    logged: BTreeSet<(IpAddr, Option<PeerId>, Refusal)>,
    rolled_back: bool,
    events: mpsc::Sender<GateEvent>,
}

/// The last start seen of a node, and when it was seen, counted in such sights.
struct Seen {
    known: KnownPeer,
    order: u64,
}

struct Admitted {
    hello: Arc<Hello>,
    order: u64,
    connections: u32,
}

impl OwnStarts {
    /// From what the home remembers; the start that runs now must be among them.
    pub fn new(starts: impl IntoIterator<Item = BootMark>) -> Self {
        Self(starts.into_iter().map(|mark| (mark.boot, mark.process)).collect())
    }

    /// Whether this may have been a start of ours. One older than all that are remembered may have been.
    pub fn may_contain(&self, mark: &BootMark) -> bool {
        match self.0.first_key_value() {
            Some((oldest, _)) if self.0.len() >= limits::BOOT_HISTORY_MAX && mark.boot < *oldest => true,
            _ => self.0.get(&mark.boot) == Some(&mark.process),
        }
    }
}

impl Gate {
    /// A gate, and where its events come out (bounded; read them).
    pub fn new(
        me: Me,
        keys: Keys,
        starts: OwnStarts,
        known: impl IntoIterator<Item = (PeerId, KnownPeer)>,
    ) -> (Self, mpsc::Receiver<GateEvent>) {
        let (events, receiver) = mpsc::channel(limits::GATE_EVENTS_MAX);
        let (member_key, right) = match &keys {
            Keys::Cluster(key) => (Some(key.member_key()), key.client_right()),
            Keys::Client(right) => (None, right.clone()),
        };
        let state = State {
            me,
            member_key,
            client_key: right.client_key(),
            tag: right.tag(),
            starts,
            members: BTreeMap::new(),
            known: known.into_iter().map(|(peer, known)| (peer, Seen { known, order: 0 })).collect(),
            seen_count: 0,
            admitted: BTreeMap::new(),
            admitted_count: 0,
            refused: BTreeMap::new(),
            logged: BTreeSet::new(),
            rolled_back: false,
            events,
        };
        (
            Self(Arc::new(Shared {
                state: Mutex::new(state),
                left: Notify::new(),
                in_line: AtomicUsize::new(0),
            })),
            receiver,
        )
    }

    /// From now on our hello says that we belong to this founding.
    pub fn set_founding(&self, founding: FoundingId) {
        self.lock().me.founding = Some(founding);
    }

    /// The founding's members. From now on each is bound to the incarnation with which it was founded: the
    /// same key on another disk has forgotten its promises. Nobody else has made any, so of others nothing
    /// strict is kept: whoever empties `data/` before a founding, or was left out of it, may come anew.
    pub fn bind_members(&self, members: impl IntoIterator<Item = (PeerId, Incarnation)>) {
        let mut state = self.lock();
        state.members = members.into_iter().collect();
        let State { members, known, .. } = &mut *state;
        known.retain(|peer, seen| members.get(peer) == Some(&seen.known.incarnation));
    }

    /// Tells what is known durably of a member; a newer mark that the gate saw itself stays.
    pub fn set_known(&self, peer: PeerId, known: KnownPeer) {
        let mut state = self.lock();
        let newest = match state.known.get(&peer).map(|seen| seen.known) {
            Some(old) if old.incarnation == known.incarnation => KnownPeer {
                mark: old.mark.max(known.mark),
                promises: old.promises.max(known.promises),
                incarnation: known.incarnation,
            },
            _ => known,
        };
        state.remember_seen(peer, newest);
    }

    /// A node that we know was heard to have made so many promises durable on this disk: no later start of it
    /// may know of fewer. `boot` is the start that says so; none = the one that is connected. Of a start that
    /// we have not met ourselves, but heard of through others, nothing is noted: what that one promised must
    /// not be asked of the one before.
    pub fn note_promises(&self, peer: &PeerId, incarnation: &Incarnation, boot: Option<u64>, promises: u64) {
        let mut state = self.lock();
        if let Some(seen) = state.known.get_mut(peer)
            && seen.known.incarnation == *incarnation
            && boot.is_none_or(|boot| boot == seen.known.mark.boot)
        {
            seen.known.promises = seen.known.promises.max(promises);
        }
    }

    /// What is known of every node met or told; the caller keeps that of members durably.
    pub fn known_peers(&self) -> Vec<(PeerId, KnownPeer)> {
        self.lock().known.iter().map(|(peer, seen)| (*peer, seen.known)).collect()
    }

    /// What a peer was last admitted as; [`Kind::Member`] means that it holds the cluster key, not that it
    /// is in the member list. None if it never was, or long ago.
    pub fn kind(&self, peer: &PeerId) -> Option<Kind> {
        self.hello(peer).map(|hello| hello.kind)
    }

    /// What a peer said when it was last admitted. None if it never was, or long ago.
    pub fn hello(&self, peer: &PeerId) -> Option<Arc<Hello>> {
        self.lock().admitted.get(peer).map(|admitted| admitted.hello.clone())
    }

    /// Peers of this kind with a connection that was admitted and still lives.
    pub fn connected(&self, kind: Kind) -> usize {
        let state = self.lock();
        state.admitted.values().filter(|a| a.connections > 0 && a.hello.kind == kind).count()
    }

    /// Refusals since the start by reason, by us and of us; answered looks are left out.
    pub fn refused(&self) -> BTreeMap<Refusal, u64> {
        self.lock().refused.clone()
    }

    /// All refusals since the start. Who was told to come again, because others were being admitted, was not
    /// refused, nor who left before he was admitted: a person who starts many commands at once is no attack.
    pub fn refused_total(&self) -> u64 {
        let state = self.lock();
        let of_the_moment = |refusal: &Refusal| matches!(refusal, Refusal::Busy | Refusal::Leaving);
        state.refused.iter().filter(|(refusal, _)| !of_the_moment(refusal)).map(|(_, count)| count).sum()
    }

    /// Whether some dial was told to come again, by a node that is admitting others, and still does.
    pub fn is_in_line(&self) -> bool {
        self.0.in_line.load(Ordering::Relaxed) > 0
    }

    pub(super) fn stand_in_line(&self) -> InLine {
        self.0.in_line.fetch_add(1, Ordering::Relaxed);
        InLine(self.clone())
    }

    /// Whether a peer with the key has proved that our home was put back. It stays so, and nobody is let in.
    pub fn rolled_back(&self) -> bool {
        self.lock().rolled_back
    }

    /// The public name of our cluster key.
    pub fn tag(&self) -> ClusterTag {
        self.lock().tag
    }

    /// What we are.
    pub fn me(&self) -> Me {
        self.lock().me.clone()
    }

    /// Our hello to this peer.
    pub(super) fn hello_to(&self, peer: &PeerId, side: Side) -> Hello {
        let state = self.lock();
        let known = state.known.get(peer).map(|seen| seen.known);
        let me = &state.me;
        Hello {
            side,
            kind: me.kind,
            known,
            mark: me.mark,
            promises: me.promises,
            incarnation: me.incarnation,
            founding: me.founding,
            ..bare_hello(&me.name)
        }
    }

    /// What a stranger may see: that this is tintype, its version, a name, founded or fresh, the key's tag.
    pub(super) fn public_hello(&self) -> Hello {
        let state = self.lock();
        Hello {
            side: Side::Listener,
            kind: Kind::Look,
            founding: state.me.founding.map(|_| FoundingId::ZERO),
            ticket: ByteBuf::from(state.tag.0.to_vec()),
            ..bare_hello(&state.me.name)
        }
    }

    /// The key of proofs with a dialer of this kind.
    pub(super) fn role_key(&self, kind: Kind) -> Result<RoleKey, Refusal> {
        let state = self.lock();
        match kind {
            Kind::Member => state.member_key.clone().ok_or(Refusal::WrongKey),
            Kind::Client => Ok(state.client_key.clone()),
            Kind::Ticket | Kind::Look => Err(Refusal::NotOffered),
        }
    }

    /// Judges a peer whose proof was checked. Says so if it shows that we are rolled back.
    pub(super) fn judge(&self, peer: &PeerId, hello: &Hello) -> Result<(), Refusal> {
        let mut state = self.lock();
        if let Some(seen) = state.start_we_forgot(hello) {
            if !state.rolled_back {
                let boot = seen.boot;
                tracing::error!(%peer, boot, "a peer has seen a start that this home does not remember");
            }
            state.rolled_back = true;
            state.tell(GateEvent::RolledBack { peer: *peer, seen });
        }
        state.judge(peer, hello)
    }

    /// Both sides agreed: remembers the peer. Judges again, for another connection may have come between.
    pub(super) fn admit(
        &self,
        peer: PeerId,
        hello: Hello,
        addr: Multiaddr,
        side: Side,
    ) -> Result<Presence, Refusal> {
        let mut state = self.lock();
        state.judge(&peer, &hello)?;
        let newer_start = state.remember_mark(peer, &hello);
        let hello = Arc::new(hello);
        state.remember_admitted(peer, hello.clone());
        state.tell(GateEvent::Admitted { peer, hello, addr, side, newer_start });
        drop(state);
        Ok(Presence { gate: self.clone(), peer })
    }

    /// Waits until no other process with this peer's identity is connected: one that was killed is noticed
    /// within the idle timeout, or as soon as its successor answers for it.
    ///
    /// # Errors
    /// [`Refusal::StillConnected`] if one is still there after all that: then both live, and one is a copy.
    pub(super) async fn until_predecessor_left(&self, peer: &PeerId, hello: &Hello) -> Result<(), Refusal> {
        let left = async {
            loop {
                let changed = self.0.left.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if !self.lock().another_process_is_connected(peer, hello) {
                    return;
                }
                changed.await;
            }
        };
        let patience = Duration::from(limits::PREDECESSOR_PATIENCE);
        tokio::time::timeout(patience, left).await.map_err(|_| Refusal::StillConnected)
    }

    /// Counts a refusal, logs it once, and tells.
    pub(super) fn note_refusal(
        &self,
        peer: Option<PeerId>,
        ip: IpAddr,
        addr: Multiaddr,
        refusal: Refusal,
        by_them: bool,
    ) {
        if refusal == Refusal::LookAnswered {
            return;
        }
        let mut state = self.lock();
        *state.refused.entry(refusal).or_default() += 1;
        if state.logged.len() >= limits::REFUSALS_LOGGED_MAX {
            state.logged.clear();
        }
        if state.logged.insert((ip, peer, refusal)) {
            let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
            match refusal {
                Refusal::Busy => tracing::info!(%peer, %addr, by_them, "put off at admission: {refusal}"),
                _ => tracing::warn!(%peer, %addr, by_them, "refused at admission: {refusal}"),
            }
        }
        state.tell(GateEvent::Refused { peer, addr, refusal, by_them });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock leaves counters at worst one off; refusing all peers would be worse.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn judge(&self, peer: &PeerId, hello: &Hello) -> Result<(), Refusal> {
        if *peer == self.me.peer {
            return Err(Refusal::OwnPeer);
        }
        if self.rolled_back {
            return Err(Refusal::RolledBack);
        }
        // Before a founding nothing was promised, and a disk may be emptied.
        let founded = hello.founding.is_some();
        let of_us = self.known_of_us(hello).filter(|_| founded);
        if of_us.is_some_and(|known| Some(known.incarnation) != self.me.incarnation) {
            return Err(Refusal::Emptied);
        }
        if let (Some(ours), Some(theirs)) = (self.me.founding, hello.founding)
            && ours != theirs
        {
            return Err(Refusal::OtherFounding);
        }
        match hello.kind {
            Kind::Member => self.judge_member(peer, hello),
            Kind::Client => Ok(()),
            Kind::Ticket | Kind::Look => Err(Refusal::NotOffered),
        }
    }

    /// A start of this very home that a member saw and the home does not remember.
    fn start_we_forgot(&self, hello: &Hello) -> Option<BootMark> {
        let known = self.known_of_us(hello).filter(|known| Some(known.incarnation) == self.me.incarnation)?;
        let unknown_start = !self.starts.may_contain(&known.mark);
        let of_earlier_start = known.mark.process != self.me.mark.process;
        let forgotten_promise = of_earlier_start && known.promises > self.me.promises;
        (unknown_start || forgotten_promise).then_some(known.mark)
    }

    fn another_process_is_connected(&self, peer: &PeerId, hello: &Hello) -> bool {
        self.admitted.get(peer).is_some_and(|admitted| {
            admitted.connections > 0 && admitted.hello.mark.process != hello.mark.process
        })
    }

    /// What a member says of us. Only members count: a client's right does not reach as far as to stop us.
    fn known_of_us(&self, hello: &Hello) -> Option<KnownPeer> {
        let between_members = self.me.kind == Kind::Member && hello.kind == Kind::Member;
        hello.known.filter(|_| between_members)
    }

    fn judge_member(&self, peer: &PeerId, hello: &Hello) -> Result<(), Refusal> {
        let Some(incarnation) = hello.incarnation.filter(|_| hello.mark.boot > 0) else {
            return Err(Refusal::BadHello);
        };
        // The incarnation first: an emptied disk counts its starts from one again.
        if self.members.get(peer).is_some_and(|founded| *founded != incarnation) {
            return Err(Refusal::OtherIncarnation);
        }
        let same_disk = self.known.get(peer).map(|seen| seen.known).filter(|k| k.incarnation == incarnation);
        let Some(known) = same_disk else { return Ok(()) };
        let copy = hello.mark.boot == known.mark.boot && hello.mark.process != known.mark.process;
        // A home that was copied while its node ran knows that node's start, but not all that it promised.
        let forgetful = hello.mark.process != known.mark.process && hello.promises < known.promises;
        if copy || forgetful || hello.mark.boot < known.mark.boot {
            return Err(Refusal::CopyOrOldBackup);
        }
        Ok(())
    }

    /// Whether an older start of this node was known.
    fn remember_mark(&mut self, peer: PeerId, hello: &Hello) -> bool {
        let (Kind::Member, Some(incarnation)) = (hello.kind, hello.incarnation) else {
            return false;
        };
        let same_disk = self.known.get(&peer).map(|seen| seen.known).filter(|k| k.incarnation == incarnation);
        let promises = hello.promises.max(same_disk.map_or(0, |known| known.promises));
        let new = KnownPeer { mark: hello.mark, promises, incarnation };
        let old = self.remember_seen(peer, new);
        old.is_some_and(|old| old.incarnation != new.incarnation || old.mark.boot < new.mark.boot)
    }

    /// Once there is a founding only its members are remembered; before, who was seen longest ago goes first.
    fn remember_seen(&mut self, peer: PeerId, known: KnownPeer) -> Option<KnownPeer> {
        if !self.members.is_empty() && !self.members.contains_key(&peer) {
            return None;
        }
        self.seen_count += 1;
        let old = self.known.insert(peer, Seen { known, order: self.seen_count });
        if self.known.len() > limits::KNOWN_PEERS_MAX {
            let oldest = self.known.iter().min_by_key(|(_, seen)| seen.order).map(|(peer, _)| *peer);
            oldest.and_then(|peer| self.known.remove(&peer));
        }
        old.map(|seen| seen.known)
    }

    fn remember_admitted(&mut self, peer: PeerId, hello: Arc<Hello>) {
        self.admitted_count += 1;
        let order = self.admitted_count;
        let connections = self.admitted.get(&peer).map_or(0, |admitted| admitted.connections) + 1;
        self.admitted.insert(peer, Admitted { hello, order, connections });
        if self.admitted.len() > limits::ADMITTED_REMEMBERED_MAX {
            let gone = self.admitted.iter().filter(|(_, admitted)| admitted.connections == 0);
            let oldest = gone.min_by_key(|(_, admitted)| admitted.order).map(|(peer, _)| *peer);
            oldest.and_then(|peer| self.admitted.remove(&peer));
        }
    }

    fn tell(&self, event: GateEvent) {
        if self.events.try_send(event).is_err() {
            tracing::debug!("nobody reads the gate's events fast enough: one is lost");
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if let Some(admitted) = self.gate.lock().admitted.get_mut(&self.peer) {
            admitted.connections = admitted.connections.saturating_sub(1);
        }
        self.gate.0.left.notify_waiters();
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate")
    }
}

/// A hello that says nothing but what program this is and a name.
pub(super) fn bare_hello(name: &str) -> Hello {
    let mut end = name.len().min(limits::DISPLAY_NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    Hello {
        format: 1,
        versions: (PROTOCOL_VERSION, PROTOCOL_VERSION),
        side: Side::Dialer,
        kind: Kind::Look,
        mark: BootMark { boot: 0, process: ProcessId::ZERO },
        promises: 0,
        known: None,
        incarnation: None,
        founding: None,
        features: 0,
        name: name[..end].to_owned(),
        software: env!("CARGO_PKG_VERSION").to_owned(),
        ticket: ByteBuf::new(),
    }
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;

    use super::*;

    fn mark(boot: u64, process: u8) -> BootMark {
        BootMark { boot, process: ProcessId([process; 16]) }
    }

    fn someone() -> PeerId {
        Keypair::generate_ed25519().public().to_peer_id()
    }

    fn gate() -> (Gate, mpsc::Receiver<GateEvent>) {
        let me = Me {
            peer: someone(),
            kind: Kind::Member,
            mark: mark(5, 5),
            promises: 50,
            incarnation: Some(Incarnation([1; 16])),
            founding: None,
            name: "desk".into(),
        };
        let key = ClusterKey::from_bytes([1; 32]);
        Gate::new(me, Keys::Cluster(key), OwnStarts::new([mark(4, 4), mark(5, 5)]), [])
    }

    /// A member that has seen this start of ours.
    fn member(at: BootMark, known: Option<BootMark>) -> Hello {
        let incarnation = Some(Incarnation([2; 16]));
        let known = known.map(|mark| KnownPeer { mark, promises: 50, incarnation: Incarnation([1; 16]) });
        Hello { kind: Kind::Member, mark: at, known, incarnation, ..bare_hello("attic") }
    }

    fn admit(gate: &Gate, peer: PeerId, hello: Hello) -> Result<Presence, Refusal> {
        gate.judge(&peer, &hello)?;
        gate.admit(peer, hello, Multiaddr::empty(), Side::Listener)
    }

    #[test]
    fn starts_only_grow_and_a_larger_one_is_told() {
        let (gate, mut events) = gate();
        let peer = someone();
        let mut newer = || match events.try_recv() {
            Ok(GateEvent::Admitted { newer_start, .. }) => newer_start,
            other => panic!("{other:?}"),
        };
        admit(&gate, peer, member(mark(3, 3), None)).unwrap();
        assert!(!newer());
        admit(&gate, peer, member(mark(3, 3), None)).unwrap();
        assert!(!newer());
        admit(&gate, peer, member(mark(4, 4), None)).unwrap();
        assert!(newer());
        for old in [mark(3, 3), mark(4, 9)] {
            assert_eq!(admit(&gate, peer, member(old, None)).unwrap_err(), Refusal::CopyOrOldBackup);
        }
        gate.bind_members([(peer, Incarnation([2; 16]))]);
        let emptied = Hello { incarnation: Some(Incarnation([9; 16])), ..member(mark(1, 1), None) };
        assert_eq!(admit(&gate, peer, emptied).unwrap_err(), Refusal::OtherIncarnation);
        assert_eq!(
            gate.known_peers(),
            [(peer, KnownPeer { mark: mark(4, 4), promises: 0, incarnation: Incarnation([2; 16]) })]
        );
    }

    #[test]
    fn before_a_founding_a_disk_may_be_emptied_and_after_it_a_members_may_not() {
        let (gate, mut events) = gate();
        let (peer, left_out) = (someone(), someone());
        let on = |disk: u8, at| Hello { incarnation: Some(Incarnation([disk; 16])), ..member(at, None) };
        admit(&gate, peer, on(2, mark(7, 7))).unwrap();
        admit(&gate, peer, on(3, mark(1, 1))).unwrap();
        let last = std::iter::from_fn(|| events.try_recv().ok()).last();
        assert!(matches!(last, Some(GateEvent::Admitted { newer_start: true, .. })), "{last:?}");
        // Votes were given on that disk: of the same one, only newer starts.
        assert_eq!(admit(&gate, peer, on(3, mark(1, 9))).unwrap_err(), Refusal::CopyOrOldBackup);
        // A node that is not founded either may know us by a disk that is gone; it is not held against us.
        let older = KnownPeer { mark: mark(9, 9), promises: 9, incarnation: Incarnation([8; 16]) };
        admit(&gate, someone(), Hello { known: Some(older), ..on(4, mark(1, 1)) }).unwrap();
        assert!(!gate.rolled_back());

        gate.set_founding(FoundingId([7; 16]));
        gate.bind_members([(peer, Incarnation([3; 16]))]);
        assert_eq!(admit(&gate, peer, on(4, mark(2, 2))).unwrap_err(), Refusal::OtherIncarnation);
        admit(&gate, peer, on(3, mark(2, 2))).unwrap();
        admit(&gate, left_out, on(5, mark(4, 4))).unwrap();
        admit(&gate, left_out, on(6, mark(1, 1))).unwrap();
        assert_eq!(gate.known_peers().len(), 1, "of a node left out nothing is kept");
    }

    #[test]
    fn nodes_that_come_and_go_are_forgotten_and_never_shut_the_door() {
        let (gate, _events) = gate();
        let first = someone();
        admit(&gate, first, member(mark(3, 3), None)).unwrap();
        for _ in 0..limits::KNOWN_PEERS_MAX + 10 {
            drop(admit(&gate, someone(), member(mark(1, 1), None)).unwrap());
        }
        assert_eq!(gate.known_peers().len(), limits::KNOWN_PEERS_MAX);
        let members = [(first, Incarnation([2; 16]))];
        gate.set_known(first, KnownPeer { mark: mark(3, 3), promises: 0, incarnation: Incarnation([2; 16]) });
        gate.bind_members(members);
        for _ in 0..limits::KNOWN_PEERS_MAX + 10 {
            drop(admit(&gate, someone(), member(mark(1, 1), None)).unwrap());
        }
        assert_eq!(admit(&gate, first, member(mark(2, 2), None)).unwrap_err(), Refusal::CopyOrOldBackup);
    }

    #[test]
    fn a_member_without_a_start_or_an_incarnation_is_no_member() {
        let (gate, _events) = gate();
        let nothing = Hello { incarnation: None, ..member(mark(1, 1), None) };
        assert_eq!(admit(&gate, someone(), nothing).unwrap_err(), Refusal::BadHello);
        assert_eq!(admit(&gate, someone(), member(mark(0, 1), None)).unwrap_err(), Refusal::BadHello);
    }

    #[test]
    fn only_a_member_can_show_that_we_were_rolled_back_and_then_nobody_gets_in() {
        let (gate, mut events) = gate();
        let (peer, client) = (someone(), someone());
        let liar = Hello { kind: Kind::Client, ..member(mark(0, 0), Some(mark(5, 9))) };
        drop(admit(&gate, client, liar.clone()).unwrap());
        assert!(!gate.rolled_back());
        admit(&gate, peer, member(mark(1, 1), Some(mark(4, 4)))).unwrap();
        let seen = mark(5, 9);
        assert_eq!(admit(&gate, peer, member(mark(1, 1), Some(seen))).unwrap_err(), Refusal::RolledBack);
        assert!(gate.rolled_back());
        assert_eq!(admit(&gate, client, liar).unwrap_err(), Refusal::RolledBack);
        let told = std::iter::from_fn(|| events.try_recv().ok());
        assert!(told.into_iter().any(|e| matches!(e, GateEvent::RolledBack { seen: s, .. } if s == seen)));
    }

    #[test]
    fn a_home_copied_while_its_node_ran_is_known_by_the_promises_that_it_lacks() {
        let (gate, _events) = gate();
        let (peer, disk) = (someone(), Incarnation([2; 16]));
        let start = |boot: u64, promises| Hello { promises, ..member(mark(boot, boot as u8), None) };
        drop(admit(&gate, peer, start(3, 10)).unwrap());
        gate.note_promises(&peer, &disk, None, 25);
        gate.note_promises(&peer, &Incarnation([9; 16]), None, 99);
        gate.note_promises(&peer, &disk, Some(3), 20);
        gate.note_promises(&peer, &disk, Some(4), 99);
        drop(admit(&gate, peer, start(3, 10)).expect("the process that we heard it from comes again"));
        assert_eq!(admit(&gate, peer, start(4, 24)).unwrap_err(), Refusal::CopyOrOldBackup);
        drop(admit(&gate, peer, start(4, 25)).expect("it forgot nothing"));
        assert_eq!(admit(&gate, peer, start(5, 24)).unwrap_err(), Refusal::CopyOrOldBackup);
        let known = KnownPeer { mark: mark(4, 4), promises: 25, incarnation: disk };
        assert_eq!(gate.known_peers(), [(peer, known)]);
    }

    #[test]
    fn a_member_that_heard_of_more_promises_than_we_know_shows_that_we_were_put_back() {
        let heard = |at: BootMark, promises| {
            let known = KnownPeer { mark: at, promises, incarnation: Incarnation([1; 16]) };
            Hello { known: Some(known), ..member(mark(1, 1), None) }
        };
        let (gate, _events) = gate();
        drop(admit(&gate, someone(), heard(mark(4, 4), 50)).unwrap());
        drop(admit(&gate, someone(), heard(mark(5, 5), 70)).expect("what this process did meanwhile"));
        let put_back = heard(mark(4, 4), 51);
        assert_eq!(admit(&gate, someone(), put_back).unwrap_err(), Refusal::RolledBack);
        assert!(gate.rolled_back());
    }

    #[tokio::test]
    async fn a_restarted_peer_waits_for_the_end_of_its_predecessor_and_a_copy_waits_in_vain() {
        let (gate, _events) = gate();
        let peer = someone();
        let (first, second) = (member(mark(3, 3), None), member(mark(4, 4), None));
        let presence = admit(&gate, peer, first.clone()).unwrap();
        gate.until_predecessor_left(&peer, &first).await.expect("a second connection of the same process");
        let refused = gate.until_predecessor_left(&peer, &second).await;
        assert_eq!(refused, Err(Refusal::StillConnected));
        let leaves = async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            drop(presence);
        };
        let (waited, ()) = tokio::join!(gate.until_predecessor_left(&peer, &second), leaves);
        assert_eq!(waited, Ok(()));
    }

    #[test]
    fn an_emptied_home_is_not_taken_for_one_that_was_put_back() {
        let (gate, _events) = gate();
        let known = KnownPeer { mark: mark(70, 7), promises: 9, incarnation: Incarnation([8; 16]) };
        let founding = Some(FoundingId([7; 16]));
        let hello = Hello { known: Some(known), founding, ..member(mark(1, 1), None) };
        assert_eq!(admit(&gate, someone(), hello).unwrap_err(), Refusal::Emptied);
        assert!(!gate.rolled_back());
    }

    #[test]
    fn a_start_older_than_a_full_history_may_have_been_ours() {
        let last = limits::BOOT_HISTORY_MAX as u64 + 10;
        let full = OwnStarts::new((11..=last).map(|boot| mark(boot, 1)));
        assert!(full.may_contain(&mark(10, 9)) && full.may_contain(&mark(11, 1)));
        assert!(!full.may_contain(&mark(11, 2)) && !full.may_contain(&mark(last + 1, 1)));
        assert!(!OwnStarts::new([mark(2, 1)]).may_contain(&mark(1, 1)), "a short history is complete");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_living_stay() {
        let (gate, _events) = gate();
        let alive = someone();
        let client = || Hello { kind: Kind::Client, ..bare_hello("") };
        let presence = admit(&gate, alive, client()).unwrap();
        for _ in 0..limits::ADMITTED_REMEMBERED_MAX + 10 {
            drop(admit(&gate, someone(), client()).unwrap());
        }
        assert_eq!(gate.lock().admitted.len(), limits::ADMITTED_REMEMBERED_MAX);
        assert_eq!((gate.kind(&alive), gate.connected(Kind::Client)), (Some(Kind::Client), 1));
        drop(presence);
        assert_eq!(gate.connected(Kind::Client), 0);
        for _ in 0..limits::REFUSALS_LOGGED_MAX + 10 {
            let (ip, addr) = (IpAddr::from([127, 0, 0, 1]), Multiaddr::empty());
            gate.note_refusal(Some(someone()), ip, addr, Refusal::WrongKey, false);
        }
        assert!(gate.lock().logged.len() <= limits::REFUSALS_LOGGED_MAX);
        assert_eq!(gate.refused_total(), limits::REFUSALS_LOGGED_MAX as u64 + 10);
    }

    #[test]
    fn a_stranger_learns_nothing_that_tells_starts_or_foundings() {
        let (gate, _events) = gate();
        gate.set_founding(FoundingId([7; 16]));
        let public = gate.public_hello();
        assert_eq!((public.founding, public.incarnation), (Some(FoundingId::ZERO), None));
        assert_eq!((public.mark, public.known), (mark(0, 0), None));
        assert_eq!(public.name, "desk");
    }
}
