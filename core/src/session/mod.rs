//! Conversations: messages in their order, windows of them, recall, and messages that are read while
//! they are written.
//!
//! Owns: everything of `SESSION.*` that needs no server. `plan` and `stream` turn what a client asks
//! into changes, `effect` applies them, `log` holds the messages in blocks. Callers pass in the time and
//! random words. Main thread; saving also in the forked child.

mod block;
mod calls;
pub mod characters;
mod check;
mod codec;
mod effect;
mod export;
mod iter;
mod json_text;
mod log;
mod message;
mod plan;
mod recall;
mod record;
mod removal;
mod stream;
mod tables;
mod window;

pub use codec::{TAG_MESSAGES, TAG_SESSION};
pub use effect::{Effect, TAG_EFFECT};
pub use export::{Line, lines, to_json, window_json};
pub use iter::Range;
pub use log::{Brief, MessageRef, Session, Totals};
pub use message::{
    IdText, Link, LinkKind, Message, MessageSeq, Producer, Status, VECTOR_QUANT, check_id,
    check_role, estimate_tokens, is_json_object,
};
pub use plan::{AppendTerms, Appending, Outcome};
pub use recall::{Recall, Recalled};
pub use removal::Removed;
pub use stream::{Began, BeginRequest, Chunked, Ended, Followed};
pub use window::{Window, WindowRequest};
