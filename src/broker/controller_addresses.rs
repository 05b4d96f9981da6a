//! Where the controllers of the quorum listen, as far as this node knows: from the configuration, from the voters in
//! the metadata log, and from what controllers themselves say.

use ottla_protocol::BrokerId;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Host and port.
pub type Address = (String, u16);

/// Addresses by node; clones share them.
#[derive(Debug, Clone, Default)]
pub struct ControllerAddresses(Arc<RwLock<BTreeMap<BrokerId, Address>>>);

impl ControllerAddresses {
    /// Those of the configuration.
    pub fn new(addresses: BTreeMap<BrokerId, Address>) -> ControllerAddresses {
        ControllerAddresses(Arc::new(RwLock::new(addresses)))
    }

    /// Where a controller listens.
    pub fn get(&self, id: BrokerId) -> Option<Address> {
        self.0.read().get(&id).cloned()
    }

    /// All of them.
    pub fn all(&self) -> BTreeMap<BrokerId, Address> {
        self.0.read().clone()
    }

    /// Notes where a controller listens now.
    pub fn set(&self, id: BrokerId, address: Address) {
        self.0.write().insert(id, address);
    }
}
