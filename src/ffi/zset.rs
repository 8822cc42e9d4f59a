//! Sorted sets of the server: members with scores, walked from the highest score down or from the
//! lowest up.

use super::api::api;
use super::key::Key;
use super::{RString, ServerString};
use redis_module::raw;
use std::ffi::c_int;

/// Which end a walk starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The lowest score.
    Lowest,
    /// The highest.
    Highest,
}

impl Key<'_> {
    /// Whether the key holds a sorted set.
    pub fn is_zset(&self) -> bool {
        // SAFETY: the key is open, here and below.
        let kind = unsafe { api!(RedisModule_KeyType(self.as_ptr())) };
        kind == raw::REDISMODULE_KEYTYPE_ZSET as c_int
    }

    /// Sets the score of a member; makes the set where the key is empty. Opened for `Write`; false
    /// where it holds something else.
    pub fn zset_add(&mut self, member: &impl ServerString, score: f64) -> bool {
        // SAFETY: key and member are valid; no flags are asked for or told.
        let status = unsafe {
            let none = std::ptr::null_mut();
            api!(RedisModule_ZsetAdd(self.as_ptr(), score, member.as_ptr(), none))
        };
        status == raw::REDISMODULE_OK as c_int
    }

    /// Removes a member; false where it was not there. The last one takes the key along.
    pub fn zset_remove(&mut self, member: &impl ServerString) -> bool {
        let mut removed = 0;
        // SAFETY: key and member are valid; the answer is written on success.
        let status =
            unsafe { api!(RedisModule_ZsetRem(self.as_ptr(), member.as_ptr(), &mut removed)) };
        status == raw::REDISMODULE_OK as c_int && removed == 1
    }

    /// Visits the members with scores below `below` until `visit` returns false. `visit` must leave
    /// the set alone.
    pub fn zset_walk(&self, from: From, below: f64, mut visit: impl FnMut(&RString, f64) -> bool) {
        let key = self.as_ptr();
        // SAFETY: the key is open and holds a sorted set, or starting fails; each member is the
        // caller's to free; the walk is stopped on the one path there is.
        unsafe {
            let low = f64::NEG_INFINITY;
            let started = match from {
                From::Lowest => api!(RedisModule_ZsetFirstInScoreRange(key, low, below, 0, 1)),
                From::Highest => api!(RedisModule_ZsetLastInScoreRange(key, low, below, 0, 1)),
            };
            if started != raw::REDISMODULE_OK as c_int {
                return;
            }
            while api!(RedisModule_ZsetRangeEndReached(key)) == 0 {
                let mut score = 0.0;
                let member = api!(RedisModule_ZsetRangeCurrentElement(key, &mut score));
                let go_on = RString::from_owned_raw(member).is_some_and(|m| visit(&m, score));
                let moved = go_on
                    && match from {
                        From::Lowest => api!(RedisModule_ZsetRangeNext(key)) != 0,
                        From::Highest => api!(RedisModule_ZsetRangePrev(key)) != 0,
                    };
                if !moved {
                    break;
                }
            }
            api!(RedisModule_ZsetRangeStop(key));
        }
    }
}
