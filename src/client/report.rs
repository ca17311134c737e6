//! What nodes say of themselves: status, nodes, events; and asking a node to stop.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_bytes::ByteBuf;

use super::{
    Client, Error,
    asking::undecided_error,
    types::{Connect, Status},
};
use crate::{
    disk::Home,
    model::{
        Millis, PeerId,
        rpc::{EventInfo, NodeInfo, NodeState, Request, Response, StatusInfo},
    },
    proto::placement,
};

/// What status may take.
const STATUS_PATIENCE: Millis = Millis(900);
/// What the other nodes may take after that.
const OTHERS_PATIENCE: Millis = Millis(300);
/// How long a node may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

impl Client {
    /// How the cluster is.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub async fn status(&self) -> Result<Status, Error> {
        let Response::Status(mut info) = self.ask_connected(&Request::Status).await? else {
            return Err(Error::Refused("a node gave an answer that does not fit the question".into()));
        };
        if info.nodes.len() > placement::COPIES {
            self.ask_others_for_single_copies(&mut info).await;
        }
        let alive = info.nodes.iter().filter(|n| n.state == NodeState::Alive).count() as u64;
        let total = info.nodes.len() as u64;
        let founded = info.founding.is_some();
        let whole = founded && alive == total && info.under_repair == Some(0);
        let can_lose = if !founded || info.under_repair.is_none() && alive == total {
            None
        } else {
            // Nobody can lose the only machine that has an object.
            Some(u64::from(whole && total >= 2 && info.single_copy_objects == Some(0)))
        };
        let healthy = founded && alive == total && info.warnings.is_empty() && info.under_repair == Some(0);
        Ok(Status { healthy, nodes_alive: alive, nodes_total: total, can_lose, info: *info })
    }

    /// Of more nodes than copies none keeps all registers: the greatest number that any of them knows counts.
    async fn ask_others_for_single_copies(&self, info: &mut StatusInfo) {
        // Connects to the others too, if this is the first question of this client.
        let _ = self.view().await;
        let connected = self.net.connected();
        let members = info.nodes.iter().map(|n| n.peer);
        let others: Vec<PeerId> = members.filter(|p| *p != info.peer && connected.contains_key(p)).collect();
        let asked = others.into_iter().map(|peer| self.ask(peer, &Request::Status, OTHERS_PATIENCE));
        for answer in futures::future::join_all(asked).await.into_iter().flatten() {
            if let Response::Status(other) = answer {
                let most = info.single_copy_objects.max(other.single_copy_objects);
                info.single_copy_objects = most;
            }
        }
    }

    /// Every node, with its own counters where it answers.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub async fn nodes(&self) -> Result<Vec<NodeInfo>, Error> {
        let Response::Nodes(mut nodes) = self.ask_connected(&Request::Nodes).await? else {
            return Err(Error::Refused("a node gave an answer that does not fit the question".into()));
        };
        // Connects to the others too, if this is the first question of this client.
        let _ = self.view().await;
        let connected = self.net.connected();
        let others = nodes.iter().filter(|n| n.counters.is_none() && connected.contains_key(&n.peer));
        let asked = others.map(|n| async {
            let answer = self.ask(n.peer, &Request::Nodes, STATUS_PATIENCE).await;
            let Some(Response::Nodes(infos)) = answer else { return None };
            infos.into_iter().find(|info| info.peer == n.peer)
        });
        let own: Vec<NodeInfo> = futures::future::join_all(asked).await.into_iter().flatten().collect();
        for info in own {
            if let Some(node) = nodes.iter_mut().find(|n| n.peer == info.peer) {
                let addrs = std::mem::take(&mut node.addrs);
                *node = NodeInfo { addrs, ..info };
            }
        }
        Ok(nodes)
    }

    /// Events with a number above `after`.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub async fn events(&self, after: u64) -> Result<Vec<EventInfo>, Error> {
        match self.ask_connected(&Request::Events { after }).await? {
            Response::Events(events) => Ok(events),
            other => Err(undecided_error(other, true)),
        }
    }

    /// Asks the node that was talked to last, or any other.
    async fn ask_connected(&self, request: &Request) -> Result<Response, Error> {
        let mut order: Vec<PeerId> = self.talking_to().into_iter().collect();
        order.extend(self.net.connected().keys().filter(|p| Some(**p) != self.talking_to()));
        self.ask_first(&order, request, STATUS_PATIENCE).await.map(|(_, response)| response)
    }
}

/// Stops the node that runs in this home and waits until it has let go of the home.
///
/// # Errors
/// [`Error::Unreachable`] if none runs here, [`Error::Refused`] if it did not stop in time.
pub async fn stop_node(home: &Path) -> Result<(), Error> {
    let home = Home::at(home);
    let none = || Error::Key {
        reason: format!("no node runs on the home {}", home.root().display()),
        remedy: "`--home DIR` names another home".into(),
    };
    if !home.is_running() {
        return Err(none());
    }
    let addr = home.node_addr().ok().flatten().ok_or_else(none)?;
    let connect = Connect {
        home: home.root().to_path_buf(),
        nodes: addr.addrs.iter().take(1).cloned().collect(),
        ..Connect::default()
    };
    let client = Client::open(connect).await?;
    let request = Request::Stop { token: ByteBuf::from(addr.stop_token.to_vec()) };
    let answer = client.ask(addr.peer, &request, STATUS_PATIENCE).await;
    client.close().await;
    if let Some(Response::Refused(sentence)) = answer {
        return Err(Error::Refused(sentence));
    }
    let started = Instant::now();
    while home.is_running() {
        if started.elapsed() > STOP_PATIENCE {
            return Err(Error::Refused(format!("it did not stop within {} s", STOP_PATIENCE.as_secs())));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
