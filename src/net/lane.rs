//! Lanes, `/tintype/lane/1`: one long-lived stream per peer and direction for the hot machines of members.
//!
//! A frame is a length (u32, big endian) and that many bytes. Frames of one peer keep their order; any may be
//! lost, and each loss here is counted. A lane never waits behind image bytes: those have streams of their
//! own. It never blocks its caller, and never keeps frames for a connection that is gone.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{PeerId, Stream};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::sleep,
};

use super::{
    event::{Busy, SharedCounters},
    places::Roster,
    streams::{Inbound, LANE, Opener},
};
use crate::model::limits;

/// Frames taken together into one write.
const BATCH_FRAMES: usize = 64;
/// A batch is written when it has this many bytes.
const BATCH_BYTES: usize = 128 << 10;
/// From a broken or refused lane to the next try.
const REOPEN_AFTER: Duration = Duration::from_millis(100);
const PREFIX: usize = 4;

/// A frame that came in.
#[derive(Debug)]
pub(super) enum Received {
    Frame { peer: PeerId, bytes: Vec<u8> },
    Malformed { peer: PeerId },
}

/// The sending side: a bounded queue and a task for each peer.
pub(super) struct Lanes {
    opener: Opener,
    counters: SharedCounters,
    queues: BTreeMap<PeerId, Queue>,
}

struct Queue {
    frames: mpsc::Sender<Vec<u8>>,
    waiting_bytes: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Lanes {
    pub(super) fn new(opener: Opener, counters: SharedCounters) -> Self {
        Self { opener, counters, queues: BTreeMap::new() }
    }

    /// Queues a frame for a connected member, or drops and counts it.
    pub(super) fn send(&mut self, peer: PeerId, frame: Vec<u8>) -> Result<(), Busy> {
        let result = self.try_send(peer, frame);
        match result {
            Ok(()) => self.counters.lane_frames_sent.bump(),
            Err(_) => self.counters.lane_frames_dropped.bump(),
        }
        result
    }

    /// Counts a frame that was not even queued.
    pub(super) fn refuse(&self, why: Busy) -> Result<(), Busy> {
        self.counters.lane_frames_dropped.bump();
        Err(why)
    }

    fn try_send(&mut self, peer: PeerId, frame: Vec<u8>) -> Result<(), Busy> {
        if frame.len() > limits::LANE_FRAME_BYTES_MAX {
            return Err(Busy::TooLong);
        }
        let queue = self.queues.entry(peer).or_insert_with(|| {
            let (frames, waiting) = mpsc::channel(limits::LANE_QUEUE_MAX);
            let waiting_bytes = Arc::new(AtomicUsize::new(0));
            let writer = Writer {
                peer,
                opener: self.opener.clone(),
                waiting_bytes: waiting_bytes.clone(),
                counters: self.counters.clone(),
            };
            Queue { frames, waiting_bytes, task: tokio::spawn(writer.run(waiting)).abort_handle() }
        });
        let len = frame.len();
        if queue.waiting_bytes.load(Ordering::Relaxed) + len > limits::LANE_QUEUE_BYTES_MAX {
            return Err(Busy::Full);
        }
        queue.frames.try_send(frame).map_err(|_| Busy::Full)?;
        queue.waiting_bytes.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }

    /// The peer is gone, or no member any more: what waits for it is of no use.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        if let Some(queue) = self.queues.remove(peer) {
            let waiting = queue.frames.max_capacity() - queue.frames.capacity();
            self.counters.lane_frames_dropped.add(waiting as u64);
        }
    }

    /// Forgets every peer for which `keep` says no.
    pub(super) fn retain(&mut self, keep: impl Fn(&PeerId) -> bool) {
        let gone: Vec<_> = self.queues.keys().filter(|peer| !keep(peer)).copied().collect();
        gone.iter().for_each(|peer| self.forget(peer));
    }
}

struct Writer {
    peer: PeerId,
    opener: Opener,
    waiting_bytes: Arc<AtomicUsize>,
    counters: SharedCounters,
}

impl Writer {
    /// Ends when its queue is dropped.
    async fn run(self, mut frames: mpsc::Receiver<Vec<u8>>) {
        while !frames.is_closed() {
            match self.opener.open(self.peer, LANE, limits::STREAM_OPEN_TIMEOUT.into()).await {
                Ok(stream) => self.write(stream, &mut frames).await,
                Err(error) => {
                    tracing::debug!(peer = %self.peer, %error, "no lane");
                    self.drop_waiting(&mut frames);
                }
            }
            sleep(REOPEN_AFTER).await;
        }
    }

    /// What waited for a lane that cannot be had is stale by the next try.
    fn drop_waiting(&self, frames: &mut mpsc::Receiver<Vec<u8>>) {
        while let Ok(frame) = frames.try_recv() {
            self.waiting_bytes.fetch_sub(frame.len(), Ordering::Relaxed);
            self.counters.lane_frames_dropped.bump();
        }
    }

    /// Writes batches until the stream breaks or the queue is dropped.
    async fn write(&self, mut stream: Stream, frames: &mut mpsc::Receiver<Vec<u8>>) {
        let mut batch = Vec::with_capacity(BATCH_FRAMES);
        let mut bytes = Vec::new();
        let mut nothing = [0];
        loop {
            let got = tokio::select! {
                got = frames.recv_many(&mut batch, BATCH_FRAMES) => got,
                // The other side says nothing on a lane: whatever comes is its end.
                _ = stream.read(&mut nothing) => return,
            };
            if got == 0 {
                return;
            }
            let mut batch = batch.drain(..).peekable();
            while batch.peek().is_some() {
                bytes.clear();
                let mut count = 0;
                while bytes.len() < BATCH_BYTES
                    && let Some(frame) = batch.next()
                {
                    self.waiting_bytes.fetch_sub(frame.len(), Ordering::Relaxed);
                    append(&mut bytes, &frame);
                    count += 1;
                }
                if write_all(&mut stream, &bytes).await.is_err() {
                    let rest: usize = batch.by_ref().map(|frame| self.let_go(&frame)).sum();
                    self.counters.lane_frames_dropped.add((count + rest) as u64);
                    return;
                }
            }
        }
    }

    fn let_go(&self, frame: &[u8]) -> usize {
        self.waiting_bytes.fetch_sub(frame.len(), Ordering::Relaxed);
        1
    }
}

async fn write_all(stream: &mut Stream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Puts a frame with its length behind what is there.
fn append(bytes: &mut Vec<u8>, frame: &[u8]) {
    bytes.extend_from_slice(&(frame.len() as u32).to_be_bytes());
    bytes.extend_from_slice(frame);
}

/// Reads every lane that members open, into one bounded inbox.
pub(super) async fn serve(
    mut inbox: mpsc::Receiver<Inbound>,
    roster: Arc<Roster>,
    counters: SharedCounters,
    out: mpsc::Sender<Received>,
) {
    let mut lanes = JoinSet::new();
    loop {
        tokio::select! {
            inbound = inbox.recv() => match inbound {
                Some(inbound) => {
                    lanes.spawn(read(inbound, roster.clone(), counters.clone(), out.clone()));
                }
                None => return,
            },
            Some(_) = lanes.join_next() => {}
        }
    }
}

async fn read(inbound: Inbound, roster: Arc<Roster>, counters: SharedCounters, out: mpsc::Sender<Received>) {
    let peer = inbound.peer;
    let Ok((mut stream, _place)) = inbound.greet().await else { return };
    let mut buffer = FrameBuffer::new();
    // Not a member any more: its lane ends with the next thing it says.
    while let Ok(got) = stream.read(buffer.room()).await
        && got > 0
        && roster.has(&peer)
    {
        buffer.filled(got);
        loop {
            match buffer.next() {
                Ok(Some(bytes)) => {
                    counters.lane_frames_received.bump();
                    if out.send(Received::Frame { peer, bytes }).await.is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(TooLong) => {
                    counters.lane_malformed.bump();
                    // If nobody listens any more, nobody needs to know.
                    let _ = out.send(Received::Malformed { peer }).await;
                    return;
                }
            }
        }
    }
}

/// Cuts a byte stream into frames.
struct FrameBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

#[derive(Debug, PartialEq)]
struct TooLong;

impl FrameBuffer {
    fn new() -> Self {
        // Whatever is left of one read, a whole frame fits behind it.
        Self { bytes: vec![0; 2 * (PREFIX + limits::LANE_FRAME_BYTES_MAX)], start: 0, end: 0 }
    }

    /// Where the next bytes go; never empty once [`Self::next`] has said none.
    fn room(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        &mut self.bytes[self.end..]
    }

    fn filled(&mut self, n: usize) {
        self.end += n;
    }

    fn next(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let Some((prefix, rest)) = self.bytes[self.start..self.end].split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*prefix) as usize;
        if len > limits::LANE_FRAME_BYTES_MAX {
            return Err(TooLong);
        }
        if rest.len() < len {
            return Ok(None);
        }
        let frame = rest[..len].to_vec();
        self.start += PREFIX + len;
        Ok(Some(frame))
    }
}

/// The frames in these bytes, which come in pieces of `step`, up to where they break the rules.
#[cfg(feature = "fuzzing")]
pub(super) fn cut(bytes: &[u8], step: usize) -> Vec<Vec<u8>> {
    let (mut buffer, mut frames, mut rest) = (FrameBuffer::new(), Vec::new(), bytes);
    while !rest.is_empty() {
        let room = buffer.room();
        let (piece, later) = rest.split_at(step.min(rest.len()).min(room.len()));
        assert!(!piece.is_empty(), "a buffer without room");
        room[..piece.len()].copy_from_slice(piece);
        buffer.filled(piece.len());
        rest = later;
        loop {
            match buffer.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(TooLong) => return frames,
            }
        }
    }
    frames
}

/// One frame as it leaves.
#[cfg(feature = "fuzzing")]
pub(super) fn framed(frame: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(&mut bytes, frame);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(wire: &[u8], steps: &[usize]) -> Vec<Vec<u8>> {
        let mut buffer = FrameBuffer::new();
        let mut frames = Vec::new();
        let mut rest = wire;
        let mut steps = steps.iter().cycle();
        while !rest.is_empty() {
            let room = buffer.room();
            let n = (*steps.next().unwrap()).min(rest.len()).min(room.len());
            assert!(n > 0, "a buffer without room");
            room[..n].copy_from_slice(&rest[..n]);
            buffer.filled(n);
            rest = &rest[n..];
            while let Some(frame) = buffer.next().unwrap() {
                frames.push(frame);
            }
        }
        frames
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_wherever_the_reads_cut(
            sizes in proptest::collection::vec(0usize..=limits::LANE_FRAME_BYTES_MAX, 0..6),
            steps in proptest::collection::vec(1usize..200_000, 1..5),
        ) {
            let frames: Vec<Vec<u8>> = sizes.iter().map(|n| vec![*n as u8; *n]).collect();
            let mut wire = Vec::new();
            frames.iter().for_each(|f| append(&mut wire, f));
            prop_assert_eq!(cut(&wire, &steps), frames);
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_an_error_before_its_bytes_come() {
        let mut buffer = FrameBuffer::new();
        buffer.room()[..4].copy_from_slice(&(limits::LANE_FRAME_BYTES_MAX as u32 + 1).to_be_bytes());
        buffer.filled(4);
        assert_eq!(buffer.next(), Err(TooLong));
    }
}
