//! Libraries of functions: what FUNCTION LOAD makes of a text.

use bytes::Bytes;

use crate::shebang::Flags;

/// A library.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Library {
    /// Its name.
    pub name: Bytes,
    /// Its text, shebang included.
    pub code: Bytes,
    /// What it registers, in order.
    pub functions: Vec<FunctionInfo>,
}

/// A function of a library.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FunctionInfo {
    /// Its name, of letters, digits and underscores.
    pub name: Bytes,
    /// What it says it does.
    pub description: Option<Bytes>,
    /// What it says of itself.
    pub flags: Flags,
}
