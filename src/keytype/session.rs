//! The key of one session: all its messages.
//!
//! RDB form: head section, number of message sections, the sections.

use super::VALUE_OVERHEAD_BYTES;
use super::follower_table;
use crate::ffi::{Digest, ModuleValue, RString, RdbReader, RdbWriter, TypeHandle, reclaim};
use llmcache_core::session::Session;
use std::ffi::{CStr, c_int};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};

/// The internal command that makes a session as it is: AOF.
const LOAD_COMMAND: &CStr = c"SESSION._LOAD";
/// The internal command that changes a session: AOF and replicas.
pub const APPLY_COMMAND: &CStr = c"SESSION._APPLY";

static HANDLE: TypeHandle = TypeHandle::unregistered();

/// Whether this process has seen a session whose deadline moves with its use. Where there is none, nobody
/// has to look whether a key that is given a deadline is a session.
static SLIDES: AtomicBool = AtomicBool::new(false);

/// Notes whether a session's deadline moves with its use.
pub fn note_sliding(session: &Session) {
    if session.ttl_ms() > 0 {
        SLIDES.store(true, Ordering::Relaxed);
    }
}

/// Whether there may be a session whose deadline moves with its use.
pub fn any_slides() -> bool {
    SLIDES.load(Ordering::Relaxed)
}

/// Value of a session key.
#[derive(Debug, Default)]
pub struct SessionValue(pub Session);

impl Deref for SessionValue {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.0
    }
}

impl DerefMut for SessionValue {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.0
    }
}

impl Drop for SessionValue {
    /// The server frees what DEL, expiry and eviction remove where they run: a large session is freed elsewhere.
    fn drop(&mut self) {
        let session = std::mem::take(&mut self.0);
        let allocations = session.allocations();
        reclaim(session, allocations);
    }
}

impl SessionValue {
    /// Puts together what `aof_rewrite` took apart: head and sections of unknown origin.
    pub fn from_sections(sections: &[&[u8]]) -> Option<Session> {
        let (head, rest) = sections.split_first()?;
        let mut session = Session::decode_head(head).ok()?;
        for section in rest {
            session.decode_messages(section).ok()?;
        }
        note_sliding(&session);
        Some(session)
    }
}

impl ModuleValue for SessionValue {
    type Kept = Box<Self>;

    const TYPE_NAME: &'static str = "llm-sessn";
    const ENCODING: c_int = 1;
    const COPIES: bool = true;

    fn handle() -> &'static TypeHandle {
        &HANDLE
    }

    fn rdb_load(
        from: &mut RdbReader,
        encoding: c_int,
        _db: c_int,
        _key: &[u8],
    ) -> Option<Box<Self>> {
        if encoding != Self::ENCODING {
            return None;
        }
        let mut session = Session::decode_head(&from.bytes()?).ok()?;
        for _ in 0..from.number()? {
            session.decode_messages(&from.bytes()?).ok()?;
        }
        note_sliding(&session);
        Some(Box::new(Self(session)))
    }

    fn rdb_save(&self, to: &mut RdbWriter) {
        to.bytes(&self.encode_head());
        to.number(self.sections());
        self.encode_messages(|section| to.bytes(&section));
    }

    fn aof_rewrite(&self, key: &[u8]) -> Option<(&'static CStr, Vec<RString>)> {
        let mut args = vec![RString::new(key), RString::new(&self.encode_head())];
        self.encode_messages(|section| args.push(RString::new(&section)));
        // The server itself writes the key's deadline behind this.
        Some((LOAD_COMMAND, args))
    }

    fn digest(&self, digest: &mut Digest) {
        self.0.digest(|part| digest.add(part));
        digest.end();
    }

    fn mem_usage(&self) -> usize {
        VALUE_OVERHEAD_BYTES
            + llmcache_core::allocation::allocated_bytes(size_of::<Self>())
            + self.heap_bytes()
    }

    fn free_effort(&self) -> usize {
        self.allocations()
    }

    fn unlinked(&self, db: c_int, key: &[u8]) {
        follower_table::bereave(db, key);
    }

    fn copied(&self) -> Option<Box<Self>> {
        Some(Box::new(Self(self.0.clone())))
    }
}
