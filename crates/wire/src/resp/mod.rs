//! RESP2 and RESP3, as clients speak them.

mod reply;

pub use reply::Reply;
