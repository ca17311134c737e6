//! What clients bring for tasks, and what comes of it: in memory only, while the task is in hand here.
//!
//! Only its client touches a task, and only under the assignment that counts here. No byte of it is logged
//! or written anywhere. `proto::history` decides what is kept and when work begins.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc;
use zeroize::Zeroize;

use super::{
    Done,
    worker::{self, Leash, Pieces},
};
use crate::{
    model::{
        BodyId, PeerId, limits,
        task::{Rank, TaskId, TaskRecord},
    },
    net::{BulkAnswer, Piece},
    work::answer::WORKER_FAILED,
};

/// Pieces named in one answer to a client that asks what is missing.
const MISSING_SAID_MAX: usize = 256;

/// The tasks in hand. Cheap to clone.
#[derive(Clone)]
pub(super) struct Workbench(Arc<Shared>);

struct Shared {
    items: Mutex<BTreeMap<TaskId, Item>>,
    /// What becomes a process that works on one task; see [`worker`].
    program: Option<PathBuf>,
    done: mpsc::Sender<Done>,
}

struct Item {
    rank: Rank,
    payload_bytes: usize,
    payload: Payload,
    /// Pieces that have not come.
    missing: BTreeSet<u32>,
    answer: Pieces,
    /// Work that is under way ends with it.
    leash: Leash,
    /// Its client was heard of since the loop looked last.
    is_touched: bool,
}

/// Bytes that are wiped when they are no longer wanted: a picture and a text of somebody else.
#[derive(Default)]
struct Payload(Vec<u8>);

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Workbench {
    /// An empty one; `done` hears of payloads that are whole and of work that has ended.
    pub(super) fn new(done: mpsc::Sender<Done>, program: Option<PathBuf>) -> Self {
        Self(Arc::new(Shared { items: Mutex::default(), program, done }))
    }

    fn items(&self) -> MutexGuard<'_, BTreeMap<TaskId, Item>> {
        self.0.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client will come with this; what an earlier assignment has left is forgotten.
    pub(super) fn expect(&self, record: &TaskRecord) {
        let payload_bytes = usize::try_from(record.payload_bytes).unwrap_or(usize::MAX);
        let pieces = u32::try_from(payload_bytes.div_ceil(limits::CHUNK_BYTES)).unwrap_or(u32::MAX);
        let item = Item {
            rank: record.rank,
            payload_bytes,
            payload: Payload::default(),
            missing: (0..pieces).collect(),
            answer: Pieces::new(),
            leash: Leash::default(),
            is_touched: false,
        };
        let before = self.items().insert(record.task, item);
        wipe(before);
    }

    /// Forgets a task.
    pub(super) fn drop_task(&self, task: &TaskId) {
        let dropped = self.items().remove(task);
        wipe(dropped);
    }

    /// Takes a piece in.
    pub(super) async fn give(&self, client: PeerId, piece: Piece, body: &[u8]) -> BulkAnswer {
        let task = TaskId { client, number: piece.task };
        let is_whole = match self.put_piece(&task, piece, body) {
            Ok(is_whole) => is_whole,
            Err(refusal) => return refusal,
        };
        if is_whole {
            // A loop that has ended needs no payload.
            let _ = self.0.done.send(Done::PayloadHere { task, rank: piece.rank }).await;
        }
        BulkAnswer::Stored { holders: Vec::new() }
    }

    /// Whether it was the last that was missing.
    fn put_piece(&self, task: &TaskId, piece: Piece, body: &[u8]) -> Result<bool, BulkAnswer> {
        let mut items = self.items();
        let item = items.get_mut(task).filter(|item| item.rank == piece.rank);
        let item = item.ok_or_else(|| refused("this node does not have that assignment"))?;
        item.is_touched = true;
        let begin = usize::try_from(piece.index).unwrap_or(usize::MAX).saturating_mul(limits::CHUNK_BYTES);
        let end = begin.saturating_add(limits::CHUNK_BYTES).min(item.payload_bytes);
        if begin >= item.payload_bytes || body.len() != end - begin {
            return Err(refused("a piece of another length"));
        }
        if !item.missing.contains(&piece.index) {
            return Ok(false);
        }
        if item.payload.0.is_empty() {
            // A machine without memory for it is not the one to do it, and goes on with all else.
            item.payload.0.try_reserve_exact(item.payload_bytes).map_err(|_| BulkAnswer::Full)?;
            item.payload.0.resize(item.payload_bytes, 0);
        }
        item.missing.remove(&piece.index);
        item.payload.0[begin..end].copy_from_slice(body);
        Ok(item.missing.is_empty())
    }

    /// Gives a piece of an answer out.
    pub(super) fn take(&self, client: PeerId, piece: Piece) -> BulkAnswer {
        let task = TaskId { client, number: piece.task };
        let mut items = self.items();
        let Some(item) = items.get_mut(&task).filter(|item| item.rank == piece.rank) else {
            return BulkAnswer::NotHere;
        };
        item.is_touched = true;
        let index = usize::try_from(piece.index).unwrap_or(usize::MAX);
        match item.answer.get(index).filter(|(id, _)| *id == piece.id) {
            Some((_, bytes)) => BulkAnswer::Body(Arc::clone(bytes)),
            None => BulkAnswer::NotHere,
        }
    }

    /// What a client has to know to bring the rest, or to fetch the answer.
    pub(super) fn pieces(&self, task: &TaskId) -> (Vec<u32>, Vec<BodyId>) {
        let items = self.items();
        let Some(item) = items.get(task) else { return Default::default() };
        let missing = item.missing.iter().copied().take(MISSING_SAID_MAX).collect();
        (missing, item.answer.iter().map(|(id, _)| *id).collect())
    }

    /// Tasks whose clients were heard of since the last call.
    pub(super) fn take_touched(&self) -> Vec<TaskId> {
        let mut items = self.items();
        let touched =
            items.iter_mut().filter_map(|(task, item)| std::mem::take(&mut item.is_touched).then_some(*task));
        touched.collect()
    }

    /// Works, beside the loop.
    pub(super) fn run(&self, task: TaskId, rank: Rank) {
        let taken = self.items().get_mut(&task).filter(|item| item.rank == rank).map(|item| {
            let payload = std::mem::take(&mut item.payload);
            (payload, item.leash.held())
        });
        let bench = self.clone();
        tokio::spawn(async move {
            let mut answer_bytes = 0;
            if let Some((payload, held)) = taken {
                let shared = Arc::clone(&bench.0);
                let its = held.clone();
                let working = move || worker::work(shared.program.as_deref(), payload, &its);
                let mut working = tokio::task::spawn_blocking(working);
                let limit = limits::TASK_WORK_MAX.into();
                let worked = match tokio::time::timeout(limit, &mut working).await {
                    Ok(worked) => worked,
                    Err(_) => {
                        held.end();
                        working.await
                    }
                };
                let pieces = worked.unwrap_or_else(|error| {
                    tracing::error!("a task's work came to no end: {error}");
                    worker::failure(WORKER_FAILED)
                });
                answer_bytes = pieces.iter().map(|(_, piece)| piece.len() as u64).sum();
                bench.finish(&task, rank, pieces);
            }
            let _ = bench.0.done.send(Done::Worked { task, rank, answer_bytes }).await;
        });
    }

    /// Forgets everything, and ends what is under way: this node stops.
    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *self.items());
        drop(all);
    }

    fn finish(&self, task: &TaskId, rank: Rank, pieces: Pieces) {
        let mut items = self.items();
        if let Some(item) = items.get_mut(task).filter(|item| item.rank == rank) {
            item.answer = pieces;
        }
    }
}

fn refused(why: &str) -> BulkAnswer {
    BulkAnswer::Refused(why.to_owned())
}

impl Drop for Item {
    fn drop(&mut self) {
        for (_, piece) in std::mem::take(&mut self.answer) {
            // What is on its way still is let go there.
            if let Some(mut bytes) = Arc::into_inner(piece) {
                bytes.zeroize();
            }
        }
    }
}

/// Wiping hundreds of megabytes takes a moment, for which neither the loop nor whoever wants the lock shall
/// wait.
fn wipe(item: Option<Item>) {
    if let Some(item) = item {
        tokio::task::spawn_blocking(move || drop(item));
    }
}

#[cfg(test)]
mod tests {
    use libp2p_identity::Keypair;

    use super::*;
    use crate::model::{
        member::{Epoch, NodeNumber},
        task::{Claim, Phase, TaskKind},
    };
    use crate::work::answer;

    fn client(byte: u8) -> PeerId {
        Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes").public().to_peer_id()
    }

    fn record(payload_bytes: u64, attempt: u64) -> TaskRecord {
        let claim = Claim { epoch: Epoch::FOUNDING, counter: 1, node: NodeNumber(0) };
        TaskRecord {
            task: TaskId { client: client(1), number: 1 },
            kind: TaskKind("strip".into()),
            payload_bytes,
            rank: Rank { claim, attempt },
            worker: NodeNumber(0),
            phase: Phase::Assigned,
        }
    }

    fn piece(record: &TaskRecord, index: u32, body: &[u8]) -> Piece {
        let id = BodyId(*blake3::hash(body).as_bytes());
        Piece { task: record.task.number, rank: record.rank, index, id }
    }

    #[tokio::test]
    async fn only_its_client_brings_it_under_the_assignment_that_counts_and_all_of_it() {
        let (done, mut heard) = mpsc::channel(8);
        let bench = Workbench::new(done, None);
        let record = record(limits::CHUNK_BYTES as u64 + 3, 2);
        bench.expect(&record);
        let (first, last) = (vec![7; limits::CHUNK_BYTES], vec![9; 3]);
        let refused = |answer| matches!(answer, BulkAnswer::Refused(_));
        assert!(refused(bench.give(client(2), piece(&record, 1, &last), &last).await), "a stranger");
        let older = TaskRecord { rank: Rank { attempt: 1, ..record.rank }, ..record.clone() };
        assert!(refused(bench.give(client(1), piece(&older, 1, &last), &last).await));
        assert!(refused(bench.give(client(1), piece(&record, 2, &last), &last).await), "beyond the end");
        assert!(refused(bench.give(client(1), piece(&record, 0, &last), &last).await), "too short");
        assert_eq!(bench.pieces(&record.task).0, [0, 1]);
        for (index, body) in [(1, &last), (1, &last), (0, &first)] {
            let answer = bench.give(client(1), piece(&record, index, body), body).await;
            assert!(matches!(answer, BulkAnswer::Stored { .. }));
        }
        assert!(matches!(heard.try_recv(), Ok(Done::PayloadHere { .. })));
        assert!(heard.try_recv().is_err(), "it is whole once");
        assert_eq!(bench.take_touched(), [record.task]);
        assert!(bench.take_touched().is_empty());
    }

    #[tokio::test]
    async fn what_is_no_envelope_gets_an_answer_too_and_only_its_client_takes_it() {
        let (done, mut heard) = mpsc::channel(8);
        let bench = Workbench::new(done, None);
        let record = record(3, 1);
        bench.expect(&record);
        let body = vec![1, 2, 3];
        bench.give(client(1), piece(&record, 0, &body), &body).await;
        bench.run(record.task, record.rank);
        assert!(matches!(heard.recv().await, Some(Done::PayloadHere { .. })));
        assert!(matches!(heard.recv().await, Some(Done::Worked { .. })));
        let (_, pieces) = bench.pieces(&record.task);
        assert_eq!(pieces.len(), 1);
        let wanted = Piece { id: pieces[0], ..piece(&record, 0, &body) };
        assert!(matches!(bench.take(client(2), wanted), BulkAnswer::NotHere));
        let BulkAnswer::Body(bytes) = bench.take(client(1), wanted) else { panic!("it is there") };
        assert!(answer::read(bytes.to_vec()).expect("an answer").is_err(), "the sentence of a refusal");
        bench.drop_task(&record.task);
        assert!(matches!(bench.take(client(1), wanted), BulkAnswer::NotHere));
    }
}
