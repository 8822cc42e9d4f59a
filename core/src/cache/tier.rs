//! The two ways in which a lookup finds an entry. Plain data, any thread.

/// Which tier answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// The prompt was stored byte for byte.
    Exact,
    /// A prompt of like meaning was stored.
    Semantic,
}

impl Tier {
    /// As in replies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Semantic => "semantic",
        }
    }
}
