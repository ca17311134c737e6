//! The admission exchange on a fresh connection: one stream, one round trip, three seconds.
//!
//! ```text
//! dialer   -> listener   magic 8 | length u16 | hello | proof 32
//! listener -> dialer     magic 8 | verdict u32 | length u16 | hello | proof 32, end of stream
//! dialer   -> listener   end of stream: the answer was accepted
//! ```
//! Numbers are big-endian. The verdict is 0 or the code of a [`Refusal`], and the proof covers it: a dialer
//! that holds the key learns from a proven peer why it is refused, and what start of its own that peer has
//! seen. To everybody else a listener shows a close code. It remembers a dialer only after the dialer's end
//! of stream: had it forgotten the older start before the dialer saw it named, a home that was put back
//! could slip through by crashing. In a [`Kind::Look`] the proofs are zeros and mean nothing.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use libp2p::{Multiaddr, PeerId};
use zeroize::Zeroizing;

use super::{
    error::Error,
    gate::{Gate, Presence, bare_hello},
    refusal::Refusal,
};
use crate::{
    model::{
        codec::CodecError,
        hello::{Hello, Kind, Side},
        limits,
    },
    seal::admission::{Answer, EXPORTER_BYTES, EXPORTER_LABEL, Meeting, PROOF_BYTES, same_proof},
};

pub(super) const MAGIC: [u8; 8] = *b"tintype\x01";
const ADMITTED: u32 = 0;
/// How long a refused dialer may take to read why; then the close code must do.
const VERDICT_PATIENCE: Duration = Duration::from_millis(500);

/// What both halves of the exchange need.
#[derive(Clone)]
pub(super) struct Admission {
    pub(super) gate: Gate,
    pub(super) required: bool,
    /// How long a dial waits for its turn where others are being admitted.
    pub(super) turn: Duration,
}

/// What one side said, as it came.
pub(super) struct Said {
    pub(super) bytes: Vec<u8>,
    pub(super) hello: Hello,
    pub(super) proof: [u8; PROOF_BYTES],
}

/// They live until the connection was closed: quinn ends a dropped stream, which would say "accepted".
type Streams = (quinn::SendStream, quinn::RecvStream);
type Exporter = Zeroizing<[u8; EXPORTER_BYTES]>;

impl Admission {
    /// The dialer's half. `None` only where admission is switched off.
    pub(super) async fn offer(
        &self,
        connection: &quinn::Connection,
        peer: PeerId,
        addr: &Multiaddr,
    ) -> Result<Option<Presence>, Error> {
        if !self.required {
            return Ok(None);
        }
        let mut streams = None;
        settle(connection, self.offer_unbounded(connection, peer, addr, &mut streams)).await.map(Some)
    }

    /// The listener's half. `None` only where admission is switched off.
    pub(super) async fn receive(
        &self,
        connection: &quinn::Connection,
        peer: PeerId,
        addr: &Multiaddr,
    ) -> Result<Option<Presence>, Error> {
        if !self.required {
            return Ok(None);
        }
        let mut streams = None;
        settle(connection, self.receive_unbounded(connection, peer, addr, &mut streams)).await.map(Some)
    }

    /// Counts and logs the refusal in an error, if it is one.
    pub(super) fn note(&self, peer: Option<PeerId>, at: SocketAddr, addr: &Multiaddr, error: &Error) {
        let by_them = matches!(error, Error::RefusedBy(_));
        if let Some(refusal) = error.refusal() {
            self.gate.note_refusal(peer, at.ip(), addr.clone(), refusal, by_them);
        }
    }

    async fn offer_unbounded(
        &self,
        connection: &quinn::Connection,
        peer: PeerId,
        addr: &Multiaddr,
        streams: &mut Option<Streams>,
    ) -> Result<Presence, Error> {
        let me = self.gate.me();
        let hello = self.gate.hello_to(&peer, Side::Dialer).encode();
        let exporter = exporter(connection)?;
        let meeting =
            Meeting { dialer: &me.peer, listener: &peer, exporter: &exporter, dialer_hello: &hello };
        let key = self.gate.role_key(me.kind).map_err(Error::Refusing)?;

        let (send, recv) = streams.insert(connection.open_bi().await.map_err(Error::of_connection)?);
        write(connection, send, &said_bytes(&[&MAGIC], &hello, &key.dialer_proof(&meeting))).await?;
        let (verdict, said) = read_answer(&mut Incoming { connection, recv }).await?;
        let answer = Answer { verdict, hello: &said.bytes };
        if !same_proof(&key.listener_proof(&meeting, &answer), &said.proof) {
            return Err(Error::Refusing(Refusal::WrongKey));
        }
        if said.hello.kind != Kind::Member {
            return Err(Error::Refusing(Refusal::BadHello));
        }
        // Before the verdict: what a refusing peer has seen of us may tell why.
        let judged = self.gate.judge(&peer, &said.hello);
        if verdict != ADMITTED {
            return Err(Error::RefusedBy(Refusal::from_code(verdict.into()).unwrap_or(Refusal::BadHello)));
        }
        judged.map_err(Error::Refusing)?;
        self.gate.until_predecessor_left(&peer, &said.hello).await.map_err(Error::Refusing)?;
        end_of_stream(connection, recv).await?;
        let presence = self.gate.admit(peer, said.hello, addr.clone(), Side::Dialer);
        let presence = presence.map_err(Error::Refusing)?;
        send.finish().map_err(|_| Error::Refusing(Refusal::BadHello))?;
        Ok(presence)
    }

    async fn receive_unbounded(
        &self,
        connection: &quinn::Connection,
        peer: PeerId,
        addr: &Multiaddr,
        streams: &mut Option<Streams>,
    ) -> Result<Presence, Error> {
        let me = self.gate.me().peer;
        if peer == me {
            return Err(Error::Refusing(Refusal::OwnPeer));
        }
        let (send, recv) = streams.insert(connection.accept_bi().await.map_err(Error::of_connection)?);
        let said = read_offer(&mut Incoming { connection, recv }).await?;
        if said.hello.kind == Kind::Look {
            return Err(self.answer_look(connection, send).await);
        }
        let key = self.gate.role_key(said.hello.kind).map_err(Error::Refusing)?;
        let exporter = exporter(connection)?;
        let meeting =
            Meeting { dialer: &peer, listener: &me, exporter: &exporter, dialer_hello: &said.bytes };
        if !same_proof(&key.dialer_proof(&meeting), &said.proof) {
            return Err(Error::Refusing(Refusal::WrongKey));
        }

        let judged = match self.gate.judge(&peer, &said.hello) {
            Ok(()) => self.gate.until_predecessor_left(&peer, &said.hello).await,
            refused => refused,
        };
        let hello = self.gate.hello_to(&peer, Side::Listener).encode();
        let verdict = judged.err().map_or(ADMITTED, Refusal::code);
        let proof = key.listener_proof(&meeting, &Answer { verdict, hello: &hello });
        let answer = said_bytes(&[&MAGIC, &verdict.to_be_bytes()], &hello, &proof);
        write_and_finish(connection, send, &answer).await?;
        if let Err(refusal) = judged {
            wait_until_gone(connection).await;
            return Err(Error::Refusing(refusal));
        }
        end_of_stream(connection, recv).await?;
        self.gate.admit(peer, said.hello, addr.clone(), Side::Listener).map_err(Error::Refusing)
    }

    /// Tells a stranger what anybody may know, and ends the connection.
    async fn answer_look(&self, connection: &quinn::Connection, send: &mut quinn::SendStream) -> Error {
        let hello = self.gate.public_hello().encode();
        let answer = said_bytes(&[&MAGIC, &ADMITTED.to_be_bytes()], &hello, &[0; PROOF_BYTES]);
        if let Err(error) = write_and_finish(connection, send, &answer).await {
            return error;
        }
        wait_until_gone(connection).await;
        Error::Refusing(Refusal::LookAnswered)
    }
}

/// Asks the listener of this connection what it is. Proves nothing and is proved nothing.
pub(super) async fn ask_look(connection: &quinn::Connection) -> Result<Hello, Error> {
    let mut streams = None;
    let asking = async {
        let (send, recv) = streams.insert(connection.open_bi().await.map_err(Error::of_connection)?);
        let hello = bare_hello("").encode();
        write_and_finish(connection, send, &said_bytes(&[&MAGIC], &hello, &[0; PROOF_BYTES])).await?;
        let (_, said) = read_answer(&mut Incoming { connection, recv }).await?;
        Ok(said.hello)
    };
    settle(connection, asking).await
}

/// Runs one half within the time for all of it; closes the connection with the reason of a failure.
async fn settle<T>(
    connection: &quinn::Connection,
    half: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let bounded = tokio::time::timeout(Duration::from(limits::ADMISSION_TIMEOUT), half);
    let result = bounded.await.unwrap_or(Err(Error::Refusing(Refusal::TimedOut)));
    if let Err(error) = &result {
        error.refusal().unwrap_or(Refusal::BadHello).close(connection);
    }
    result
}

fn exporter(connection: &quinn::Connection) -> Result<Exporter, Error> {
    let mut exporter = Zeroizing::new([0; EXPORTER_BYTES]);
    connection
        .export_keying_material(&mut exporter[..], EXPORTER_LABEL, b"")
        .map_err(|_| Error::Tls("no exporter".into()))?;
    Ok(exporter)
}

pub(super) fn said_bytes(head: &[&[u8]], hello: &[u8], proof: &[u8; PROOF_BYTES]) -> Vec<u8> {
    let length = u16::try_from(hello.len()).expect("a hello has at most 1 KiB");
    let mut bytes = head.concat();
    bytes.extend(length.to_be_bytes());
    bytes.extend(hello);
    bytes.extend(proof);
    bytes
}

/// Where the words of the other side come from.
pub(super) trait Words {
    /// Fills `into`, or says why that cannot be.
    async fn read(&mut self, into: &mut [u8]) -> Result<(), Error>;
}

/// The words on a stream of a fresh connection.
struct Incoming<'a> {
    connection: &'a quinn::Connection,
    recv: &'a mut quinn::RecvStream,
}

impl Words for Incoming<'_> {
    async fn read(&mut self, into: &mut [u8]) -> Result<(), Error> {
        match self.recv.read_exact(into).await {
            Ok(()) => Ok(()),
            Err(quinn::ReadExactError::ReadError(quinn::ReadError::ConnectionLost(error))) => {
                Err(Error::of_connection(error))
            }
            Err(_) => Err(lost_or(self.connection, Refusal::BadHello)),
        }
    }
}

/// All that a dialer says.
pub(super) async fn read_offer(from: &mut impl Words) -> Result<Said, Error> {
    read_magic(from).await?;
    read_said(from, Side::Dialer).await
}

/// All that a listener says: its verdict first.
pub(super) async fn read_answer(from: &mut impl Words) -> Result<(u32, Said), Error> {
    read_magic(from).await?;
    let mut verdict = [0; 4];
    from.read(&mut verdict).await?;
    let said = read_said(from, Side::Listener).await?;
    Ok((u32::from_be_bytes(verdict), said))
}

/// Alone and first: a peer of another protocol says too little for a whole hello and then waits for us.
async fn read_magic(from: &mut impl Words) -> Result<(), Error> {
    let mut magic = [0; MAGIC.len()];
    match from.read(&mut magic).await {
        Ok(()) if magic == MAGIC => Ok(()),
        Ok(()) | Err(Error::Refusing(_)) => Err(Error::Refusing(Refusal::NotTintype)),
        Err(error) => Err(error),
    }
}

async fn read_said(from: &mut impl Words, side: Side) -> Result<Said, Error> {
    let mut length = [0; 2];
    from.read(&mut length).await?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > limits::HELLO_BYTES_MAX {
        return Err(Error::Refusing(Refusal::BadHello));
    }
    let mut bytes = vec![0; length];
    from.read(&mut bytes).await?;
    let mut proof = [0; PROOF_BYTES];
    from.read(&mut proof).await?;
    let hello = Hello::decode(&bytes).map_err(|error| match error {
        CodecError::Version(_) => Error::Refusing(Refusal::Version),
        CodecError::TooLong { .. } | CodecError::Malformed(_) => Error::Refusing(Refusal::BadHello),
    })?;
    if hello.side != side {
        return Err(Error::Refusing(Refusal::BadHello));
    }
    Ok(Said { bytes, hello, proof })
}

/// The other side's agreement: it closed its stream and said nothing more.
async fn end_of_stream(connection: &quinn::Connection, recv: &mut quinn::RecvStream) -> Result<(), Error> {
    match recv.read(&mut [0]).await {
        Ok(None) => Ok(()),
        Err(quinn::ReadError::ConnectionLost(error)) => Err(Error::of_connection(error)),
        Ok(Some(_)) | Err(_) => Err(lost_or(connection, Refusal::BadHello)),
    }
}

async fn write(
    connection: &quinn::Connection,
    send: &mut quinn::SendStream,
    bytes: &[u8],
) -> Result<(), Error> {
    match send.write_all(bytes).await {
        Ok(()) => Ok(()),
        Err(quinn::WriteError::ConnectionLost(error)) => Err(Error::of_connection(error)),
        Err(_) => Err(lost_or(connection, Refusal::BadHello)),
    }
}

async fn write_and_finish(
    connection: &quinn::Connection,
    send: &mut quinn::SendStream,
    bytes: &[u8],
) -> Result<(), Error> {
    write(connection, send, bytes).await?;
    send.finish().map_err(|_| lost_or(connection, Refusal::BadHello))
}

/// A stream error is most often the shadow of a closed connection, whose reason says more.
fn lost_or(connection: &quinn::Connection, refusal: Refusal) -> Error {
    connection.close_reason().map_or(Error::Refusing(refusal), Error::of_connection)
}

/// Gives the other side time to read what was said before the connection is closed.
async fn wait_until_gone(connection: &quinn::Connection) {
    if tokio::time::timeout(VERDICT_PATIENCE, connection.closed()).await.is_err() {
        tracing::trace!("a refused peer did not leave by itself");
    }
}

/// Places for connections in admission, bounded in all and per address.
#[derive(Clone)]
pub(super) struct Slots(Arc<Mutex<Taken>>);

struct Taken {
    max: usize,
    per_address_max: usize,
    total: usize,
    by_address: BTreeMap<IpAddr, usize>,
}

/// One place; free again when dropped.
pub(super) struct Slot {
    slots: Slots,
    ip: IpAddr,
}

impl Slots {
    pub(super) fn new(max: usize, per_address_max: usize) -> Self {
        Self(Arc::new(Mutex::new(Taken { max, per_address_max, total: 0, by_address: BTreeMap::new() })))
    }

    pub(super) fn take(&self, ip: IpAddr) -> Option<Slot> {
        // An IPv4 address is one address, however a socket spells it.
        let ip = ip.to_canonical();
        let mut taken = self.lock();
        let here = taken.by_address.get(&ip).copied().unwrap_or(0);
        if taken.total >= taken.max || here >= taken.per_address_max {
            return None;
        }
        taken.total += 1;
        taken.by_address.insert(ip, here + 1);
        Some(Slot { slots: self.clone(), ip })
    }

    /// Half of them are taken: from now on a dialer shows that its address is its own before it gets one.
    pub(super) fn are_scarce(&self) -> bool {
        let taken = self.lock();
        taken.total * 2 >= taken.max
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.lock();
        taken.total -= 1;
        match taken.by_address.get_mut(&self.ip) {
            Some(here) if *here > 1 => *here -= 1,
            _ => {
                taken.by_address.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_messages_are_what_the_head_of_this_file_says() {
        let proof = [9; PROOF_BYTES];
        let asked = said_bytes(&[&MAGIC], b"hello", &proof);
        assert_eq!(asked, [&b"tintype\x01\0\x05hello"[..], &proof].concat());
        let answered = said_bytes(&[&MAGIC, &Refusal::WrongKey.code().to_be_bytes()], b"hi", &proof);
        assert_eq!(answered, [&b"tintype\x01\0\0\x74\x04\0\x02hi"[..], &proof].concat());
    }

    #[test]
    fn slots_are_bounded_in_all_and_per_address_and_come_back() {
        let slots = Slots::new(3, 2);
        let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
        let one = slots.take(ip(1)).unwrap();
        assert!(!slots.are_scarce());
        let _two = slots.take(ip(1)).unwrap();
        assert!(slots.are_scarce());
        assert!(slots.take(ip(1)).is_none(), "two from one address");
        let _three = slots.take(ip(2)).unwrap();
        assert!(slots.take(ip(3)).is_none(), "three in all");
        drop(one);
        let _again = slots.take(ip(1)).unwrap();
        assert!(slots.take(ip(1)).is_none());
        drop((_two, _three, _again));
        assert!(slots.lock().by_address.is_empty() && slots.lock().total == 0);
    }
}
