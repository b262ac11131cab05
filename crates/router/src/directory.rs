//! MemDS as a router sees it.

use std::sync::Arc;

use wire::ids::TableId;
use wire::placement::Placement;
use wire::service::{BoxFuture, Route};

/// Takes the answers of mirrored lookups.
pub type RouteSink = Arc<dyn Fn(Placement, Route) + Send + Sync>;

/// Where routes are looked up: the MemDS fleet.
pub trait Directory: Send + Sync + 'static {
    /// The route of a placement; `None` if the map has no partition there (yet).
    fn lookup(
        &self,
        table: TableId,
        placement: Placement,
    ) -> BoxFuture<Result<Option<Route>, String>>;

    /// Puts lookups on the mirror queue; answers come to `sink` at their own time.
    fn mirror(&self, lookups: Vec<(TableId, Placement)>, sink: RouteSink);
}
