//! Every bound of the program, one constant each, with its reason.
//!
//! Full is an answer, not a wait: who meets a bound says so at once.

use super::time::Millis;

// ---- objects ----

/// A chunk's plaintext: large enough that per-chunk costs vanish, small enough to hold many in memory.
pub const CHUNK_BYTES: usize = 1 << 20;
/// The last chunk of an object of at least this size is padded to a multiple of it.
pub const CHUNK_PAD_BYTES: usize = 64 << 10;
/// Objects smaller than [`CHUNK_PAD_BYTES`] are padded to a multiple of this.
pub const SMALL_PAD_BYTES: usize = 1 << 10;
/// Bodies up to this size live in the record file, larger ones are files.
pub const SMALL_BODY_BYTES_MAX: usize = 64 << 10;
/// The largest object: 65,536 chunks, whose manifest parts are all listed in one root.
pub const OBJECT_BYTES_MAX: u64 = 64 << 30;
/// An encoded manifest above this is cut into a root and parts.
pub const MANIFEST_BYTES_MAX: usize = 512 << 10;
/// Chunks listed in one manifest part.
pub const MANIFEST_PART_CHUNKS_MAX: usize = 8192;
/// A manifest part or root as a stored body; the largest body there is.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Versions of an object that stay readable: the newest and its predecessors.
pub const VERSIONS_KEPT: usize = 16;
/// Predecessors that a manifest lists.
pub const PREDECESSORS_MAX: usize = VERSIONS_KEPT - 1;
/// The sealed entry of a register.
pub const ENTRY_BYTES_MAX: usize = 1536;
/// Request ids that a register remembers.
pub const REGISTER_REQUESTS_MAX: usize = 8;
/// An encoded register: the entry, eight request ids and a few fixed fields.
pub const REGISTER_BYTES_MAX: usize = 2304;
/// An object's name in UTF-8.
pub const NAME_BYTES_MAX: usize = 1024;
/// A media type, `type/subtype`: with the longest name and a thumbnail it still fits a sealed entry.
pub const MEDIA_TYPE_BYTES_MAX: usize = 127;
/// Parts of one manifest: 64 GiB in parts of 8,192 chunks.
pub const MANIFEST_PARTS_MAX: usize = 8;
/// Copies that a manifest may ask for; more than any small cluster has machines.
pub const COPIES_MAX: u64 = 16;
/// The highest version of an object: far beyond any use, so that "one more" never overflows.
pub const VERSION_MAX: u64 = 1 << 48;
/// What sealed parts are padded to a multiple of.
pub const SEALED_PAD_BYTES: usize = 256;

// ---- members ----

/// An encoded founding: 65,536 node numbers would be too many, a hundred machines are enough.
pub const FOUNDING_BYTES_MAX: usize = 16 << 10;
/// Members of a cluster.
pub const MEMBERS_MAX: usize = 128;
/// A node's or a cluster's display name.
pub const DISPLAY_NAME_BYTES_MAX: usize = 64;
/// Starts of a home that it remembers.
pub const BOOT_HISTORY_MAX: usize = 1000;
/// Events for people that a node keeps.
pub const EVENTS_KEPT: usize = 1000;
/// Peers, and addresses of each, that discovery remembers.
pub const KNOWN_PEERS_MAX: usize = 256;
/// Addresses remembered of one peer.
pub const KNOWN_ADDRESSES_MAX: usize = 8;

// ---- admission ----

/// An encoded hello.
pub const HELLO_BYTES_MAX: usize = 1 << 10;
/// All of the admission exchange; a LAN needs a millisecond.
pub const ADMISSION_TIMEOUT: Millis = Millis(3000);
/// How long the admission of a restarted peer waits for the end of its earlier process' connection: longer
/// than [`QUIC_IDLE`], after which a dead one is noticed, and shorter than [`ADMISSION_TIMEOUT`].
pub const PREDECESSOR_PATIENCE: Millis = Millis(2400);
/// A node whose cluster does not serve so long after its start says what it waits for.
pub const READY_PATIENCE: Millis = Millis(3000);
/// A process so often told by one peer that another with its identity is running gives up.
pub const STILL_CONNECTED_MAX: u32 = 2;
/// Connections in admission at once: each holds a handshake and one small window, 1 MiB in all.
pub const ADMISSIONS_MAX: usize = 64;
/// Connections in admission at once from one address. Commands that one machine starts together, and a
/// household behind one address, come as one address and shall not wait long for each other: an honest
/// admission takes a place for milliseconds. Silent ones keep theirs for [`ADMISSION_TIMEOUT`]; a quarter
/// of all places is what one address can deny to others so, and a forged one gets none once half are taken.
pub const ADMISSIONS_PER_ADDRESS_MAX: usize = 16;
/// The receive window of a connection in admission: hello and proof fit many times.
pub const ADMISSION_WINDOW_BYTES: u32 = 16 << 10;
/// Admitted peers whose hello is remembered after their last connection closed; live ones always are.
pub const ADMITTED_REMEMBERED_MAX: usize = 1024;
/// Events of the gate that wait for a reader: some for each connection that there may be.
pub const GATE_EVENTS_MAX: usize = 512;
/// Refused (address, peer, reason) that were logged; past it the set starts anew.
pub const REFUSALS_LOGGED_MAX: usize = 1024;
/// So long a dial that meets a full admission is tried again inside the same dial. Whoever says "busy" is
/// alive: a hundred commands at once on a slow machine are through in less.
pub const ADMISSION_TURN: Millis = Millis(10_000);
/// The first pause of those; each next one is twice as long, up to the longest.
pub const BUSY_PAUSE: Millis = Millis(20);
/// The longest: who waits for long shall not come less often than those who have just arrived.
pub const BUSY_PAUSE_MAX: Millis = Millis(160);
/// How long a node's exit waits for its connections to drain: a lost close packet is sent again meanwhile.
pub const EXIT_PATIENCE: Millis = Millis(300);
/// The same for a client, whose user waits: the packet leaves within a millisecond, and a lost one costs
/// its node the idle timeout.
pub const CLIENT_EXIT_PATIENCE: Millis = Millis(10);
/// Handshakes that wait to be looked at; past it they are refused.
pub const INCOMING_QUEUE_MAX: usize = 256;
/// Packets kept for all of those.
pub const INCOMING_QUEUE_BYTES: u64 = 1 << 20;
/// Established connections, of all kinds.
pub const CONNECTIONS_MAX: u32 = 256;
/// Established connections with one peer: duplicates of a simultaneous dial are normal for a while.
pub const CONNECTIONS_PER_PEER_MAX: u32 = 3;

// ---- network ----

/// Idle time after which a connection is dead (negotiated minimum of both sides).
pub const QUIC_IDLE: Millis = Millis(1500);
/// Keep-alive of a connection.
pub const QUIC_KEEP_ALIVE: Millis = Millis(300);
/// The round trip assumed before one was measured: a lost first packet is sent again after three times this.
pub const QUIC_INITIAL_RTT: Millis = Millis(100);
/// The TLS and QUIC handshake.
pub const QUIC_HANDSHAKE_TIMEOUT: Millis = Millis(5000);
/// Streams that a peer may have open towards us on one connection.
pub const QUIC_STREAMS_MAX: u32 = 96;
/// What one stream may have in flight towards us.
pub const QUIC_STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// What one connection may have in flight towards us.
pub const QUIC_CONNECTION_WINDOW_BYTES: u32 = 12 << 20;
/// UDP socket buffers that we ask for.
pub const UDP_BUFFER_BYTES: usize = 4 << 20;
/// The most that a person may have us ask for: the systems count in 31 bits, and Linux doubles what it gives.
pub const UDP_BUFFER_BYTES_MAX: u64 = 512 << 20;
/// The UDP port of a home that was not told another.
pub const DEFAULT_PORT: u16 = 4117;
/// An encoded rpc request.
pub const RPC_REQUEST_BYTES_MAX: usize = 64 << 10;
/// An encoded rpc response.
pub const RPC_RESPONSE_BYTES_MAX: usize = 1 << 20;
/// Answers that wait for one peer to take them: an honest one reads, so a few of the longest are many.
pub const RPC_ANSWERS_PER_PEER_BYTES_MAX: usize = 4 << 20;
/// The same for all peers together.
pub const RPC_ANSWERS_BYTES_MAX: usize = 32 << 20;
/// Requests in flight with one peer, in and out.
pub const RPC_IN_FLIGHT_MAX: usize = 32;
/// Requests of one stream whose answers have not left, "busy" among them: those that an honest peer has in
/// flight, and as many that it gave up. More is no honest peer.
pub const RPC_OWED_MAX: usize = 2 * RPC_IN_FLIGHT_MAX;
/// Rpc streams of one peer: one, and its successors while the old ones die.
pub const RPC_STREAMS_PER_PEER_MAX: usize = 4;
/// Received requests that the event loop has not taken yet; past it the answer is "busy".
pub const RPC_INBOX_MAX: usize = 1024;
/// An rpc stream that takes not a byte for so long is given up: its peer does not read.
pub const RPC_STALL: Millis = Millis(5000);
/// A deadline for rpc calls that name none.
pub const RPC_TIMEOUT: Millis = Millis(2000);
/// No rpc call waits longer, whatever it asks for: its slot is free again then.
pub const RPC_TIMEOUT_MAX: Millis = Millis(15_000);
/// Inbound streams that wait to be taken by their protocol; past it they are refused.
pub const STREAM_INBOX_MAX: usize = 64;
/// Streams that one connection is opening, or refusing, at once.
pub const STREAMS_OPENING_MAX: usize = 64;
/// From the wish for a stream to the other side's greeting.
pub const STREAM_OPEN_TIMEOUT: Millis = Millis(2000);
/// Commands of tasks that the network has not taken yet.
pub const NET_COMMANDS_MAX: usize = 256;
/// Dials at once.
pub const DIALS_MAX: usize = 16;
/// One lane frame.
pub const LANE_FRAME_BYTES_MAX: usize = 64 << 10;
/// Frames waiting for one peer's lane; past it the frame is dropped, which is a lost message.
pub const LANE_QUEUE_MAX: usize = 1024;
/// Bytes waiting for one peer's lane.
pub const LANE_QUEUE_BYTES_MAX: usize = 8 << 20;
/// Received lane frames that the event loop has not taken yet; past it the lanes are read no further.
pub const LANE_INBOX_MAX: usize = 256;
/// Inbound lanes of one peer: one, and its successor while the old one dies.
pub const LANES_PER_PEER_MAX: usize = 2;
/// A gossip message.
pub const GOSSIP_BYTES_MAX: usize = 1 << 10;
/// Bulk streams with one peer, each way.
pub const BULK_STREAMS_PER_PEER_MAX: usize = 4;
/// Bytes of a bulk stream that are sent and not yet acknowledged.
pub const BULK_UNACKNOWLEDGED_BYTES_MAX: usize = 8 << 20;
/// While a bulk call is in hand and nothing else is to be said, "working" is said this often: well under the
/// patience of those who wait.
pub const BULK_WORKING_EVERY: Millis = Millis(100);
/// How often in a row: a disk that hangs for longer is given up like a dead peer.
pub const BULK_WORKING_MAX: u32 = 30;
/// A bulk frame's header.
pub const BULK_HEADER_BYTES_MAX: usize = 4 << 10;
/// Bulk requests of one stream that are not answered yet; past it the receiver reads no further.
pub const BULK_REQUESTS_PER_STREAM_MAX: usize = 64;
/// Bulk requests of one peer that a node serves at once, so that no peer has all of them.
pub const BULK_SERVED_PER_PEER_MAX: usize = 28;
/// Bulk requests that this side has unanswered on one stream: on all its streams together well below what
/// a server grants one peer, so that an honest asker alone never meets that bound.
pub const BULK_ASKED_PER_STREAM_MAX: usize = 12;
/// Bulk streams that this side opens to one peer: one fills a wire, the second lets small gets pass.
pub const BULK_STREAMS_OPENED_MAX: usize = 2;
/// The longest reason that a bulk refusal carries.
pub const BULK_REASON_BYTES_MAX: usize = 256;
/// One bulk call, however much else moves on its stream; a body takes milliseconds.
pub const BULK_CALL_TIMEOUT: Millis = Millis(30_000);
/// Bulk requests of clients that a node serves at once: 1 MiB each. Who comes when all are taken waits, and
/// his stream is read no further: to read a body only to say "busy" costs the wire as much as to take it.
pub const BULK_SERVED_MAX: usize = 32;
/// The same of members. They have places of their own, which need no third node to become free, so that no
/// ring of nodes forms whose clients' bodies wait for each other.
pub const BULK_SERVED_MEMBERS_MAX: usize = 32;
/// So long a request waits for a place, before it is told "busy". Meanwhile "working" is said.
pub const BULK_PLACE_PATIENCE: Millis = Millis(BULK_WORKING_EVERY.0 * BULK_WORKING_MAX as u64);
/// Body ids in one offer or check.
pub const OFFER_IDS_MAX: usize = 1024;
/// Bodies read and hashed by one verifying request: at most 32 MiB, well inside its deadline.
pub const VERIFY_IDS_MAX: usize = 32;
/// A page of a listing.
pub const LIST_PAGE_BYTES_MAX: usize = 512 << 10;

// ---- patience ----

/// No progress for this long, and the work goes on with another node.
pub const NO_PROGRESS: Millis = Millis(500);
/// After this long without a quorum a node answers "no quorum"; with the way there and back a person hears
/// it within two seconds.
pub const NO_QUORUM: Millis = Millis(1500);
/// A client that has no answer after this long says so.
pub const CLIENT_PATIENCE: Millis = Millis(1900);
/// A client all of whose nodes say that they are busy: they are alive, and others have their turn meanwhile.
pub const BUSY_PATIENCE: Millis = Millis(10_000);
/// A home proposer that does not answer this long is passed over.
pub const HOME_PATIENCE: Millis = Millis(300);
/// Heartbeats go out this often.
pub const HEARTBEAT: Millis = Millis(300);

/// A probe through another member: two hops.
pub const INDIRECT_PROBE_TIMEOUT: Millis = Millis(1000);

// ---- node ----

/// Verifications and other short jobs of a node's loop at once.
pub const NODE_TASKS_MAX: usize = 1024;
/// Register calls that a node has in hand.
pub const NODE_CALLS_MAX: usize = 1024;
/// Bodies from clients that a node has in hand at once: each 1 MiB.
pub const FIRST_HOP_MAX: usize = BULK_SERVED_MAX;
/// Bodies from other members at once. They never wait for a third node, so no ring of waiting can form.
pub const FORWARDED_MAX: usize = BULK_SERVED_MEMBERS_MAX;
/// A holder that does not take a forwarded body for this long is passed over. Shorter than [`NO_PROGRESS`],
/// so that who waits for the answer does not give up on the one that forwards.
pub const FORWARD_PATIENCE: Millis = Millis(250);
/// Repair begins this long after a start: the others shall be connected.
pub const REPAIR_AFTER_START: Millis = Millis(1000);
/// Repair begins this long after a member came back.
pub const REPAIR_AFTER_CONNECT: Millis = Millis(500);
/// Repair runs again this long after one that left something undone.
pub const REPAIR_RETRY: Millis = Millis(3000);
/// After a run repair rests so many times as long: while much is being written, each run finds somebody who
/// is a moment behind, and calls for the next one.
pub const REPAIR_REST: u64 = 5;
/// It rests no longer than this, or than the run took, whichever is more: until the next run `status` says
/// what this one has seen, and somebody waits for it to be well again.
pub const REPAIR_REST_MAX: Millis = Millis(3000);
/// Repair runs this often although nothing happened.
pub const REPAIR_EVERY: Millis = Millis(600_000);
/// While some object wants a single copy, a write is followed by a new count so soon: `status` must not lag
/// far behind, and a count looks through all slots.
pub const RECOUNT_AFTER: Millis = Millis(15_000);
/// A run of repair that is due so long after the last that looked at all looks at all, too, so that none is
/// further from the next than [`REPAIR_EVERY`].
pub const REPAIR_LOOKS_AGAIN: Millis = Millis(REPAIR_EVERY.0 / 4);
/// Bodies that repair fetches at once.
pub const REPAIR_FETCHES_MAX: usize = 8;
/// Copies that could not be made and are offered again: those of 16 GB to one machine, in about 2 MiB.
pub const HINTS_MAX: usize = 16_384;
/// Bodies wanted by other members that wait to be fetched.
pub const REPAIR_WANTED_MAX: usize = 65_536;
// ---- consensus ----

/// Acceptor records in memory: about 6 MiB; those being written stay, so this also bounds writes in flight.
pub const PAXOS_RECORDS_CACHED_MAX: usize = 2048;
/// Messages that wait for one record to be read from disk; a slot has three proposers at most that matter.
pub const PAXOS_WAITING_PER_OBJECT_MAX: usize = 16;
/// Ballots that a home proposer has ready, each with its value: about 3 MiB. Losing one costs a round trip.
pub const PAXOS_BALLOTS_CACHED_MAX: usize = 1024;
/// Calls that a node has in hand, forwarded ones counted; past it the answer is busy.
pub const PAXOS_CALLS_MAX: usize = 1024;
/// Calls for one object that wait for each other. So few that the last has its turn well within
/// [`NO_QUORUM`] on a slow machine too: who is told "busy" comes again, who is told "no quorum" gives up.
pub const PAXOS_CALLS_PER_OBJECT_MAX: usize = 16;
/// A phase of a round without a majority for this long is repeated: several slow fsyncs fit.
pub const PAXOS_PHASE: Millis = Millis(300);
/// A read whose answers disagree waits this long for the last of them before it writes.
pub const PAXOS_READ_GRACE: Millis = Millis(100);
/// A home that said it has a call in hand gets this long; enough is left for a round of one's own.
pub const PAXOS_TAKEN_PATIENCE: Millis = Millis(1000);
/// How long the newest known value is asked for.
pub const PAXOS_ANY_PATIENCE: Millis = Millis(500);
/// The longest random wait of the first lost duel; doubles with each next.
pub const PAXOS_BACKOFF: Millis = Millis(20);
/// The longest random wait of any lost duel.
pub const PAXOS_BACKOFF_MAX: Millis = Millis(320);
/// Objects that an installer has in hand at once, of all slots together; at least one of each slot.
pub const HANDOVER_OBJECTS_AT_ONCE: usize = 64;
/// Object ids in one page of a slot: a quarter of a lane frame. An installer keeps up to three pages a slot.
pub const HANDOVER_PAGE_OBJECTS_MAX: usize = 256;

// ---- membership ----

/// Silence after which a member is suspect: four heartbeats.
pub const SUSPECT_AFTER: Millis = Millis(1200);
/// A probe, direct or through another, without an answer for this long has failed.
pub const PROBE_TIMEOUT: Millis = Millis(500);
/// Members asked to probe a suspect for us.
pub const INDIRECT_PROBES: usize = 2;
/// A node whose own timer is this late doubts itself before it doubts others.
pub const OWN_LATENESS_MAX: Millis = Millis(250);

// ---- tasks ----

/// The name of a kind of task.
pub const TASK_KIND_BYTES_MAX: usize = 24;
/// What a client sends to a worker for one task: the picture, a text and some words. A camera's largest file
/// fits; a worker holds so many of these as it has places.
pub const TASK_PAYLOAD_BYTES_MAX: u64 = 256 << 20;
/// Payloads that a worker holds for all its tasks together: eight pictures of the largest common cameras.
pub const TASK_PAYLOADS_BYTES_MAX: u64 = 512 << 20;
/// What a worker gives back for one task; a picture that was stored badly can grow when it is stored well.
pub const TASK_RESULT_BYTES_MAX: usize = 256 << 20;
/// Tasks that a node may be told to work on at once.
pub const TASK_SLOTS_MAX: u16 = 64;
/// Tasks that a node knows of, ended ones among them: under 1 MiB. Past it no more are taken.
pub const TASKS_KNOWN_MAX: usize = 4096;
/// Tasks of one client that have not ended.
pub const TASKS_PER_CLIENT_MAX: usize = 256;
/// Tasks for which a coordinator is looking for a worker at once.
pub const TASKS_PLACING_MAX: usize = 256;
/// Tasks whose clients wait for a place at a coordinator; those beyond ask again by themselves.
pub const TASKS_IN_LINE_MAX: usize = 256;
/// How long a coordinator lets a client wait for a place before it says that there is none: within the
/// patience of whoever asks it, [`TASK_ONWARD_PATIENCE`], with the search for a worker.
pub const TASK_LINE_HOLD: Millis = Millis(400);
/// How long a client that was told so keeps its turn without asking again.
pub const TASK_TURN_KEPT: Millis = Millis(1000);
/// How long a worker lets a client wait that asks how far a task is: well within [`NO_PROGRESS`], after
/// which the client takes it for frozen.
pub const TASK_POLL_HOLD: Millis = Millis(250);
/// Calls of one client that a node holds until there is something to say: a part of [`RPC_IN_FLIGHT_MAX`],
/// so that others of its calls find room.
pub const TASK_CALLS_HELD_PER_CLIENT_MAX: usize = 8;
/// How often a node looks what became of the tasks that it knows.
pub const TASK_TICK: Millis = Millis(500);
/// The process that works on a task is ended after so long: the largest pictures take seconds, on the
/// slowest machines a minute or two, and one that stands still shall not have a slot for ever.
pub const TASK_WORK_MAX: Millis = Millis(600_000);
/// A client that is not heard of for so long is gone: its place is given to others. It asks several times a
/// second, but may have a slow wire.
pub const TASK_CLIENT_SILENCE: Millis = Millis(20_000);
/// An ended task is remembered so long, so that what is still on its way does not bring it back.
pub const TASK_KEPT: Millis = Millis(60_000);
/// Workers that a client would rather not have.
pub const TASK_AVOID_MAX: usize = 16;
/// Records in one answer of a history: under 64 KiB.
pub const TASK_PAGE_RECORDS_MAX: usize = 400;
/// Two workers whose load differs by less, in hundredths of a point, are as good as each other, and have
/// their turn: less is noise.
pub const TASK_LOAD_BAND_CENTI: u64 = 1000;
/// Two nodes that know different tasks exchange what they know at most so often.
pub const TASK_EXCHANGE_EVERY: Millis = Millis(2000);
/// How long a coordinator waits for a worker to say whether it has a place.
pub const TASK_RESERVE_PATIENCE: Millis = Millis(500);
/// How long a node waits for the coordinator on behalf of a client, which waits a little longer.
pub const TASK_ONWARD_PATIENCE: Millis = Millis(800);
/// A node that is to stop waits so long for the tasks that it has in hand.
pub const TASK_LEAVE_PATIENCE: Millis = Millis(10_000);

/// What a task's order says in front of text and picture: some numbers, a seed and a header.
pub const TASK_HEAD_BYTES_MAX: usize = 512;
/// What stands in front of scattered bytes in a picture.
pub const TASK_HEADER_BYTES_MAX: usize = 64;
/// Pixels of a picture that is worked on: the largest cameras have so many, and a file that declares more is
/// refused from its header.
pub const TASK_PIXELS_MAX: u64 = 100_000_000;
/// Bytes of its decoded pixels: so many pixels with alpha at 8 bits, or half as many at 16.
pub const TASK_DECODED_BYTES_MAX: u64 = 400 << 20;
/// All that decoding it may take, the decoder's working memory included: a node has one of these a slot.
pub const TASK_PEAK_BYTES_MAX: u64 = 1 << 30;
/// A colour profile; those of printers have up to 3 MB.
pub const ICC_BYTES_MAX: usize = 4 << 20;
/// What of a PNG is no pixel, unpacked: a profile and some texts.
pub const PICTURE_METADATA_BYTES_MAX: u64 = 16 << 20;
/// Scans of one JPEG: encoders make about ten. Each is decoded over the whole picture, so a small file of
/// very many would keep a worker busy for hours.
pub const JPEG_SCANS_MAX: usize = 128;
/// The longest edge of a thumbnail that somebody may ask for; screens are smaller.
pub const TASK_EDGE_PX_MAX: u32 = 8192;

/// An encoded message of the election: the loads of all members fit, in a sixteenth of an rpc request.
pub const ELECTION_MESSAGE_BYTES_MAX: usize = 4 << 10;
/// Elections that a node remembers, for people.
pub const ELECTIONS_KEPT: usize = 32;
/// Who has the k-th lowest load waits k times this before it stands: time for a question, its answers and
/// the news on a LAN that is busy, so that the first is in office before the second stands.
pub const ELECTION_STEP: Millis = Millis(150);
/// Nobody waits for more than so many steps: the first to notice a death may be one of the last in rank, and
/// the others notice up to a second later.
pub const ELECTION_STEPS_MAX: usize = 4;
/// How long a candidate waits for answers, and who has agreed to it agrees to nobody else.
pub const ELECTION_ANSWER: Millis = Millis(300);
/// After this long a candidate asks those again who had agreed to another: by then the worse of two has
/// withdrawn.
pub const ELECTION_AGAIN: Millis = Millis(100);
/// Who has agreed to a candidate waits this long for its news before it stands itself: longer than
/// [`ELECTION_ANSWER`], after which the others are free again, too, and than a heartbeat, which brings the
/// claim when the news was lost. With two steps it stays below one second, so that somebody is in office by
/// then also when the first candidate dies in the middle.
pub const ELECTION_PATIENCE: Millis = Millis(400);
/// Who comes to see a majority, after its start or after a cut, listens for two heartbeats before it stands:
/// a coordinator in office is heard by then.
pub const ELECTION_LOOK: Millis = Millis(600);
/// The longest random wait after the first lost candidacy; doubles with each next.
pub const ELECTION_RETRY: Millis = Millis(300);
/// The longest random wait after any lost candidacy: a cluster is not without a coordinator for longer.
pub const ELECTION_RETRY_MAX: Millis = Millis(1200);
/// By so many hundredths of a point a load is clearly lower: more than a smoothed load moves by chance.
pub const CLEARLY_BETTER_CENTI: u64 = 1500;
/// For so many heartbeats in a row a load has to be clearly lower than the coordinator's: 1.5 s.
pub const CLEARLY_BETTER_BEATS: u32 = 5;
/// A coordinator whose load is above this, in hundredths of a point, has no room for its office.
pub const RESIGN_ABOVE_CENTI: u64 = 9000;
/// For so many heartbeats in a row it has to be above: longer than [`CLEARLY_BETTER_BEATS`], since a
/// candidate that comes by itself costs fewer messages.
pub const RESIGN_BEATS: u32 = 10;
/// No office ends of free will before it has lasted so long: at most one such change a minute.
pub const TENURE: Millis = Millis(60_000);
/// Who has not heard the coordinator for two heartbeats takes a candidate's word that it is dead: half of
/// [`SUSPECT_AFTER`], by which those who notice a death first are ahead of the others at most.
pub const COORDINATOR_SILENT: Millis = Millis(2 * HEARTBEAT.0);
/// A coordinator that is neither in view nor heard for so long is gone, also where nobody says that it is
/// dead: as long as silence, a probe and the probes through others take.
pub const COORDINATOR_SILENCE_MAX: Millis = Millis(2 * SUSPECT_AFTER.0);
/// A coordinator claims anew for what clients know no more often: each time costs a message to everybody.
pub const ANEW_EVERY: Millis = Millis(1000);

// ---- founding ----

/// Candidates announce, voters ask and proposers repeat this often.
pub const FOUNDING_TICK: Millis = Millis(1000);
/// A candidate silent for this long is not counted on; three announcements.
pub const FOUNDING_FRESH: Millis = Millis(3500);
/// A proposer gives up on a listed node that is silent for this long.
pub const FOUNDING_SILENCE: Millis = Millis(10_000);
/// How long a node that expects only itself looks for others with its key.
pub const FOUNDING_LOOK: Millis = Millis(3000);
/// An encoded message of the founding: a founding and a little.
pub const FOUNDING_MESSAGE_BYTES_MAX: usize = FOUNDING_BYTES_MAX + 256;

// ---- fetching ----

/// Attempts at one body from one peer whose connection failed.
pub const FETCH_ATTEMPTS_PER_PEER_MAX: u32 = 2;
/// A body is given up after this long without progress when nobody is left to ask.
pub const FETCH_STALL_MAX: Millis = Millis(5000);

// ---- client ----

/// Bytes of one transfer held in the client's memory.
pub const TRANSFER_BYTES_MAX: usize = 32 << 20;
/// Transfers at once in a client.
pub const TRANSFERS_MAX: usize = 2;
/// Sealed chunks of one transfer on their way at once: a wire's worth of the time that two disks take, some
/// of them waiting for their turn at one node.
pub const TRANSFER_CHUNKS_MAX: usize = 8;
/// What one client has sent to one node and has no receipt for, over all its transfers: all of it goes out
/// twice when that node dies. Three nodes are first holders in turn, so thrice as much is under way.
pub const CLIENT_UNACKNOWLEDGED_BYTES_MAX: usize = 4 << 20;
/// Sealed chunks of one transfer that wait for their turn.
pub const TRANSFER_READY_MAX: usize = 4;
/// How long a node that failed a transfer is asked last.
pub const SHUN: Millis = Millis(2000);
/// Conflicts that one put bears before it says so.
pub const PUT_CONFLICTS_MAX: u32 = 32;
/// A check that reads and hashes 32 MiB and may fetch some of them.
pub const VERIFY_TIMEOUT: Millis = Millis(30_000);
/// Small objects of one command in flight at once.
pub const SMALL_OBJECTS_AT_ONCE_MAX: usize = 32;
/// Sentences of one `verify`: nobody reads more, and a vault that has lost a disk has one for every chunk.
pub const FINDINGS_MAX: usize = 1000;
/// A picture on standard input is kept for its thumbnail up to here: most are smaller, and a client that
/// uploads stays below 64 MiB with it.
pub const INPUT_KEPT_BYTES_MAX: usize = 16 << 20;
/// The longer edge of a thumbnail, in pixels.
pub const THUMBNAIL_EDGE_PX: u32 = 320;
/// A picture that would take more than this decoded gets no thumbnail.
pub const THUMBNAIL_DECODED_BYTES_MAX: u64 = 96 << 20;

// ---- disk ----

/// redb's page cache.
pub const RECORD_CACHE_BYTES: usize = 16 << 20;
/// Records and small bodies in one durable batch.
pub const WRITE_BATCH_MAX: usize = 512;
/// Writes waiting for the durable writer; past it the answer is busy.
pub const WRITE_QUEUE_MAX: usize = 4096;
/// Blocking disk jobs at once.
pub const DISK_JOBS_MAX: usize = 8;
/// Bytes waiting for the durable writer: what it commits in a few seconds on a slow disk.
pub const WRITE_QUEUE_BYTES_MAX: usize = 64 << 20;
/// Bytes of one durable batch: a transaction of this size is still one short commit.
pub const WRITE_BATCH_BYTES_MAX: usize = 8 << 20;
/// One acceptor record: a register, two ballots and some room.
pub const RECORD_BYTES_MAX: usize = 16 << 10;
/// One of a node's own durable values.
pub const META_BYTES_MAX: usize = 64 << 10;
/// Body jobs waiting for a blocking thread: at most this many MiB of bodies in memory.
pub const BODY_JOBS_WAITING_MAX: usize = 64;
/// Record reads waiting for a blocking thread.
pub const RECORD_JOBS_WAITING_MAX: usize = 1024;
/// Corrupt copies kept for a look; the oldest goes first.
pub const QUARANTINE_MAX: usize = 64;
/// How old the known amount of free space may be.
pub const FREE_SPACE_MAX_AGE: Millis = Millis(250);
/// Bytes taken after which free space is asked for again.
pub const FREE_SPACE_MAX_TAKEN_BYTES: u64 = 32 << 20;
/// Room that a node keeps on its disk for its own next start: a record file is opened with some pages.
pub const BALLAST_BYTES: u64 = 4 << 20;
/// Free space below which not even records are written: a transaction that meets a full disk in its middle
/// would stop the node.
pub const RECORD_FLOOR_BYTES: u64 = 16 << 20;
/// A key file.
pub const KEY_FILE_BYTES_MAX: usize = 4 << 10;
/// A configuration file.
pub const CONFIG_FILE_BYTES_MAX: usize = 256 << 10;
/// `data/node.addr` and the other small files of a home.
pub const NOTE_FILE_BYTES_MAX: usize = 16 << 10;
/// Objects whose highest version a client remembers; the longest untouched goes first.
pub const CLIENT_SEEN_MAX: usize = 100_000;
/// Sentences of one listing about damaged, older and missing objects: after an old backup was put back it
/// could be all of them, and what it means stands in the last one.
pub const LISTING_FINDINGS_MAX: usize = 20;
/// Addresses that a client remembers.
pub const CLIENT_ADDRESSES_MAX: usize = 32;
/// The client's log is rewritten when it has this many lines more than it needs.
pub const CLIENT_LOG_SPARE_LINES: usize = 20_000;
/// Waiting for another client process that holds the state's lock, for one write.
pub const CLIENT_LOCK_TIMEOUT: Millis = Millis(2000);
/// Free space below which a node takes no more chunks.
pub const DEFAULT_RESERVE_BYTES: u64 = 1 << 30;

const _: () = assert!(CHUNK_BYTES <= BODY_BYTES_MAX && MANIFEST_BYTES_MAX <= BODY_BYTES_MAX);
const _: () = assert!(OBJECT_BYTES_MAX / CHUNK_BYTES as u64 <= 8 * MANIFEST_PART_CHUNKS_MAX as u64);
const _: () = assert!(BODY_BYTES_MAX <= CLIENT_UNACKNOWLEDGED_BYTES_MAX);
const _: () = assert!(REGISTER_BYTES_MAX < LANE_FRAME_BYTES_MAX);
const _: () = assert!((TRANSFER_CHUNKS_MAX + TRANSFER_READY_MAX + 1) * CHUNK_BYTES <= TRANSFER_BYTES_MAX);
const _: () = assert!(BULK_ASKED_PER_STREAM_MAX * BULK_STREAMS_OPENED_MAX < BULK_SERVED_PER_PEER_MAX);
const _: () = assert!(BULK_SERVED_PER_PEER_MAX < BULK_SERVED_MAX);
const _: () = assert!(BULK_STREAMS_OPENED_MAX <= BULK_STREAMS_PER_PEER_MAX);
const _: () = assert!(ELECTION_ANSWER.0 < ELECTION_PATIENCE.0 && HEARTBEAT.0 < ELECTION_PATIENCE.0);
const _: () = assert!(ELECTION_STEP.0 * (ELECTION_STEPS_MAX as u64) + ELECTION_ANSWER.0 < 1000);
const _: () = assert!(ELECTION_PATIENCE.0 + 2 * ELECTION_STEP.0 < 1000);
const _: () = assert!(MEMBERS_MAX * 16 + 1024 < ELECTION_MESSAGE_BYTES_MAX);
const _: () = assert!(OFFER_IDS_MAX * 34 < RPC_REQUEST_BYTES_MAX);
