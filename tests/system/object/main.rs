//! A program that has kernel objects of one kind, and says over TCP whether they are as it made
//! them.
//!
//! `object KIND PORT [ARGUMENT]` makes them and listens; each line `check` is answered by `ok …` or
//! `wrong …`. A check looks at what the one before has left (a signal that pends, a descriptor on
//! its way, an event that was not read), uses it, and leaves the same again: so between two checks
//! there is always something that a checkpoint could lose.
//!
//! A program of its own, static, for not every container has libraries; and without crates, so that
//! rustc alone builds it.

mod events;
mod files;
mod memory;
mod processes;
mod sockets;
mod sys;
mod time;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::{env, fs, process};

use sys::{Check, Made};

/// A kind, and what makes it: of the port and the argument.
type Kind = (&'static str, fn(u16, &str) -> Made);

const KINDS: &[Kind] = &[
    ("threads", |_, _| processes::threads()),
    ("children", |_, number| processes::children(number)),
    ("guarded", |_, _| processes::guarded()),
    ("pty", |_, _| processes::pty()),
    ("timers", |_, _| time::timers()),
    ("timerfd", |_, _| time::timerfd()),
    ("alarms", |_, seconds| time::alarms(seconds)),
    ("memory", |_, mebibytes| memory::ordinary(mebibytes)),
    ("hugepages", |_, _| memory::huge()),
    ("shared", |_, _| memory::shared()),
    ("sysv", |_, _| memory::sysv()),
    ("inotify", |_, _| events::inotify()),
    ("epoll", |_, _| events::epoll()),
    ("eventfd", |_, _| events::eventfds()),
    ("semaphore", |_, _| events::semaphore()),
    ("signalfd", |_, _| events::signals()),
    ("pidfd", |_, _| events::pidfds()),
    ("unix", |_, _| sockets::unix()),
    ("options", |_, _| sockets::options()),
    ("udp", |port, _| sockets::udp(port)),
    ("multicast", |port, group| sockets::multicast(port, group)),
    ("locks", |_, _| files::locks()),
    ("deleted", |_, _| files::deleted()),
    ("fifo", |_, _| files::fifo()),
    ("descriptors", |_, number| files::descriptors(number)),
    ("nothing", |_, _| Ok(Box::new(|| Ok(String::new())))),
];

/// Where it makes its files: a directory of its own, for two of a kind may start at once.
fn enter_directory(kind: &str, port: u16) -> std::io::Result<()> {
    let dir = format!("/tmp/object-{kind}-{port}");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    env::set_current_dir(dir)
}

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let [_, kind, port, rest @ ..] = arguments.as_slice() else { fail("object KIND PORT [ARGUMENT]") };
    let Some((_, make)) = KINDS.iter().find(|k| k.0 == kind) else { fail("no such kind") };
    let port: u16 = port.parse().unwrap_or_else(|_| fail("no such port"));
    let check = enter_directory(kind, port).and_then(|()| make(port, rest.first().map_or("", String::as_str)));
    serve(port, check.map_err(|error| error.to_string()));
}

fn fail(why: &str) -> ! {
    eprintln!("object: {why}");
    process::exit(2)
}

/// One connection after the other. What could not be made is told in each answer.
fn serve(port: u16, mut check: Result<Check, String>) {
    let listener = TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)));
    let listener = listener.unwrap_or_else(|error| fail(&error.to_string()));
    while let Ok((stream, _)) = listener.accept() {
        let Ok(mut writer) = stream.try_clone() else { continue };
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { break };
            let answer = match (&mut check, line.as_str()) {
                (Err(why), _) => format!("wrong: not made: {why}\n"),
                (Ok(check), "check") => match check() {
                    Ok(told) => format!("ok {} {told}\n", process::id()),
                    Err(why) => format!("wrong: {why}\n"),
                },
                (Ok(_), _) => format!("{line}\n"),
            };
            if writer.write_all(answer.as_bytes()).is_err() {
                break;
            }
        }
    }
}
