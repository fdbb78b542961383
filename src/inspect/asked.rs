//! What only a task itself can read: it is held for a moment and makes the calls.
//!
//! [`Snapshot::asked`] has these states and no others. It cannot be done while the container is
//! frozen, or while CRIU holds it: it is done with a container that runs, before it is frozen, and
//! with a restored one whose tasks are stopped.

mod calls;

use std::collections::BTreeSet;
use std::io;

use super::compare::near;
use super::family::Family;
use super::keys;
use super::proc::{Thread, digest, field, threads};
use super::snapshot::{Snapshot, Standing, Values};
use super::state::{Class, PutBack, State, states};
use super::timers::RUNS_ON;
use crate::sys::inject::{self, Page, Stopped};
use calls::{CALLS, How};

/// States that tasks are asked for; nothing of it is read by [`Snapshot::of`].
pub(crate) const FAMILY: Family = Family { name: "asked", states: rows, read: |_, _| {} };

states! { own_rows;
    ASKED = "asked", PutBack::Criu, Class::Varies, "whether it could be asked depends on who else holds it";
    ITIMER_REAL = "itimer.real", PutBack::Criu, Class::Breaks, "an alarm comes too early, too late or never";
    ITIMER_VIRTUAL = "itimer.virtual", PutBack::Criu, Class::Breaks, "an alarm comes too early, too late or never";
    ITIMER_PROF = "itimer.prof", PutBack::Criu, Class::Breaks, "an alarm comes too early, too late or never";
    TIMER_INTERVAL = "timer.interval", PutBack::Criu, Class::Breaks, "it expires more or less often";
    TIMER_ARMED = "timer.armed", PutBack::Criu, Class::Breaks, "it never expires";
    TIMER_REMAINING = "timer.remaining", PutBack::Criu, Class::Breaks, "it expires too early or too late";
    SIGNAL_STACK = "signal-stack", PutBack::Criu, Class::Breaks, "a handler runs on another stack";
    NUMA_POLICY = "numa-policy", PutBack::Us, Class::Bearable, "it gets memory of other nodes";
    RSEQ = "rseq", PutBack::Criu, Class::Breaks, "restartable sequences are not restarted";
    USER_DISPATCH = "syscall-user-dispatch", PutBack::Cannot("CRIU does not save it"), Class::Breaks, "system calls that it emulates reach the kernel";
    FILTERS = "seccomp.programs", PutBack::Criu, Class::Weakens, "forbidden system calls are allowed";
}

fn rows() -> Vec<&'static State> {
    own_rows()
        .into_iter()
        .chain(CALLS.iter().map(|call| &call.state))
        .chain(keys::asked_rows())
        .collect()
}

impl Snapshot {
    /// Asks each thread; those that cannot be asked are noted.
    pub fn asked(standing: &Standing) -> Snapshot {
        let mut snapshot = Snapshot::new();
        let mut processes = BTreeSet::new();
        for thread in threads(standing) {
            let is_first = processes.insert(thread.pid);
            match inject::with(thread.host_tid, |stopped| answers(&thread, is_first, stopped)) {
                Ok(answers) => {
                    snapshot.enter(thread.subject(), &ASKED, "yes");
                    answers
                        .into_iter()
                        .for_each(|(subject, state, value)| snapshot.enter(subject, state, value));
                }
                Err(e) => snapshot.miss(thread.subject(), &ASKED, e),
            }
        }
        snapshot
    }
}

fn answers(thread: &Thread, is_first: bool, stopped: &Stopped) -> io::Result<Values> {
    let mut found = Values::new();
    let page = stopped.page()?;
    for call in CALLS {
        if (call.of_process && !is_first) || !call.is_here() {
            continue;
        }
        let subject = if call.of_process { thread.process() } else { thread.subject() };
        // An old kernel, or one for another processor, does not know some of them.
        if let Ok(value) = result_of(call, &page) {
            found.push((subject, &call.state, value));
        }
    }
    of_signal_stack(thread, &page, &mut found)?;
    of_policy(thread, &page, &mut found);
    of_tracer(thread, stopped, &mut found)?;
    if is_first {
        of_interval_timers(thread, &page, &mut found)?;
        of_timers(thread, &page, &mut found)?;
    }
    keys::ask(thread, is_first, &page, &mut found);
    page.give_back()?;
    Ok(found)
}

fn result_of(call: &calls::Call, page: &Page<'_>) -> io::Result<String> {
    let mut buffer = [0u8; 8];
    let arguments = |at| match call.how {
        How::Returned => vec![call.first, call.second, 0, 0, 0],
        How::Number | How::Long => vec![call.first, at, 0, 0, 0],
    };
    let result = page.call(call.number, &mut buffer, arguments)?;
    Ok(match call.how {
        How::Returned => format!("{result:#x}"),
        How::Number => i32::from_ne_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]).to_string(),
        How::Long => format!("{:#x}", u64::from_ne_bytes(buffer)),
    })
}

/// A number of 8 bytes.
fn long(buffer: &[u8], at: usize) -> i64 {
    buffer.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, i64::from_ne_bytes)
}

fn of_signal_stack(thread: &Thread, page: &Page<'_>, found: &mut Values) -> io::Result<()> {
    let mut stack = [0u8; 24];
    page.call(libc::SYS_sigaltstack, &mut stack, |at| vec![0, at])?;
    // Whether it runs on it right now is no setting.
    const ON_STACK: i64 = 1;
    let flags = (long(&stack, 8) & 0xffff_ffff) & !ON_STACK;
    let value = format!("{:#x} {:#x} {}", long(&stack, 0), flags, long(&stack, 16));
    found.push((thread.subject(), &SIGNAL_STACK, value));
    Ok(())
}

fn of_policy(thread: &Thread, page: &Page<'_>, found: &mut Values) {
    const NODES: u64 = 1024;
    let mut buffer = [0u8; 8 + NODES as usize / 8];
    // A kernel without NUMA has no such call.
    if page.call(libc::SYS_get_mempolicy, &mut buffer, |at| vec![at, at + 8, NODES, 0, 0]).is_ok() {
        let mode = long(&buffer, 0) & 0xffff_ffff;
        let nodes: Vec<String> = (0..NODES as usize)
            .filter(|n| buffer[8 + n / 8] & 1 << (n % 8) != 0)
            .map(|n| n.to_string())
            .collect();
        found.push((
            thread.subject(),
            &NUMA_POLICY,
            format!("mode {mode:#x} nodes {}", nodes.join(",")),
        ));
    }
}

/// What ptrace(2) says of a thread that it holds.
fn of_tracer(thread: &Thread, stopped: &Stopped, found: &mut Values) -> io::Result<()> {
    if let Some((address, size, signature)) = stopped.rseq()? {
        found.push((thread.subject(), &RSEQ, format!("{address:#x} {size} {signature:#x}")));
    }
    if let Some(dispatch) = stopped.user_dispatch()? {
        found.push((thread.subject(), &USER_DISPATCH, format!("{dispatch:x?}")));
    }
    let filters = stopped.seccomp_filters()?;
    if !filters.is_empty() {
        let digests: Vec<String> = filters.iter().map(|code| digest(code)).collect();
        found.push((thread.subject(), &FILTERS, digests.join("\n")));
    }
    Ok(())
}

/// `struct itimerval` or `struct itimerspec`: interval and remaining time in seconds.
fn interval_and_value(buffer: &[u8; 32], unit: f64) -> (f64, f64) {
    let seconds = |at| long(buffer, at) as f64 + long(buffer, at + 8) as f64 / unit;
    (seconds(0), seconds(16))
}

/// Off, or what remains and how it goes on.
fn running(interval: f64, value: f64) -> String {
    match value {
        0.0 => "off".to_owned(),
        value if value < RUNS_ON && interval == 0.0 => "soon".to_owned(),
        value => format!("every {interval:.6} in {}", near(value, RUNS_ON.max(interval))),
    }
}

fn of_interval_timers(thread: &Thread, page: &Page<'_>, found: &mut Values) -> io::Result<()> {
    for (which, state) in [(0, &ITIMER_REAL), (1, &ITIMER_VIRTUAL), (2, &ITIMER_PROF)] {
        let mut buffer = [0u8; 32];
        page.call(libc::SYS_getitimer, &mut buffer, |at| vec![which, at])?;
        let (interval, value) = interval_and_value(&buffer, 1e6);
        found.push((thread.process(), state, running(interval, value)));
    }
    Ok(())
}

fn of_timers(thread: &Thread, page: &Page<'_>, found: &mut Values) -> io::Result<()> {
    let text = thread.file("timers")?;
    let ids = text.lines().filter_map(|line| field(line, "ID")?.parse::<u64>().ok());
    for id in ids.collect::<BTreeSet<_>>() {
        let mut buffer = [0u8; 32];
        page.call(libc::SYS_timer_gettime, &mut buffer, |at| vec![id, at])?;
        let (interval, value) = interval_and_value(&buffer, 1e9);
        found.push((thread.process(), &TIMER_INTERVAL, format!("{id}: {interval:.9}")));
        // One that is to expire once and soon may have expired when it is asked again.
        let is_armed = if value > RUNS_ON || interval > 0.0 {
            (value > 0.0).to_string()
        } else {
            "soon or off".to_owned()
        };
        found.push((thread.process(), &TIMER_ARMED, format!("{id}: {is_armed}")));
        if value > RUNS_ON || (value > 0.0 && interval > 0.0) {
            found.push((
                thread.process(),
                &TIMER_REMAINING,
                format!("{id}: {}", near(value, RUNS_ON.max(interval))),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Subject;
    use super::*;

    #[test]
    fn a_child_is_asked_and_goes_on() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let pid = child.id().cast_signed();
        let is_in = |number: libc::c_long| {
            let call = std::fs::read_to_string(format!("/proc/{pid}/syscall"));
            call.is_ok_and(|call| call.starts_with(&format!("{number} ")))
        };
        while !is_in(libc::SYS_clock_nanosleep) && !is_in(libc::SYS_pause) {
            std::thread::yield_now();
        }
        let standing = Standing { init: pid, tasks: vec![pid] };
        let (one, other) = (Snapshot::asked(&standing), Snapshot::asked(&standing));
        assert!(one.unread().is_empty(), "{:?}", one.unread());
        let value = |name, subject| {
            one.value(&subject, super::super::state::by_name(name).unwrap()).map(str::to_owned)
        };
        assert_eq!(value("mdwe", Subject::Task { pid }).as_deref(), Some("0x0"));
        assert_eq!(value("itimer.real", Subject::Task { pid }).as_deref(), Some("off"));
        assert!(value("tid-address", Subject::Thread { pid, tid: pid }).is_some());
        let differences = super::super::compare(&one, &other);
        assert!(differences.is_empty(), "{differences:?}");
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_is_soon_over_is_not_compared() {
        assert_eq!(running(0.0, 0.0), "off");
        assert_eq!(running(0.0, 1.5), "soon");
        assert!(running(0.0, 100.0).starts_with("every 0.000000 in"));
    }
}
