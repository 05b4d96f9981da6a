//! Images are equal at equal metadata offset.

use super::Finding;
use crate::world::World;
use ottla::broker::Image;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct Images {
    at: BTreeMap<i64, Arc<Image>>,
    /// By machine: what was looked at last.
    last: BTreeMap<usize, Arc<Image>>,
    compared: usize,
}

impl Images {
    pub(super) fn look(&mut self, world: &World) -> Finding {
        for machine in 0..world.machines.len() {
            let Some(broker) = world.broker(machine) else { continue };
            let image = broker.image();
            if self.last.get(&machine).is_some_and(|last| Arc::ptr_eq(last, &image)) {
                continue;
            }
            self.last.insert(machine, Arc::clone(&image));
            let known = self.at.entry(image.offset.0).or_insert_with(|| Arc::clone(&image));
            if Arc::ptr_eq(known, &image) {
                continue;
            }
            self.compared += 1;
            if **known != *image {
                return Err(format!(
                    "the image of machine {machine} at offset {} is not that of others:\n{image:?}\n{known:?}",
                    image.offset.0
                ));
            }
        }
        Ok(())
    }

    pub(super) fn seen(&self) -> usize {
        self.compared
    }
}
