//! The name that a container's settings give to the model which embeds its texts.
//!
//! Main thread only.

use llmcache_core::cache::Settings;

/// The model of a container as its settings name it: `name@digest`, and `/any` where every script is embedded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelId {
    pub(super) name: String,
    pub(super) digest: String,
    pub(super) any_script: bool,
}

/// What follows the digest where texts of every script are embedded.
const ANY_SCRIPT: &str = "/any";

impl ModelId {
    /// The model that a container's settings name, if texts are embedded for it.
    pub fn of(settings: &Settings) -> Option<Self> {
        Self::parse(&settings.model)
    }

    /// The model of such a text; `None` of one that names none.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (text, any_script) = match text.strip_suffix(ANY_SCRIPT) {
            Some(text) => (text, true),
            None => (text, false),
        };
        let (name, digest) = text.rsplit_once('@')?;
        let is_digest = digest.len() == 32 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_digest.then(|| Self { name: name.into(), digest: digest.into(), any_script })
    }

    /// As settings keep it.
    pub fn text(&self) -> Box<[u8]> {
        let Self { name, digest, any_script } = self;
        let any = if *any_script { ANY_SCRIPT } else { "" };
        format!("{name}@{digest}{any}").into_bytes().into()
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
