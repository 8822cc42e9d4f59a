//! The error words of the command contract and the one type that carries them.
//!
//! Owns: the mapping from a failure to the text a client reads. Any thread.

use std::borrow::Cow;
use std::fmt;

/// The upper-case word a client can switch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorWord {
    /// Any failure without a word of its own.
    Err,
    /// The key holds another type.
    WrongType,
    /// The vector's bytes, length or numbers are unusable.
    BadVector,
    /// The vector has another dimension than the container.
    DimMismatch,
    /// The container's vectors are of another embedding model.
    ModelMismatch,
    /// The container needed for the command does not exist.
    NoCache,
    /// The filter expression does not parse.
    BadFilter,
    /// A value is past its bound in `limits`.
    TooBig,
    /// The ticket is none that the cache issued.
    BadTicket,
    /// The server is out of memory.
    Oom,
    /// The lease is no lease any more: it lapsed and was given on, or what it is for was invalidated.
    LeaseLost,
    /// The caller's ACL does not open a second key to it.
    NoPerm,
    /// A second key is in another hash slot.
    CrossSlot,
    /// Too much is under way; the same request succeeds later.
    Busy,
    /// A key that the request needs is on its way to or from another server; the same request succeeds later.
    TryAgain,
    /// The key's hash slot is on its way: ask the server named, once.
    Ask,
    /// The key's hash slot is another server's.
    Moved,
    /// Nobody serves the key's hash slot.
    ClusterDown,
    /// This server became a replica while the request waited: it was done in part at most.
    Unblocked,
    /// The container's embedding model is not loaded here.
    NoModel,
    /// The text is too long to be embedded where no client may be made to wait.
    EmbedLong,
    /// The server became a replica while the client waited.
    ReadOnly,
}

impl ErrorWord {
    /// The word as it opens the error reply.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Err => "ERR",
            Self::WrongType => "WRONGTYPE",
            Self::BadVector => "BADVECTOR",
            Self::DimMismatch => "DIMMISMATCH",
            Self::ModelMismatch => "MODELMISMATCH",
            Self::NoCache => "NOCACHE",
            Self::BadFilter => "BADFILTER",
            Self::TooBig => "TOOBIG",
            Self::BadTicket => "BADTICKET",
            Self::Oom => "OOM",
            Self::LeaseLost => "LEASELOST",
            Self::NoPerm => "NOPERM",
            Self::CrossSlot => "CROSSSLOT",
            Self::Busy => "BUSY",
            Self::TryAgain => "TRYAGAIN",
            Self::Ask => "ASK",
            Self::Moved => "MOVED",
            Self::ClusterDown => "CLUSTERDOWN",
            Self::Unblocked => "UNBLOCKED",
            Self::NoModel => "NOMODEL",
            Self::EmbedLong => "EMBEDLONG",
            Self::ReadOnly => "READONLY",
        }
    }
}

/// A refused request: the word and the sentence behind it. The request changed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    word: ErrorWord,
    message: Cow<'static, str>,
}

/// Result of anything that can be refused.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with a word of its own.
    pub fn new(word: ErrorWord, message: impl Into<Cow<'static, str>>) -> Self {
        Self { word, message: message.into() }
    }

    /// A plain `ERR`.
    pub fn err(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorWord::Err, message)
    }

    /// `WRONGTYPE`, in the server's own words.
    pub fn wrong_type() -> Self {
        let message = "Operation against a key holding the wrong kind of value";
        Self::new(ErrorWord::WrongType, message)
    }

    /// `OOM`, in the server's own words.
    pub fn out_of_memory() -> Self {
        Self::new(ErrorWord::Oom, "command not allowed when used memory > 'maxmemory'.")
    }

    /// `TOOBIG`, naming what was too big, its size and the bound, both in `unit`.
    pub fn too_big(what: &str, got: usize, max: usize, unit: &str) -> Self {
        Self::new(ErrorWord::TooBig, format!("{what} has {got} {unit}, at most {max} are accepted"))
    }

    /// The sentence without its word.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The word.
    pub fn word(&self) -> ErrorWord {
        self.word
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.word.as_str(), self.message)
    }
}

impl std::error::Error for Error {}
