//! A connection handler behind a count of the inbound streams that it is given on its connection.
//!
//! gossipsub keeps one stream each way. It closes one on which it cannot read a frame and tells nobody; an
//! honest peer never gives it cause to. So each further inbound stream is the trace of such a frame, the last
//! frame of a connection excepted. It changes nothing of what the handler does.

use std::task::{Context, Poll};

use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol, handler::ConnectionEvent};

use super::event::SharedCounters;

/// `H`, and how many inbound streams it has had.
pub(super) struct OneStream<H> {
    inner: H,
    streams: u64,
    counters: SharedCounters,
}

impl<H> OneStream<H> {
    pub(super) fn new(inner: H, counters: SharedCounters) -> Self {
        Self { inner, streams: 0, counters }
    }
}

impl<H: ConnectionHandler> ConnectionHandler for OneStream<H> {
    type FromBehaviour = H::FromBehaviour;
    type ToBehaviour = H::ToBehaviour;
    type InboundProtocol = H::InboundProtocol;
    type OutboundProtocol = H::OutboundProtocol;
    type InboundOpenInfo = H::InboundOpenInfo;
    type OutboundOpenInfo = H::OutboundOpenInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        self.inner.listen_protocol()
    }

    fn connection_keep_alive(&self) -> bool {
        self.inner.connection_keep_alive()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        self.inner.poll(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        self.inner.poll_close(cx)
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        self.inner.on_behaviour_event(event);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            Self::OutboundOpenInfo,
        >,
    ) {
        if matches!(event, ConnectionEvent::FullyNegotiatedInbound(_)) {
            self.streams += 1;
            if self.streams > 1 {
                self.counters.gossip_refused.bump();
            }
        }
        self.inner.on_connection_event(event);
    }
}
