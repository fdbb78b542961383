//! Landlock, by which processes take access from themselves (landlock(7)).

/// `LANDLOCK_CREATE_RULESET_VERSION`: asks for the version, and makes nothing.
const VERSION: libc::c_uint = 1;

/// Whether this kernel has it switched on.
pub(crate) fn is_on() -> bool {
    let nothing: *const libc::c_void = std::ptr::null();
    // SAFETY: with this flag the call takes no attributes, and returns a number.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0usize, VERSION) };
    version > 0
}
