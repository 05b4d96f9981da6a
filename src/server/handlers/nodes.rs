//! Brokers as a client sees them: through the listener that it came by.
//!
//! Where `advertised.listeners` is unset, this broker is at the address that the client dialled: so an installation
//! without any setting works from everywhere it can be reached.

use super::RequestContext;
use crate::broker::image::BrokerRegistration;
use crate::broker::{Image, TopicImage};
use ottla_protocol::BrokerId;
use std::sync::Arc;

/// A broker's id and address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `node.id`.
    pub id: i32,
    /// Where it is advertised.
    pub host: String,
    /// Its port there.
    pub port: i32,
    /// `broker.rack`.
    pub rack: Option<String>,
}

impl RequestContext {
    /// The broker's address for this client; `None` when it has no listener of this name.
    pub fn node_of(&self, broker: &BrokerRegistration) -> Option<Node> {
        let (host, port) =
            if broker.id == self.broker.node_id() && self.is_dialled_address_advertised {
                (self.local.ip().to_string(), i32::from(self.local.port()))
            } else {
                let endpoint = broker.listeners.get(&*self.listener)?;
                (endpoint.host.clone(), i32::from(endpoint.port))
            };
        Some(Node { id: broker.id.0, host, port, rack: broker.rack.clone() })
    }

    /// The address of the broker with this id, fenced or not.
    pub fn node(&self, image: &Image, id: BrokerId) -> Option<Node> {
        image.cluster.brokers.get(&id).and_then(|broker| self.node_of(broker))
    }

    /// Every broker that is not fenced and has this client's listener.
    pub fn alive_nodes(&self, image: &Image) -> Vec<Node> {
        image.cluster.unfenced().filter_map(|broker| self.node_of(broker)).collect()
    }

    /// Whether the broker is alive and has this client's listener.
    pub fn is_reachable(&self, image: &Image, id: BrokerId) -> bool {
        let broker = image.cluster.brokers.get(&id);
        broker
            .is_some_and(|broker| !broker.fenced && broker.listeners.contains_key(&*self.listener))
            && !self.is_gone(image, id)
    }

    /// Whether this broker has seen that the other one is gone, of which the controller has not told yet. A client that
    /// is told of its partitions' leader in that moment would believe it until it asks again.
    pub fn is_gone(&self, image: &Image, id: BrokerId) -> bool {
        self.broker.is_gone(image, id)
    }
}

/// Collects where clients must go that came to the wrong broker (KIP-951).
pub(crate) struct Leaders<'a> {
    ctx: &'a RequestContext,
    image: &'a Image,
    /// Each leader that was found, once.
    pub(crate) endpoints: Vec<Node>,
}

impl<'a> Leaders<'a> {
    pub(crate) fn new(ctx: &'a RequestContext, image: &'a Image) -> Self {
        Leaders { ctx, image, endpoints: Vec::new() }
    }

    /// The partition's leader and epoch, -1 where there is none.
    pub(crate) fn find(&mut self, topic: Option<&Arc<TopicImage>>, index: i32) -> (i32, i32) {
        let Some(partition) = topic.and_then(|topic| topic.partition(index)) else {
            return (-1, -1);
        };
        let known = self.endpoints.iter().any(|node| node.id == partition.leader.0);
        if !known && let Some(node) = self.ctx.node(self.image, partition.leader) {
            self.endpoints.push(node);
        }
        (partition.leader.0, partition.leader_epoch.0)
    }
}
