//! ACL checks of keys that the server did not check: those that a setting names, for the user of the running command.

use super::api::api;
use super::command::KeyUse;
use super::{Ctx, RString, ServerString};
use redis_module::raw;
use std::ffi::c_int;

impl Ctx<'_> {
    /// Whether the caller may use the key in this way. Calls without a user (replication, AOF, other
    /// modules) may.
    pub fn may_use_key(self, key: &impl ServerString, how: KeyUse) -> bool {
        let Some(name) = self.user_name() else { return true };
        // SAFETY: the user is freed on the one path there is; a user deleted meanwhile is null.
        unsafe {
            let user = api!(RedisModule_GetModuleUserFromUserName(name.as_ptr()));
            if user.is_null() {
                return false;
            }
            let wanted = how.permission();
            let allowed = api!(RedisModule_ACLCheckKeyPermissions(user, key.as_ptr(), wanted));
            api!(RedisModule_FreeModuleUser(user));
            allowed == raw::REDISMODULE_OK as c_int
        }
    }

    /// The user for whom the running command runs; `None` where it comes from a primary, from the AOF, from
    /// another module: from nobody whom rules could hold back.
    fn user_name(self) -> Option<RString> {
        let state = self.state();
        if state.must_obey() {
            return None;
        }
        // SAFETY: the context is valid; the names are the caller's to free. A script runs as a client
        // that is in no list but always has a user; of every other client without a user the server
        // returns null here, where asking for the current user would crash it.
        unsafe {
            RString::from_owned_raw(if state.is_script() {
                api!(RedisModule_GetCurrentUserName(self.as_ptr()))
            } else {
                let client = api!(RedisModule_GetClientId(self.as_ptr()));
                api!(RedisModule_GetClientUserNameById(self.as_ptr(), client))
            })
        }
    }

    /// Whether a client asks, and not a primary or the AOF.
    pub(super) fn is_for_a_user(self) -> bool {
        self.user_name().is_some()
    }
}
