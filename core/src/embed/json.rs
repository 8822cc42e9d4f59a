//! JSON of a model's folder, which is hostile: read without ever building more than what is asked for.
//!
//! Owns: bounded access to members. A value stays the text it is until somebody asks for it, so that no document
//! takes more memory than a few times its own length.

use crate::error::{Error, Result};
use crate::members::{Members, Text};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// An object whose values were not read yet.
#[derive(Debug, Default)]
pub(super) struct Object<'a> {
    /// How errors call the document.
    of: &'a str,
    members: Members<'a>,
}

impl<'a> Object<'a> {
    pub(super) fn parse(of: &'a str, text: &'a [u8]) -> Result<Self> {
        let members =
            serde_json::from_slice(text).map_err(|error| Error::err(format!("{of}: {error}")))?;
        Ok(Self { of, members })
    }

    pub(super) fn members(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.members.0.iter().map(|(name, value)| (name.as_ref(), *value))
    }

    /// The text of a member that is there and not null.
    pub(super) fn raw(&self, name: &str) -> Option<&'a str> {
        let (_, value) = self.members.0.iter().find(|(other, _)| other == name)?;
        (value.get() != "null").then(|| value.get())
    }

    /// A member; `None` where it is absent or null.
    pub(super) fn get<T: Deserialize<'a>>(&self, name: &str) -> Result<Option<T>> {
        let Some(text) = self.raw(name) else { return Ok(None) };
        let wrong = |error| Error::err(format!("{}: {name}: {error}", self.of));
        serde_json::from_str(text).map(Some).map_err(wrong)
    }

    /// A member that must be there.
    pub(super) fn need<T: Deserialize<'a>>(&self, name: &str) -> Result<T> {
        self.get(name)?.ok_or_else(|| Error::err(format!("{}: {name} is missing", self.of)))
    }

    /// A text of at most a kilobyte.
    pub(super) fn text(&self, name: &str) -> Result<Option<Cow<'a, str>>> {
        match self.raw(name) {
            Some(text) if text.len() > 1_024 => {
                Err(Error::err(format!("{}: {name} is too long", self.of)))
            }
            _ => Ok(self.get::<Text<'a>>(name)?.map(|text| text.0)),
        }
    }

    /// An object inside this one; an empty one where it is absent.
    pub(super) fn object(&self, name: &str) -> Result<Self> {
        let Some(text) = self.raw(name) else {
            return Ok(Self { of: self.of, members: Members::default() });
        };
        Self::parse(self.of, text.as_bytes())
    }
}

/// Calls `each` with the members of an object of numbers, one after the other.
pub(super) fn each_number(
    text: &str,
    each: impl FnMut(&str, u32) -> std::result::Result<(), &'static str>,
) -> std::result::Result<(), serde_json::Error> {
    struct Seen<F>(F);
    impl<'de, F: FnMut(&str, u32) -> std::result::Result<(), &'static str>> Visitor<'de> for Seen<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of numbers")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> std::result::Result<(), A::Error> {
            while let Some((Text(name), number)) = map.next_entry()? {
                (self.0)(&name, number).map_err(A::Error::custom)?;
            }
            Ok(())
        }
    }
    serde_json::Deserializer::from_str(text).deserialize_map(Seen(each))
}

/// Calls `each` with the values of an array, each still a text, one after the other.
pub(super) fn each_value<'a>(
    text: &'a str,
    each: impl FnMut(&'a RawValue) -> std::result::Result<(), &'static str>,
) -> std::result::Result<(), serde_json::Error> {
    struct Seen<F>(F);
    impl<'de, F: FnMut(&'de RawValue) -> std::result::Result<(), &'static str>> Visitor<'de>
        for Seen<F>
    {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> std::result::Result<(), A::Error> {
            while let Some(value) = seq.next_element()? {
                (self.0)(value).map_err(A::Error::custom)?;
            }
            Ok(())
        }
    }
    serde_json::Deserializer::from_str(text).deserialize_seq(Seen(each))
}
