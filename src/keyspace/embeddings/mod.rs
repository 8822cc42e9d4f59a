//! Texts that are embedded here: in threads while their client waits, and the command is run again when its vectors
//! are there.
//!
//! A vector is an argument that arrives late: the command that needs it ends without a reply, and is run again from its
//! arguments as if it had just come, so that whatever happened meanwhile (FLUSHALL, a dropped container, INVALIDATE) is
//! met by the same code as ever. Main thread only; a thread gets a model and tokens and knows no key and no client.

mod embed;
mod model_id;
mod queue;
mod reader;
mod service;
mod waiting;
mod work;

pub(super) use embed::has_threads;
pub use embed::{Again, Embedded, Meant, Texts, embed};
pub use model_id::ModelId;
pub(super) use queue::{Wanted, end_wait, wait_between, waited_too_long};
pub(super) use reader::{Reader, held_bytes, no_vector, too_long_inline};
pub use service::{Take, default_model, embedding_counts, is_running_again, load_models, model_of};
pub(super) use work::{Came, Made, Text, TextKey};
