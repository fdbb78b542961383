//! The table of commands: what is answered to a request.
//!
//! `LXC-COMMAND-PROTOCOL.md` §3 is its source: what the monitors of LXC 5.0, 6.0 and 7.0 were seen
//! to answer.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;

use super::connection::{Answer, Held, Request};
use super::{Hierarchy, MAX_HELD, Served, Server};
use crate::lxc::protocol::{
    CGROUP_CTX_LEN, CGROUP_CTX_MAX_FD, CgroupCtx, CgroupFd, Command, ConsoleLog, DeviceItem,
    HierarchyKind, Layout, MAX_STATE, PAYLOAD_MAX, State, UTILITY_DEVICES, UTILITY_FREEZER,
    c_string, decode_wanted, to_c_string,
};

/// What LXC says where it has no errno.
const FAILED: i32 = -1;

/// What becomes of a connection after its request.
#[derive(Debug)]
pub(super) enum Response<'a> {
    /// Closed without a word.
    Close,
    /// Answered and closed.
    Say(Answer<'a>),
    /// Answered, if there is something to say, and kept.
    Hold(Held, Option<Answer<'a>>),
}

/// Which of the container's two cgroups is meant.
#[derive(Clone, Copy)]
enum Which {
    Container,
    Limit,
}

impl Server {
    /// Does what a request asks and says what to answer.
    pub(super) fn answer<'a>(
        &mut self,
        served: &'a mut dyn Served,
        request: &Request,
    ) -> Response<'a> {
        let Some(command) = Command::from_number(request.number) else {
            return refuse(Errno::ENOSYS);
        };
        let payload = request.payload.as_slice();
        match command {
            Command::GetTtyFd => self.tty(served, request.value),
            Command::TerminalWinch => {
                served.window_changed();
                Response::Close
            }
            Command::Stop => match served.on_stop() {
                Ok(()) => Response::Hold(Held::Stop, None),
                Err(e) => refuse(errno(&e)),
            },
            Command::GetState => value(self.state().number()),
            Command::GetInitPid => value(served.init_pid().as_raw()),
            Command::GetCloneFlags => value(served.clone_flags().cast_signed()),
            Command::GetCgroup => cgroup(served, payload, Which::Container),
            Command::GetLimitCgroup => cgroup(served, payload, Which::Limit),
            Command::GetConfigItem => {
                // A NUL-terminated key or nothing: what HEAD of LXC checks, and 7.0 died of.
                let item = c_string(payload)
                    .and_then(|key| served.config_item(key))
                    .filter(|v| !v.is_empty());
                item.map_or_else(|| say_code(FAILED), |v| text(&v))
            }
            Command::GetName => text(self.name()),
            Command::GetLxcpath => text(self.lxcpath()),
            Command::AddStateClient => self.add_state_client(payload),
            Command::ConsoleLog => match ConsoleLog::decode(payload)
                .map(|asked| served.console_log(asked))
            {
                None => refuse(Errno::EINVAL),
                Some(None) => refuse(Errno::EFAULT),
                Some(Some(Err(errno))) => refuse(errno),
                Some(Some(Ok(payload))) => Response::Say(Answer { payload, ..Answer::default() }),
            },
            Command::ServeStateClients => match State::from_number(request.value) {
                Some(state) => {
                    // The client that changed the state tells the fifo itself.
                    self.tell_clients(state);
                    done()
                }
                None => refuse(Errno::EINVAL),
            },
            // No container of ours has a seccomp proxy.
            Command::SeccompNotifyAddListener => refuse(Errno::EINVAL),
            Command::AddBpfDeviceCgroup => match DeviceItem::decode(payload) {
                Some(rule) => {
                    served.add_device_rule(&rule).map_or_else(|_| say_code(FAILED), |()| done())
                }
                None => refuse(Errno::EINVAL),
            },
            Command::Freeze | Command::Unfreeze if served.layout() != Layout::Unified => {
                refuse(Errno::ENOENT)
            }
            Command::Freeze => {
                let frozen = served.freeze(limit(request.value));
                self.changed(frozen, State::Frozen)
            }
            Command::Unfreeze => {
                let thawed = served.unfreeze(limit(request.value));
                self.changed(thawed, State::Thawed)
            }
            Command::GetCgroup2Fd if served.layout() != Layout::Unified => refuse(Errno::EINVAL),
            Command::GetCgroup2Fd => descriptor(unified(served).and_then(|h| h.fd)),
            Command::GetLimitCgroup2Fd if served.layout() != Layout::Unified => {
                refuse(Errno::EINVAL)
            }
            Command::GetLimitCgroup2Fd => descriptor(unified(served).and_then(|h| h.limit_fd)),
            Command::GetInitPidfd => descriptor(served.init_pidfd()),
            Command::GetDevptsFd => descriptor(served.devpts_fd()),
            Command::GetSeccompNotifyFd => descriptor(served.seccomp_notify_fd()),
            Command::GetCgroupCtx => cgroup_ctx(served, payload.len()),
            // LXC has these two the wrong way round; nobody depends on it.
            Command::GetCgroupFd => cgroup_fd(served, payload, Which::Container),
            Command::GetLimitCgroupFd => cgroup_fd(served, payload, Which::Limit),
            Command::GetSystemdScope => match served.systemd_scope() {
                Some(scope) => text(&scope),
                None => refuse(Errno::EINVAL),
            },
        }
    }

    /// Lends a tty until the client closes its connection.
    fn tty<'a>(&self, served: &'a mut dyn Served, wanted: i32) -> Response<'a> {
        let busy: Vec<i32> = self.lent_ttys().collect();
        let number = match wanted {
            -1 => (1..=served.tty_count()).find(|n| !busy.contains(n)),
            n => Some(n).filter(|n| (0..=served.tty_count()).contains(n) && !busy.contains(n)),
        };
        if number.is_some() && self.held_count() >= MAX_HELD {
            return refuse(Errno::EMFILE);
        }
        match number.and_then(|n| Some((n, served.lend_tty(n)?))) {
            Some((n, fd)) => {
                let answer = Answer { value: n, fds: vec![fd], ..Answer::default() };
                Response::Hold(Held::Tty(n), Some(answer))
            }
            None => refuse(Errno::EBADF),
        }
    }

    fn add_state_client<'a>(&self, payload: &[u8]) -> Response<'a> {
        let Some(wanted) = decode_wanted(payload) else { return refuse(Errno::EINVAL) };
        // To drop an older one instead would tell it that the container has stopped.
        if self.held_count() >= MAX_HELD {
            return refuse(Errno::EMFILE);
        }
        let now = wanted.get(self.state().index()) == Some(&1);
        let (held, number) = if now {
            (Held::Told, self.state().number())
        } else {
            (Held::StateClient(wanted), MAX_STATE)
        };
        Response::Hold(held, Some(Answer { code: number, value: number, ..Answer::default() }))
    }

    fn changed<'a>(&mut self, result: io::Result<()>, state: State) -> Response<'a> {
        match result {
            Ok(()) => {
                self.set_state(state);
                done()
            }
            Err(e) => refuse(errno(&e)),
        }
    }
}

fn say_code<'a>(code: i32) -> Response<'a> {
    Response::Say(Answer { code, ..Answer::default() })
}

fn done<'a>() -> Response<'a> {
    say_code(0)
}

fn refuse<'a>(errno: Errno) -> Response<'a> {
    say_code(-(errno as i32))
}

fn value<'a>(value: i32) -> Response<'a> {
    Response::Say(Answer { value, ..Answer::default() })
}

/// A text with its NUL. One that the client could not take is refused, not cut; so is one with a
/// NUL inside, of which the client would see the beginning only.
fn text<'a>(text: &str) -> Response<'a> {
    if text.len() >= PAYLOAD_MAX || text.contains('\0') {
        return say_code(FAILED);
    }
    Response::Say(Answer { payload: to_c_string(text), ..Answer::default() })
}

fn descriptor(fd: Option<BorrowedFd<'_>>) -> Response<'_> {
    match fd {
        Some(fd) => Response::Say(Answer { fds: vec![fd], ..Answer::default() }),
        None => refuse(Errno::EBADF),
    }
}

fn errno(e: &io::Error) -> Errno {
    // Never 0: a client would take it for success.
    e.raw_os_error()
        .map(Errno::from_raw)
        .filter(|e| *e != Errno::UnknownErrno)
        .unwrap_or(Errno::EIO)
}

/// A client's time limit in milliseconds; -1 is none.
fn limit(value: i32) -> Option<Duration> {
    u64::try_from(value).ok().map(Duration::from_millis)
}

/// The path of the cgroup in a controller's hierarchy. An unknown controller gets no answer; no
/// controller means the unified hierarchy if that one has none.
fn cgroup<'a>(served: &dyn Served, payload: &[u8], which: Which) -> Response<'a> {
    let controller = match c_string(payload) {
        Some(name) => Some(name),
        None if payload.is_empty() => None,
        None => return refuse(Errno::EINVAL),
    };
    let found = served.hierarchies().into_iter().find(|h| match controller {
        Some(name) => h.controllers.iter().any(|c| c == name),
        None => h.kind == HierarchyKind::V2 && h.controllers.is_empty(),
    });
    match (found, which) {
        (Some(h), Which::Container) => text(&h.path),
        (Some(h), Which::Limit) => text(&h.limit_path),
        (None, _) => Response::Close,
    }
}

fn unified(served: &dyn Served) -> Option<Hierarchy<'_>> {
    served.hierarchies().into_iter().find(|h| h.kind == HierarchyKind::V2)
}

/// What can be done by cgroup2 alone. On hybrid hosts v1 has these controllers.
fn utilities(served: &dyn Served) -> u32 {
    if served.layout() != Layout::Unified {
        return 0;
    }
    let controllers = unified(served).map(|h| h.controllers).unwrap_or_default();
    let bit = |name: &str, bit| if controllers.iter().any(|c| c == name) { bit } else { 0 };
    bit("devices", UTILITY_DEVICES) | bit("freezer", UTILITY_FREEZER)
}

/// The container's cgroup in each hierarchy. Without any, the structure is sent all the same, with
/// an error.
fn cgroup_ctx(served: &dyn Served, asked: usize) -> Response<'_> {
    if asked == 0 {
        return refuse(Errno::EINVAL);
    }
    let fds: Vec<BorrowedFd<'_>> =
        served.hierarchies().into_iter().filter_map(|h| h.fd).take(CGROUP_CTX_MAX_FD).collect();
    let ctx = CgroupCtx {
        layout: served.layout() as i32,
        utilities: utilities(served),
        fds: fds.iter().map(AsRawFd::as_raw_fd).collect(),
    };
    let mut payload = ctx.encode().to_vec();
    // A client with a shorter structure gets the front of ours.
    payload.truncate(asked.min(CGROUP_CTX_LEN));
    let code = if fds.is_empty() { -(Errno::ENOENT as i32) } else { 0 };
    Response::Say(Answer { code, payload, fds, ..Answer::default() })
}

/// The cgroup in the hierarchy of one controller.
fn cgroup_fd<'a>(served: &'a dyn Served, payload: &[u8], which: Which) -> Response<'a> {
    let request = CgroupFd::decode(payload);
    if request.controller.is_empty() {
        return refuse(Errno::EINVAL);
    }
    let found =
        served.hierarchies().into_iter().find(|h| h.controllers.contains(&request.controller));
    let Some(hierarchy) = found else { return refuse(Errno::ENOENT) };
    if request.kind != 0 && request.kind != hierarchy.kind as i32 {
        return refuse(Errno::EINVAL);
    }
    let fd = match which {
        Which::Container => hierarchy.fd,
        Which::Limit => hierarchy.limit_fd,
    };
    let Some(fd) = fd else { return refuse(Errno::ENOENT) };
    let answer = CgroupFd {
        layout: served.layout() as i32,
        utilities: utilities(served),
        kind: hierarchy.kind as i32,
        fd: fd.as_raw_fd(),
        controller: request.controller,
    };
    let mut bytes = answer.encode().to_vec();
    bytes.truncate(payload.len());
    Response::Say(Answer { payload: bytes, fds: vec![fd], ..Answer::default() })
}
