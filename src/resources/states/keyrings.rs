//! Keys in keyrings of a thread, a process or a session (keyrings(7)). A restore makes none of
//! them: restored processes have the keyrings that LXC gives to those of a container that it
//! starts.

use crate::sys::inject::Page;
use crate::sys::keys::{self, Ring};

/// What systemd puts into the session of each service. Its own programs find it in their
/// environment first.
const OF_SYSTEMD: &str = "user invocation_id";
/// Users' keyrings are linked into sessions, and are there after a restore.
const OF_USERS: [&str; 2] = ["keyring _uid.", "keyring _uid_ses."];

/// The names of those that a process has for itself, in short: "user cache of its session".
pub(crate) fn of_process(page: &Page<'_>) -> Vec<String> {
    let rings = [(Ring::Thread, "thread"), (Ring::Process, "process"), (Ring::Session, "session")];
    let mut found = Vec::new();
    for (ring, whose) in rings {
        let payload = keys::serial_of(page, ring).and_then(|serial| keys::read(page, serial));
        let members = payload.iter().flat_map(|payload| keys::members(payload));
        let names = members.filter_map(|serial| Some(keys::describe(page, serial)?.name()));
        found.extend(
            names.filter(|name| !is_made_again(name)).map(|name| format!("{name} of its {whose}")),
        );
    }
    found
}

fn is_made_again(name: &str) -> bool {
    name == OF_SYSTEMD || OF_USERS.iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_service_has_is_not_named() {
        assert!(is_made_again("user invocation_id") && is_made_again("keyring _uid.1000"));
        assert!(!is_made_again("user cache") && !is_made_again("logon ext4:0123"));
    }
}
