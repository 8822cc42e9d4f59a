//! The members of a JSON object, each still the text it is.
//!
//! Owns: reading an object without building its values, so that a document takes no more memory than a few times its
//! own length and nothing is copied that nobody asked for. Any thread.

use crate::limits::JSON_MEMBERS_MAX;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::fmt;

/// Names and values in the order of the text, [`JSON_MEMBERS_MAX`] at most; a name may occur twice.
#[derive(Debug, Default)]
pub(crate) struct Members<'a>(pub(crate) SmallVec<[(Cow<'a, str>, &'a RawValue); 8]>);

/// A string that is borrowed where it has no escape.
#[derive(Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = SmallVec::new();
                while let Some((Text(name), value)) = map.next_entry()? {
                    if members.len() == JSON_MEMBERS_MAX {
                        return Err(A::Error::custom("too many members"));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        from.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_text_and_names_are_borrowed_where_they_can_be() {
        let Members(members) =
            serde_json::from_str(r#"{"a": [1,  2], "\u00e9": null, "a": 3}"#).unwrap();
        let told: Vec<_> = members.iter().map(|(name, value)| (&**name, value.get())).collect();
        assert_eq!(told, [("a", "[1,  2]"), ("é", "null"), ("a", "3")]);
        assert!(matches!(members[0].0, Cow::Borrowed(_)));
        assert!(matches!(members[1].0, Cow::Owned(_)));
    }

    #[test]
    fn the_number_of_members_has_a_limit() {
        let object = |count| format!("{{{}}}", vec![r#""a":0"#; count].join(","));
        assert!(serde_json::from_str::<Members<'_>>(&object(JSON_MEMBERS_MAX)).is_ok());
        let error = serde_json::from_str::<Members<'_>>(&object(JSON_MEMBERS_MAX + 1)).unwrap_err();
        assert!(error.to_string().contains("too many members"), "{error}");
        assert!(serde_json::from_str::<Members<'_>>("[]").is_err());
    }
}
