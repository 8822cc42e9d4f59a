//! Who may write between commands.
//!
//! Owns: the rule; the adapter asks the server for its state and hands out the permit. Any thread.

/// What a server is at the moment, as far as it matters to who may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Role {
    /// It reads its data from a file or from its primary.
    pub is_loading: bool,
    /// It obeys a primary.
    pub is_replica: bool,
    /// Replicas must be spared: writes are paused, or a failover is under way.
    pub spares_replicas: bool,
}

impl Role {
    /// Whether a timer, an event or the continuation of a client that waited may write. A command that the server runs
    /// need not ask.
    pub fn may_write(self) -> bool {
        !self.is_loading && !self.is_replica && !self.spares_replicas
    }
}
