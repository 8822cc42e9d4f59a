//! The module API of the server: which functions it offers. The bindings are null until the server filled them in;
//! the ones every supported server has are checked once at load, newer ones each time they are wanted.

use redis_module::raw;
use redis_module::raw::RedisModuleCtx;
use std::ffi::{CStr, c_int};

/// Calls a function of the server that `probe` found at load. Use inside `unsafe`.
macro_rules! api {
    ($name:ident ( $($arg:expr),* $(,)? )) => {
        match raw::$name {
            Some(function) => function($($arg),*),
            None => $crate::ffi::api::unavailable(stringify!($name)),
        }
    };
}
pub(super) use api;

/// A function that `probe` vouched for was null after all: the module's load was skipped.
#[cold]
pub(super) fn unavailable(name: &str) -> ! {
    panic!("the server offers no {name}");
}

/// Fills in the bindings. First thing on load; false when the server refuses the module.
pub fn initialise(ctx: *mut RedisModuleCtx, name: &CStr, version: c_int) -> bool {
    // SAFETY: called from OnLoad with the context the server passed to it; the name is copied.
    let status = unsafe {
        let api_version = raw::REDISMODULE_APIVER_1 as c_int;
        raw::Export_RedisModule_Init(ctx, name.as_ptr(), version, api_version)
    };
    status == raw::REDISMODULE_OK as c_int
}

macro_rules! missing {
    ($($name:ident),* $(,)?) => {{
        // SAFETY: reading the bindings by value; they are written only by `initialise`, before.
        let offered = unsafe { [$((stringify!($name), {
            let function = raw::$name;
            function.is_some()
        })),*] };
        offered.into_iter().find(|(_, offered)| !offered).map(|(name, _)| name)
    }};
}

/// The first function that every supported server must have and this one lacks.
pub fn probe() -> Option<&'static str> {
    missing!(
        RedisModule_ACLCheckKeyPermissions,
        RedisModule_Alloc,
        RedisModule_BlockClient,
        RedisModule_Call,
        RedisModule_CallReplyStringPtr,
        RedisModule_Calloc,
        RedisModule_CallReplyType,
        RedisModule_CloseKey,
        RedisModule_CreateCommand,
        RedisModule_CreateDataType,
        RedisModule_CreateString,
        RedisModule_CreateTimer,
        RedisModule_DeleteKey,
        RedisModule_DigestAddStringBuffer,
        RedisModule_DigestEndSequence,
        RedisModule_EmitAOF,
        RedisModule_EventLoopAdd,
        RedisModule_EventLoopDel,
        RedisModule_Free,
        RedisModule_FreeCallReply,
        RedisModule_FreeModuleUser,
        RedisModule_FreeString,
        RedisModule_FreeThreadSafeContext,
        RedisModule_GetAbsExpire,
        RedisModule_GetBlockedClientHandle,
        RedisModule_GetBlockedClientPrivateData,
        RedisModule_GetClientId,
        RedisModule_GetClientUserNameById,
        RedisModule_GetCommand,
        RedisModule_GetContextFlags,
        RedisModule_GetContextFromIO,
        RedisModule_GetCurrentUserName,
        RedisModule_GetDbIdFromIO,
        RedisModule_GetDbIdFromModuleKey,
        RedisModule_GetDetachedThreadSafeContext,
        RedisModule_GetDbIdFromOptCtx,
        RedisModule_GetKeyNameFromIO,
        RedisModule_GetKeyNameFromModuleKey,
        RedisModule_GetKeyNameFromOptCtx,
        RedisModule_GetLFU,
        RedisModule_GetModuleUserFromUserName,
        RedisModule_GetRandomBytes,
        RedisModule_GetSelectedDb,
        RedisModule_HoldString,
        RedisModule_InfoAddFieldULongLong,
        RedisModule_InfoAddSection,
        RedisModule_IsIOError,
        RedisModule_IsModuleNameBusy,
        RedisModule_KeyType,
        RedisModule_LoadConfigs,
        RedisModule_LoadString,
        RedisModule_LoadStringBuffer,
        RedisModule_LoadUnsigned,
        RedisModule_Log,
        RedisModule_MallocSize,
        RedisModule_MallocSizeString,
        RedisModule_Milliseconds,
        RedisModule_ModuleTypeGetType,
        RedisModule_ModuleTypeGetValue,
        RedisModule_ModuleTypeSetValue,
        RedisModule_NotifyKeyspaceEvent,
        RedisModule_OpenKey,
        RedisModule_Realloc,
        RedisModule_PublishMessage,
        RedisModule_RegisterBoolConfig,
        RedisModule_RegisterEnumConfig,
        RedisModule_RegisterInfoFunc,
        RedisModule_RegisterNumericConfig,
        RedisModule_RegisterStringConfig,
        RedisModule_Replicate,
        RedisModule_ReplyWithArray,
        RedisModule_ReplyWithDouble,
        RedisModule_ReplyWithError,
        RedisModule_ReplyWithLongLong,
        RedisModule_ReplyWithMap,
        RedisModule_ReplyWithNull,
        RedisModule_ReplyWithSimpleString,
        RedisModule_ReplyWithString,
        RedisModule_ReplyWithStringBuffer,
        RedisModule_RetainString,
        RedisModule_SaveString,
        RedisModule_SaveStringBuffer,
        RedisModule_SaveUnsigned,
        RedisModule_Scan,
        RedisModule_ScanCursorCreate,
        RedisModule_ScanCursorDestroy,
        RedisModule_SelectDb,
        RedisModule_SetAbsExpire,
        RedisModule_SetCommandInfo,
        RedisModule_SetDisconnectCallback,
        RedisModule_SetLFU,
        RedisModule_SetLRU,
        RedisModule_SetModuleOptions,
        RedisModule_SignalModifiedKey,
        RedisModule_StopTimer,
        RedisModule_StringPtrLen,
        RedisModule_SubscribeToKeyspaceEvents,
        RedisModule_SubscribeToServerEvent,
        RedisModule_UnblockClient,
        RedisModule_UnlinkKey,
        RedisModule_ZsetAdd,
        RedisModule_ZsetFirstInScoreRange,
        RedisModule_ZsetLastInScoreRange,
        RedisModule_ZsetRangeCurrentElement,
        RedisModule_ZsetRangeEndReached,
        RedisModule_ZsetRangeNext,
        RedisModule_ZsetRangePrev,
        RedisModule_ZsetRangeStop,
        RedisModule_ZsetRem,
    )
}
