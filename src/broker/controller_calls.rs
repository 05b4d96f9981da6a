//! How parts of this broker reach the active controller, wherever it is.

use super::{ControllerReply, ControllerRequest};
use ottla_protocol::ErrorCode;
use std::future::Future;
use std::pin::Pin;

/// A future that can be kept behind a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The active controller, in this process or in another.
pub trait ControllerCalls: Send + Sync + 'static {
    /// Puts one request to it.
    ///
    /// # Errors
    /// NOT_CONTROLLER where it moved or is not known yet, and what the network made of the call; all may be tried
    /// again.
    fn call(&self, request: ControllerRequest)
    -> BoxFuture<'_, Result<ControllerReply, ErrorCode>>;
}
