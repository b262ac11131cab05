//! Black-box tests of the `evenkeel` binary, with a real `redis-server` as the measure.
//!
//! Nothing here imports another crate of the workspace: a server is a process that is launched,
//! spoken to over its socket, and killed. So what passes here passes for a stranger's client too.
//!
//! - [`resp`]: a client of raw bytes, for comparing replies byte for byte;
//! - [`process`]: launching, killing and restarting servers, and reading their logs;
//! - [`differential`]: the same generated commands to both servers, replies compared;
//! - [`load`]: writers that remember what was acknowledged, and the check that none of it is lost.
//! - [`linear`]: histories of clients, and whether they are linearizable;
//! - [`admin`]: the fields of ADMIN and INFO answers;
//! - [`calm`]: whether the machine gave a test what it takes.
//!
//! The tests themselves are in `tests/`. Environment:
//!
//! | variable | meaning |
//! |---|---|
//! | `EVENKEEL_BIN` | the binary under test; without it the workspace's own is built and used. A path that ends in `redis-server` puts Redis in both seats, which tests the tests |
//! | `EVENKEEL_DIFF_SEED`, `EVENKEEL_DIFF_COMMANDS` | the differential test's seed and length |
//! | `EVENKEEL_DIFF_FINDINGS` | how many diverging sequences it reduces before it stops |
//! | `EVENKEEL_PRELOAD_KEYS` | keys in the large restart test |

pub mod admin;
pub mod calm;
pub mod differential;
pub mod linear;
pub mod load;
pub mod process;
pub mod resp;
pub mod rng;
