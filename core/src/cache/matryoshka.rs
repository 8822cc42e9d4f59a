//! The setting MATRYOSHKA: which dimensions the index compares, and what it keeps of a vector by it.
//!
//! Owns: its bounds. Main thread only.

use super::Settings;
use crate::error::{Error, Result};
use crate::limits;
use crate::vector::StoredVector;
use crate::vector::fine::OwnPlane;
use crate::vector::quantise::Code;

impl Settings {
    /// Refuses a number of dimensions that cannot be the first of all.
    pub(super) fn check_matryoshka(&self) -> Result<()> {
        let Some(dims) = self.matryoshka else { return Ok(()) };
        let (step, max) = (limits::MATRYOSHKA_STEP, limits::DIM_MAX - limits::MATRYOSHKA_STEP);
        if !dims.is_multiple_of(step) || !(step..=max).contains(&dims) || !self.kind.is_searched() {
            let message =
                format!("MATRYOSHKA must be a multiple of {step} between {step} and {max}");
            return Err(Error::err(message));
        }
        match self.dim {
            Some(dim) if dim <= dims => Err(Error::err(format!(
                "MATRYOSHKA must be less than DIM, {dims} is not less than {dim}"
            ))),
            _ => Ok(()),
        }
    }

    /// Whether vectors of so many dimensions may come in.
    pub fn takes_dim(&self, dim: u32) -> bool {
        self.dim.is_none_or(|own| own == dim) && self.matryoshka.is_none_or(|dims| dims < dim)
    }

    /// Dimensions of the codes that the index holds, once that of the vectors is known.
    pub fn code_dim(&self) -> Option<u32> {
        self.dim.map(|dim| self.matryoshka.unwrap_or(dim))
    }

    /// What the index keeps of a vector: its code, and its fine plane where it has one. `None` where the first dimensions
    /// are compared, and are zeros.
    pub fn code_of(&self, vector: &StoredVector<'_>) -> Option<(Code, Option<OwnPlane>)> {
        match self.matryoshka {
            None => Some(vector.code_and_plane()),
            // What is named is compared with whole vectors: a plane of the prefix would decide nothing.
            Some(dims) => vector.prefix_code(dims as usize).map(|code| (code, None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Kind;
    use crate::codec::{Writer, open_section};

    #[test]
    fn the_first_dimensions_are_fewer_than_all() {
        let of =
            |matryoshka, dim| Settings { matryoshka: Some(matryoshka), dim, ..Settings::default() };
        for (dims, dim, is_valid) in [
            (32, None, true),
            (256, Some(257), true),
            (256, Some(256), false),
            (512, Some(384), false),
            (0, None, false),
            (16, None, false),
            (100, Some(384), false),
            (limits::DIM_MAX - 32, Some(limits::DIM_MAX), true),
            (limits::DIM_MAX, None, false),
        ] {
            let settings = of(dims, dim);
            assert_eq!(settings.check().is_ok(), is_valid, "{dims} of {dim:?}");
            let mut out = Writer::section(1, 1);
            settings.write(&mut out);
            Settings::write_extensions(&settings.extensions(), &mut out);
            let bytes = out.finish();
            let (_, _, mut body) = open_section(&bytes).unwrap();
            let read =
                Settings::read(&mut body).and_then(|mut read| read.read_extensions(&mut body));
            assert_eq!(read.is_ok(), is_valid, "{dims} of {dim:?}");
        }
        let embeddings = Settings { kind: Kind::Embeddings, ..of(32, Some(64)) };
        assert!(embeddings.check().is_err(), "nothing searches them");
        assert_eq!(of(128, Some(384)).code_dim(), Some(128));
        assert_eq!([of(128, None).takes_dim(128), of(128, None).takes_dim(129)], [false, true]);
    }
}
