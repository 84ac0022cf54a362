//! What every provider looks like from outside.

use std::future::Future;

use protocol::event::Exit;
use tokio_util::sync::CancellationToken;

use crate::{failure::Failure, feed::Feed};

/// One provider, ready to run the prompt it was made with.
pub(crate) trait Adapter: Sized {
    /// Runs the prompt to its end, or until `cancel`: then it interrupts the provider the way that one
    /// understands, and still waits for it. Whoever cancels decides how long.
    fn run(
        self,
        feed: Feed,
        cancel: CancellationToken,
    ) -> impl Future<Output = Result<Exit, Failure>>;
}
