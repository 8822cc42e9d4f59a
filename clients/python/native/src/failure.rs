//! Why a command came to nothing.
//!
//! Owns: the kinds that are told apart, since a connection goes on after some of them. Any thread.

use std::io::{Error, ErrorKind};
use std::time::Duration;

/// Why something came to nothing.
pub enum Failure {
    /// The server answered an error; the connection is where it was.
    Refused(String),
    /// The connection is of no use any more.
    Lost(String),
    /// So it is, because nothing came in time.
    Late(String),
}

impl Failure {
    /// What came is no reply.
    pub fn broken(what: &str) -> Self {
        Self::Lost(format!("the server answered {what}"))
    }

    /// What a call of the operating system failed with, which may wait for so long.
    pub fn of(error: &Error, timeout: Duration) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                Self::Late(format!("nothing moved for {} s", timeout.as_secs_f64()))
            }
            _ => Self::Lost(error.to_string()),
        }
    }

    /// In words.
    pub fn text(&self) -> &str {
        match self {
            Self::Refused(text) | Self::Lost(text) | Self::Late(text) => text,
        }
    }

    /// The first word of an error of the server: `OOM`, `BUSY`, `NOPERM`.
    pub fn word(&self) -> &str {
        match self {
            Self::Refused(text) => text.split(' ').next().unwrap_or_default(),
            _ => "",
        }
    }
}
