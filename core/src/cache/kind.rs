//! What a container is for. All kinds are the same container with the same entries; the kind says how
//! an entry is named and whether it is found by meaning.
//!
//! Owns: the kinds and their bytes. Any thread.

/// What a container holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Kind {
    /// Answers, found by their prompt or by meaning: `LLMCACHE.*`.
    #[default]
    Answers = 0,
    /// Documents, found by their id or by meaning: `RAG.*`. The prompt is the id, the response the text.
    Documents = 1,
    /// Embeddings, found by the digest of what was embedded: `EMBCACHE.*`. Nothing is found by meaning, so
    /// nothing has an index code.
    Embeddings = 2,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Answers, Self::Documents, Self::Embeddings];

    /// The kind of a stored byte.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_byte() == byte)
    }

    /// The byte that stands for the kind in stored data.
    pub const fn as_byte(self) -> u8 {
        self as u8
    }

    /// What a person calls the container.
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Answers => "cache",
            Self::Documents => "index",
            Self::Embeddings => "embedding cache",
        }
    }

    /// Whether entries are found by their vectors.
    pub const fn is_searched(self) -> bool {
        !matches!(self, Self::Embeddings)
    }
}
