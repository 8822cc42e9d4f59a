//! The head of a container in bytes, as RDB and the internal CREATE command hold it.
//!
//! Owns: its versions and what a loader refuses (`docs/formats.md`). Main thread; `save_head` also in the forked child.

use super::Cache;
use crate::cache::Settings;
use crate::cache::epochs::Epochs;
use crate::cache::maxerror::Audit;
use crate::cluster::hash_tag;
use crate::codec::{DecodeError, Writer, open_section};
use crate::ids::ContainerUid;
use crate::limits;

/// Section tag of a container's head.
pub const TAG_HEAD: u16 = 0x0101;

/// Version of a head whose settings are those of the first release.
const VERSION: u16 = 3;

/// Version of a head that has settings beyond those, behind all else.
const VERSION_EXTENDED: u16 = 4;

/// Version of a head that has the state of MAXERROR behind those.
const VERSION_AUDITED: u16 = 5;

impl Cache {
    /// Identity and settings as one section: the argument of the create command, the head of RDB.
    pub fn save_head(&self) -> Vec<u8> {
        self.head(true)
    }

    /// The same without what is this server's own: what a digest of the data set covers.
    pub fn shared_head(&self) -> Vec<u8> {
        self.head(false)
    }

    fn head(&self, is_whole: bool) -> Vec<u8> {
        let extensions = self.settings.extensions();
        let version = match (&self.audit, extensions.is_empty()) {
            (Some(_), _) => VERSION_AUDITED,
            (None, false) => VERSION_EXTENDED,
            (None, true) => VERSION,
        };
        let mut out = Writer::section(TAG_HEAD, version);
        out.u64(self.uid.0).bytes(&self.prefix).u64(self.next_seq);
        self.settings.write(&mut out);
        self.epochs.write(&mut out);
        Settings::write_extensions(&extensions, &mut out);
        if let Some(audit) = &self.audit {
            out.bytes(&audit.write(is_whole));
        }
        out.finish()
    }

    /// A cache without entries from a head; hostile bytes are refused.
    pub fn load_head(bytes: &[u8]) -> std::result::Result<Self, DecodeError> {
        let (tag, version, mut from) = open_section(bytes)?;
        if tag != TAG_HEAD || !(VERSION..=VERSION_AUDITED).contains(&version) {
            return Err(DecodeError("not a cache of a known version"));
        }
        let uid = ContainerUid(from.u64()?);
        let prefix: Box<[u8]> = from.bytes(2 * limits::CONTAINER_NAME_MAX_BYTES)?.into();
        let next_seq = from.u64()?;
        let mut settings = Settings::read(&mut from)?;
        let epochs = Epochs::read(&mut from, next_seq)?;
        if version >= VERSION_EXTENDED {
            settings.read_extensions(&mut from)?;
        }
        if settings.max_error.is_on() != (version == VERSION_AUDITED) {
            return Err(DecodeError("a promise without its evidence"));
        }
        let audit = match version {
            VERSION_AUDITED => {
                let state = from.bytes(limits::AUDIT_BYTES_MAX)?;
                Some(Box::new(Audit::read(state, settings.max_error, settings.threshold)?))
            }
            _ => None,
        };
        from.finish()?;
        let tail = format!(":{uid}:");
        let name_ok = prefix.strip_suffix(tail.as_bytes()).is_some_and(|name| !name.is_empty());
        if !name_ok || hash_tag(&prefix).is_none() || next_seq == 0 || next_seq > limits::SEQ_MAX {
            return Err(DecodeError("identity of a cache"));
        }
        Ok(Self { epochs, audit, ..Self::empty(uid, prefix, next_seq, settings) })
    }
}
