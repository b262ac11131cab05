//! Who is told what unasked, across all connections of a router: subscribers and monitors.
//!
//! It is made before the router and given to it, so that what the router talks to may hold it, too.

use crate::monitors::Monitors;
use crate::pubsub::PubSub;

/// See the module's text.
#[derive(Default, Debug)]
pub struct Hub {
    pub(crate) pubsub: PubSub,
    pub(crate) monitors: Monitors,
}
