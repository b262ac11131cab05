//! What a client may ask the decoder to hold.

/// Bounds on requests. A session starts with [`Limits::BEFORE_AUTH`] where a password is required
/// and gets [`Limits::default`] (or the operator's numbers) once it has logged in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of one argument (`proto-max-bulk-len`).
    pub bulk_bytes: usize,
    /// Arguments of one command, its name included.
    pub args: usize,
    /// Bytes of one inline command or of one `*` or `$` header, without the line's end.
    pub line_bytes: usize,
    /// Bytes of one command on the wire (`client-query-buffer-limit`).
    pub query_buffer_bytes: usize,
    /// Whether the client has logged in (or needs not): decides how a refusal is worded.
    pub authenticated: bool,
}

/// Bytes of an inline command or a header line: the same before and after AUTH, as in Redis.
const LINE_BYTES: usize = 64 * 1024;

impl Limits {
    /// What a client gets before it has logged in: enough for `AUTH` and `HELLO`.
    pub const BEFORE_AUTH: Limits = Limits {
        bulk_bytes: 16_384,
        args: 10,
        line_bytes: LINE_BYTES,
        query_buffer_bytes: 1024 * 1024,
        authenticated: false,
    };

    /// What a client gets by default.
    pub const DEFAULT: Limits = Limits {
        bulk_bytes: 64 * 1024 * 1024,
        args: 1_048_576,
        line_bytes: LINE_BYTES,
        query_buffer_bytes: 128 * 1024 * 1024,
        authenticated: true,
    };
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::DEFAULT
    }
}

const _: () = assert!(Limits::DEFAULT.bulk_bytes < Limits::DEFAULT.query_buffer_bytes);
const _: () = assert!(Limits::BEFORE_AUTH.bulk_bytes < Limits::BEFORE_AUTH.query_buffer_bytes);
