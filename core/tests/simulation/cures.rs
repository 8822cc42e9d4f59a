//! The cures of faults that were found by use. Each can be taken out, to show that the simulation finds the fault again:
//! the numbers are those of the report. What stands in the core is taken out of the core's sources by
//! `tests/torture/planted.py`; these are the ones in what the simulation has of the adapter.

/// What keeps a fault away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cure {
    /// 1.2: nothing that runs by itself is begun before the server has taken the module.
    BeginsOnceTaken,
    /// 1.3: what is given as an argument is set or refused.
    ArgumentsRead,
    /// 1.1: work between commands asks for leave to write.
    Permit,
    /// 1.1: a walk that ends because its server was demoted says so, instead of how far it came.
    WholeWalk,
    /// 2.1: a removal concludes nothing from a key that may be elsewhere.
    RemovalAsks,
    /// 2.1: nor does a walk that picks out what is removed.
    WalkAsks,
    /// 2.2: nor does a store from the absence of the entry that it replaces.
    StoreAsks,
    /// 2.3: nor does an owner's set from the absence of its sessions.
    OwnerAsks,
    /// 2.3: a list is refused, not shortened.
    ListAsks,
    /// 2.4: a client that waited is sent where its slot went.
    Redirected,
    /// 2.7: entries that come before their container are indexed for it.
    Awaited,
    /// Background work leaves alone what is moving.
    ReaperWaits,
    /// Leases are void when their container comes back from another server. Found by the simulation.
    ArrivalVoids,
    /// A walk ends where its container came back with other rows. Found by the simulation.
    WalkLooksUp,
    /// Leases are void where another server was the primary meanwhile. Found by the simulation.
    TakeoverVoids,
    /// What a server evicted and did not put back is given up when another takes over. Found by the simulation.
    DemotionGivesUp,
    /// What comes while its container is being removed is not one of those that are removed. Found by traffic.
    GoingIsNotAwaited,
    /// A replica waits for its primary to remove what is due.
    ReplicaWaits,
    /// A row that is due is freed when its key is gone, and not before.
    DueAsks,
    /// A replica that lost more than the backlog has reads everything anew.
    BacklogEnds,
    /// 4.10: what is never saved is measured by a clock that only goes forward.
    SteadyClock,
}

/// All of them.
pub const CURES: &[Cure] = &[
    Cure::BeginsOnceTaken,
    Cure::ArgumentsRead,
    Cure::Permit,
    Cure::WholeWalk,
    Cure::RemovalAsks,
    Cure::WalkAsks,
    Cure::StoreAsks,
    Cure::OwnerAsks,
    Cure::ListAsks,
    Cure::Redirected,
    Cure::Awaited,
    Cure::ReaperWaits,
    Cure::ArrivalVoids,
    Cure::WalkLooksUp,
    Cure::TakeoverVoids,
    Cure::DemotionGivesUp,
    Cure::GoingIsNotAwaited,
    Cure::ReplicaWaits,
    Cure::DueAsks,
    Cure::BacklogEnds,
    Cure::SteadyClock,
];
