//! The clients of servers, in the same container: most servers listen on its loopback alone.

use std::time::Duration;

use super::list::Client;
use super::root::CLIENT;
use super::{Guest, Program};
use crate::harness::run::wait_for;

/// For a server to serve after its unit is active.
const START_LIMIT: Duration = Duration::from_secs(60);
/// For an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// A client that is at work.
#[derive(Debug)]
pub struct Held {
    id: String,
    answers: usize,
}

/// One request on a connection of its own, or one command.
fn once(guest: &Guest<'_>, client: &Client) -> Result<(), String> {
    let told = match client {
        Client::None => return Ok(()),
        Client::Runs(line) => guest.shell(&format!("{{ {line}; }} </dev/null")),
        Client::Connects { kind, port, text, pattern } => {
            guest.exec([CLIENT, "once", kind, port, text, pattern])
        }
    };
    if told.success() {
        return Ok(());
    }
    let end = if told.in_time {
        format!("status {}", told.status.code().unwrap_or(-1))
    } else {
        "no end".to_owned()
    };
    let words = [told.stdout.trim(), told.stderr.trim(), &end].join(" ");
    Err(words.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect())
}

impl Held {
    /// Waits until a server serves.
    pub fn wait_served(guest: &Guest<'_>, program: &Program) -> Result<Held, String> {
        let mut said = String::new();
        wait_for("its first answer", START_LIMIT, || {
            once(guest, &program.client).inspect_err(|e| said.clone_from(e)).ok()
        })
        .map_err(|e| format!("{e}: {said}"))?;
        Ok(Held { id: program.unit.replace(['@', '.'], "-"), answers: 1 })
    }

    /// Begins what goes on over the restart, shortly before: servers close connections that are
    /// idle.
    pub fn hold(&self, guest: &Guest<'_>, program: &Program) -> Result<(), String> {
        if let Client::Connects { kind, port, text, pattern } = &program.client
            && program.client.holds()
        {
            let (id, unit) = (self.id.as_str(), format!("--unit=client-{}", self.id));
            let fifo = format!(
                "mkdir -p /run/client && rm -f /run/client/{id}* && mkfifo /run/client/{id}"
            );
            guest.shell(&fifo).ok_or_words()?;
            let run = [
                "systemd-run",
                "-q",
                "--collect",
                &unit,
                CLIENT,
                "hold",
                id,
                kind,
                port,
                text,
                pattern,
            ];
            guest.exec(run).ok_or_words()?;
            self.wait(guest)?;
        }
        Ok(())
    }

    /// The same connection goes on, and another one is served.
    pub fn go_on(&mut self, guest: &Guest<'_>, program: &Program) -> Result<(), String> {
        if program.client.holds() {
            self.answers += 1;
            // Nobody may be there to read it.
            guest
                .shell(&format!("timeout 5 sh -c 'echo go > /run/client/{}'", self.id))
                .ok_or_words()?;
            self.wait(guest).map_err(|e| format!("its connection: {e}"))?;
        }
        once(guest, &program.client).map_err(|e| format!("a new request: {e}"))
    }

    pub fn end(&self, guest: &Guest<'_>) {
        guest.exec(["systemctl", "stop", &format!("client-{}.service", self.id)]);
    }

    fn wait(&self, guest: &Guest<'_>) -> Result<(), String> {
        let read = format!("cat /run/client/{}.out", self.id);
        let mut text = String::new();
        wait_for("an answer", ANSWER_LIMIT, || {
            text = guest.shell(&read).stdout;
            (text.contains("bad") || text.lines().count() >= self.answers).then_some(())
        })
        .map_err(|e| format!("{e}: {text}"))?;
        match text.lines().find(|line| line.starts_with("bad")) {
            Some(bad) => Err(bad.to_owned()),
            None => Ok(()),
        }
    }
}

trait OkOrWords {
    fn ok_or_words(self) -> Result<(), String>;
}

impl OkOrWords for crate::harness::run::Output {
    fn ok_or_words(self) -> Result<(), String> {
        if self.success() { Ok(()) } else { Err(self.to_string()) }
    }
}
