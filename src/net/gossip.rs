//! Heartbeats and task records by gossipsub: signed, from members only, and a cure for half-deaf neighbours.
//!
//! gossipsub announces topics once per peer, on its first connection. A peer that restarts before its old
//! connection is noticed dead never hears them. So topics are announced again after such a restart, and a
//! member that stays silent about its own is cut off and dialed anew. Nothing depends on gossip being heard.

use std::{collections::BTreeSet, time::Duration};

use libp2p::{
    PeerId,
    gossipsub::{
        self, IdentTopic, IdentityTransform, MaxCountSubscriptionFilter, Message, MessageAcceptance,
        MessageAuthenticity, MessageId, PublishError, TopicHash, ValidationMode, WhitelistSubscriptionFilter,
    },
    identity::Keypair,
};

use super::{
    event::{Busy, Event, NetError, SharedCounters},
    places::Roster,
};
use crate::model::limits;

/// What is gossiped about; every node listens to all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Heartbeats.
    Heartbeat,
    /// Task records.
    History,
}

impl Topic {
    const ALL: [Self; 2] = [Self::Heartbeat, Self::History];

    const fn name(self) -> &'static str {
        match self {
            Self::Heartbeat => "tintype/heartbeat/1",
            Self::History => "tintype/history/1",
        }
    }

    fn ident(self) -> IdentTopic {
        IdentTopic::new(self.name())
    }
}

type Filter = MaxCountSubscriptionFilter<WhitelistSubscriptionFilter>;
pub(super) type Behaviour = gossipsub::Behaviour<IdentityTransform, Filter>;

/// Everything on the wire of gossip: a heartbeat, its signature and key, some control words.
const TRANSMIT_BYTES_MAX: usize = 16 << 10;
const QUEUE_MAX: usize = 256;
/// How long the id of a message is remembered: twice as long as anybody offers it again.
const REMEMBERED: Duration = Duration::from_secs(10);

/// Wide enough that in a cluster of usual size everybody is everybody's neighbour.
fn config() -> Result<gossipsub::Config, NetError> {
    gossipsub::ConfigBuilder::default()
        .heartbeat_interval(Duration::from_secs(1))
        .heartbeat_initial_delay(Duration::from_secs(1))
        .mesh_n(4)
        .mesh_n_low(2)
        .mesh_n_high(12)
        .mesh_outbound_min(1)
        // A topic announced again was left for a moment: nobody should hold that against us for long.
        .unsubscribe_backoff(Duration::from_secs(1))
        .max_transmit_size(TRANSMIT_BYTES_MAX)
        .message_id_fn(message_id)
        .duplicate_cache_time(REMEMBERED)
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        .connection_handler_queue_len(QUEUE_MAX)
        .build()
        .map_err(|e| NetError::Configuration(e.to_string()))
}

/// Source and sequence number, as by default, but short: ids of what is refused are remembered too.
fn message_id(message: &Message) -> MessageId {
    let mut hasher = blake3::Hasher::new();
    if let Some(source) = message.source {
        hasher.update(&source.to_bytes());
    }
    hasher.update(&message.sequence_number.unwrap_or_default().to_be_bytes());
    MessageId::new(&hasher.finalize().as_bytes()[..16])
}

pub(super) fn build(keypair: &Keypair) -> Result<Behaviour, NetError> {
    let topics = Topic::ALL.map(|topic| topic.ident().hash());
    let filter = MaxCountSubscriptionFilter {
        filter: WhitelistSubscriptionFilter(topics.into_iter().collect()),
        max_subscribed_topics: 4,
        max_subscriptions_per_request: 8,
    };
    let privacy = MessageAuthenticity::Signed(keypair.clone());
    let mut gossip = Behaviour::new_with_subscription_filter(privacy, config()?, filter)
        .map_err(|e| NetError::Configuration(e.into()))?;
    for topic in Topic::ALL {
        gossip.subscribe(&topic.ident()).map_err(|e| NetError::Configuration(e.to_string()))?;
    }
    Ok(gossip)
}

pub(super) fn publish(gossip: &mut Behaviour, topic: Topic, bytes: Vec<u8>) -> Result<(), Busy> {
    if bytes.len() > limits::GOSSIP_BYTES_MAX {
        return Err(Busy::TooLong);
    }
    gossip.publish(topic.ident(), bytes).map(drop).map_err(|e| match e {
        PublishError::NoPeersSubscribedToTopic => Busy::NotConnected,
        PublishError::MessageTooLarge => Busy::TooLong,
        other => {
            tracing::warn!(error = %other, "something was not published on {}", topic.name());
            Busy::Full
        }
    })
}

/// Judges a message: its source, whose signature gossipsub has checked, must be a member; it must be short.
pub(super) fn on_message(
    gossip: &mut Behaviour,
    roster: &Roster,
    counters: &SharedCounters,
    from: PeerId,
    id: &MessageId,
    message: Message,
) -> Option<Event> {
    // Who passed it on does not matter: the source has signed it.
    let source = message.source.filter(|source| roster.has(source));
    let topic = Topic::ALL.into_iter().find(|topic| message.topic == topic.ident().hash());
    let topic = topic.filter(|_| message.data.len() <= limits::GOSSIP_BYTES_MAX);
    let accepted = source.zip(topic);
    let verdict = if accepted.is_some() { MessageAcceptance::Accept } else { MessageAcceptance::Reject };
    gossip.report_message_validation_result(id, &from, verdict);
    if accepted.is_none() {
        counters.gossip_refused.bump();
    }
    accepted.map(|(source, topic)| match topic {
        Topic::Heartbeat => Event::Heartbeat { source, bytes: message.data },
        Topic::History => Event::History { source, bytes: message.data },
    })
}

/// Leaves the topics and takes them up again: the only way to say it once more to those who know us already.
pub(super) fn announce_again(gossip: &mut Behaviour) {
    for topic in Topic::ALL {
        gossip.unsubscribe(&topic.ident());
        // The filter allows exactly these topics; they were subscribed at the start.
        if let Err(error) = gossip.subscribe(&topic.ident()) {
            tracing::error!(%error, "the topic {} cannot be taken up again", topic.name());
        }
    }
}

/// Peers that have said that they listen to heartbeats.
pub(super) fn listeners(gossip: &Behaviour) -> BTreeSet<PeerId> {
    let topic: TopicHash = Topic::Heartbeat.ident().hash();
    gossip.all_peers().filter(|(_, topics)| topics.contains(&&topic)).map(|(peer, _)| *peer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mesh_bounds_hold_their_order() {
        let config = config().unwrap();
        assert!(config.mesh_outbound_min() <= config.mesh_n_low());
        assert!(config.mesh_n_low() <= config.mesh_n());
        assert!(config.mesh_n() <= config.mesh_n_high());
        assert!(2 * config.mesh_outbound_min() <= config.mesh_n());
        assert!(config.max_transmit_size() > limits::GOSSIP_BYTES_MAX);
    }
}
