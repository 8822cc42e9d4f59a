//! Operations on keys for commands and background work: open caches and entries, store, remove, attach.
//!
//! Owns: the order of steps that keeps keyspace, index and replicas in agreement. A cache is
//! borrowed for single steps and never across opening a key. Main thread only.

mod answer_room;
mod attach;
mod backpressure;
mod caches;
mod changes;
mod choice;
mod chunk_room;
mod chunks;
mod clock;
mod command_keyspace;
mod embeddings;
mod entries;
mod flights;
pub mod followers;
mod invalidation_walk;
mod namespaces;
mod put_back;
mod read_texts;
mod search_before;
mod search_load;
mod search_rest;
mod search_rounds;
mod searches;
mod session_key;
mod sessions;
mod slices;
pub mod slots;

pub use answer_room::{AnswerRoom, answer_room};
pub use attach::{Attached, Linking, attach_arrival, attach_open};
pub use backpressure::{StoreReply, reply_when_linked, stores_wait};
pub use caches::{
    create_cache, find_container, need_index, open_cache, open_container, put_back_evicted,
    unlink_key,
};
pub use changes::tell_changes;
pub use choice::{Choice, Place, key_of_found, likeness, place_of, unit};
pub use chunk_room::{in_flight, note_buffered, note_maxmemory, room_of};
pub use chunks::{
    ChunkSeen, LeadingRun, NewChunk, OpenedChunk, UseWalk, arm_new_leaves, attach_chunk,
    chunk_arrived, chunk_bytes, doomed_for, due_before, ending_before, evict_one, hint_strongly,
    is_reachable, make_room, open_chunk, open_reachable, pin_chunk, put_chunk, raise_deadline,
    refused_parent, remove_chunk, remove_due, remove_node, remove_stub, shrink_to, use_chunk,
    use_chunks, use_stored,
};
pub use clock::{now_min, set_minute};
pub use command_keyspace::CommandKeyspace;
pub use embeddings::{
    Again, Embedded, Meant, ModelId, Take, Texts, default_model, embed, embedding_counts,
    is_running_again, load_models, model_of,
};
pub use entries::{
    NewEntry, OpenedEntry, enforce_limits, mark_stale, open_entry, put_entry, remove_entry,
    remove_entry_of, set_entry_expiry,
};
pub use flights::{
    any_flights, end_flights_without_cache, flight_counts, pending_flights, room_for_lease,
    void_all_leases, void_lease, wake, watch_leases, with_flights, with_known_flights,
};
pub use invalidation_walk::{
    Criterion, InvalidationWalk, check_walks, start_invalidation, tell_ids,
};
pub use namespaces::{
    attach_a_few, create_namespace, find_namespace, open_namespace, put_back_namespaces,
};
pub use put_back::shield;
pub use read_texts::ReadTexts;
pub use search_rest::Told;
pub use search_rounds::{answer_searching, search_counts};
pub use searches::Searches;
pub use session_key::{OpenSession, open_session};
pub use sessions::{
    Deadline, change_session, check_second_key, deadline_was_moved, put_session, same_slot,
};
pub use slices::{Awaited, Pieces, Removals, reply_whole, run_pieces, sliced_count};
pub use slots::{Presence, redirection};
