//! Pieces of a task's payload to its worker, and of its answer back.

use std::{future::Future, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    model::{BodyId, limits, task::Rank},
    net::{BulkClient, BulkError, Piece},
    proto::errand::End,
    work::answer,
};

/// Pieces on their way at once.
const AT_ONCE: usize = limits::TRANSFER_CHUNKS_MAX;
/// How often a worker that says "busy" is asked again, and the pause between.
const BUSY_TRIES: u32 = 40;
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// A payload, cut.
pub(super) struct Pieces {
    all: Vec<(BodyId, Arc<Vec<u8>>)>,
    /// Those that the worker has said it lacks; none = it was not asked, and lacks all.
    lacking: Option<Vec<u32>>,
}

impl Pieces {
    pub(super) fn of(payload: &[u8]) -> Self {
        let piece = |bytes: &[u8]| (BodyId(*blake3::hash(bytes).as_bytes()), Arc::new(bytes.to_vec()));
        Self { all: payload.chunks(limits::CHUNK_BYTES).map(piece).collect(), lacking: None }
    }

    /// What a worker has said it lacks.
    pub(super) fn lack(&mut self, missing: &[u32]) {
        self.lacking = Some(missing.to_vec()).filter(|missing| !missing.is_empty());
    }

    /// Brings what is lacking.
    pub(super) fn give(
        &mut self,
        bulk: BulkClient,
        task: u64,
        rank: Rank,
    ) -> impl Future<Output = End> + Send + 'static {
        let lacking = self.lacking.take();
        let all = (0u32..).zip(&self.all);
        let wanted = all.filter(|(index, _)| lacking.as_ref().is_none_or(|lacking| lacking.contains(index)));
        let wanted: Vec<_> = wanted
            .map(|(index, (id, body))| (Piece { task, rank, index, id: *id }, Arc::clone(body)))
            .collect();
        async move {
            let given =
                stream::iter(wanted).map(|(piece, body)| {
                    let bulk = bulk.clone();
                    async move {
                        patiently(|| bulk.give(piece, Arc::clone(&body), limits::NO_PROGRESS.into())).await
                    }
                });
            match given.buffer_unordered(AT_ONCE).try_for_each(|()| std::future::ready(Ok(()))).await {
                Ok(()) => End::Done,
                Err(error) => end_of(&error),
            }
        }
    }
}

/// Fetches an answer of these pieces.
pub(super) async fn take(
    bulk: BulkClient,
    task: u64,
    rank: Rank,
    pieces: Vec<BodyId>,
) -> Result<Result<Vec<u8>, String>, End> {
    if pieces.len() > limits::TASK_RESULT_BYTES_MAX.div_ceil(limits::CHUNK_BYTES) {
        return Err(End::Broke);
    }
    let taken = stream::iter((0u32..).zip(pieces)).map(|(index, id)| {
        let (bulk, piece) = (bulk.clone(), Piece { task, rank, index, id });
        async move { patiently(|| bulk.take(piece, limits::NO_PROGRESS.into())).await }
    });
    let bytes = taken.buffered(AT_ONCE).try_fold(Vec::new(), |mut bytes, piece| {
        bytes.extend_from_slice(&piece);
        std::future::ready(Ok(bytes))
    });
    let bytes = bytes.await.map_err(|error| end_of(&error))?;
    // Nothing that any worker says.
    answer::read(bytes).ok_or(End::Broke)
}

/// Asks again where there is too much to do just now.
async fn patiently<T, F>(mut ask: impl FnMut() -> F) -> Result<T, BulkError>
where
    F: Future<Output = Result<T, BulkError>>,
{
    let mut tries = BUSY_TRIES;
    loop {
        match ask().await {
            Err(BulkError::Busy) if tries > 0 => tries -= 1,
            result => return result,
        }
        tokio::time::sleep(BUSY_PAUSE).await;
    }
}

fn end_of(error: &BulkError) -> End {
    match error {
        BulkError::Refused(_) | BulkError::NotHere => End::Refused,
        _ => End::Broke,
    }
}
