//! The service in the container (`tests/system/witness/`) and the connection to it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs};

use super::run::{patient, wait_for};

/// Where it listens.
pub const PORT: u16 = 7000;
/// From the start of the container until it answers: it fills its memory first.
const START_LIMIT: Duration = Duration::from_secs(20);
/// An answer of a running container, retransmissions after an interruption included.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Builds a program for containers unless that source was built already: `witness`, `culprit` or
/// `object`. Runs outside the test host, which has no compiler.
pub fn build(name: &str, state: &Path) -> Result<PathBuf, String> {
    let source =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/system").join(name).join("main.rs");
    let program = state.join(name);
    let age = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    let files = fs::read_dir(source.with_file_name(""))
        .map_err(|e| format!("read {}: {e}", source.display()))?;
    let written = files.flatten().filter_map(|file| age(&file.path())).max();
    if age(&program).is_some_and(|built| written.is_some_and(|written| written < built)) {
        return Ok(program);
    }
    let new = state.join(format!("{name}.{}", std::process::id()));
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let options = [
        "--edition",
        "2024",
        "-O",
        "-C",
        "target-feature=+crt-static",
        "-C",
        "strip=symbols",
        "-o",
    ];
    let told = Command::new(compiler).args(options).arg(&new).arg(&source).output();
    let told = told.map_err(|e| format!("start rustc for the {name}: {e}"))?;
    if !told.status.success() {
        return Err(format!("build the {name}: {}", String::from_utf8_lossy(&told.stderr)));
    }
    fs::rename(&new, &program).map_err(|e| format!("put the {name} in place: {e}"))?;
    Ok(program)
}

/// What moves in it all the time.
const GROWING: &[&str] = &["counter", "elapsed_ms", "ticks", "round_trips", "shared"];

/// An open connection to the witness.
#[derive(Debug)]
pub struct Witness {
    stream: BufReader<TcpStream>,
}

impl Witness {
    /// Connects as soon as it answers.
    pub fn connect(address: Ipv4Addr) -> Witness {
        let connected = wait_for(&format!("the witness at {address}"), START_LIMIT, || {
            TcpStream::connect_timeout(&(address, PORT).into(), Duration::from_millis(500)).ok()
        });
        let stream = connected.unwrap_or_else(|e| panic!("{e}"));
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(patient(ANSWER_LIMIT))).unwrap();
        let mut witness = Witness { stream: BufReader::new(stream) };
        witness.echo("hello");
        witness
    }

    /// Sends a line without waiting for the answer.
    pub fn send(&mut self, line: &str) {
        self.stream
            .get_mut()
            .write_all(format!("{line}\n").as_bytes())
            .unwrap_or_else(|e| panic!("send '{line}': {e}"));
    }

    /// The next line.
    pub fn receive(&mut self) -> String {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => panic!("the witness closed the connection"),
            Ok(_) => line.trim_end().to_owned(),
            Err(error) => panic!("no answer of the witness: {error}"),
        }
    }

    /// Asserts that the other end does not know the connection any more.
    pub fn assert_closed(&mut self) {
        let mut line = String::new();
        let told = self
            .stream
            .get_mut()
            .write_all(b"anybody there?\n")
            .and_then(|()| self.stream.read_line(&mut line));
        assert!(
            told.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset),
            "{told:?} {line}"
        );
    }

    /// Sends a line and asserts that it comes back; how long that took.
    pub fn echo(&mut self, line: &str) -> Duration {
        let started = Instant::now();
        self.send(line);
        assert_eq!(self.receive(), line);
        started.elapsed()
    }

    /// Waits until all that moves has moved since `before`, and asserts that it is the same
    /// service: nothing was lost, nothing began anew.
    pub fn assert_goes_on_from(&mut self, before: &Status) -> Status {
        let mut now = self.status();
        let moved = wait_for("the witness to move", ANSWER_LIMIT, || {
            now = self.status();
            GROWING.iter().all(|key| now.number(key) > before.number(key)).then_some(())
        });
        now.assert_sound();
        for same in ["pid", "deleted", "memory", "lock_fds"] {
            assert_eq!(now.get(same), before.get(same), "'{same}' changed: {before:?} -> {now:?}");
        }
        moved.unwrap_or_else(|e| panic!("{e}: {before:?} -> {now:?}"));
        now
    }

    /// How it is.
    pub fn status(&mut self) -> Status {
        Status(self.ask("status"))
    }

    /// All that it can see of its confinement and its surroundings, see
    /// `tests/system/witness/probe.rs`.
    pub fn probe(&mut self) -> BTreeMap<String, String> {
        self.ask("probe")
            .into_iter()
            .map(|(key, value)| (key, value.replace("\\n", "\n").replace("\\\\", "\\")))
            .collect()
    }

    fn ask(&mut self, question: &str) -> BTreeMap<String, String> {
        self.send(question);
        let mut values = BTreeMap::new();
        loop {
            let line = self.receive();
            if line == "end" {
                return values;
            }
            let (key, value) =
                line.split_once('=').unwrap_or_else(|| panic!("not a status line: {line}"));
            values.insert(key.to_owned(), value.to_owned());
        }
    }
}

/// What the witness said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status(BTreeMap<String, String>);

impl Status {
    /// The value of a key.
    pub fn get(&self, key: &str) -> &str {
        self.0.get(key).unwrap_or_else(|| panic!("the witness said nothing of '{key}': {self:?}"))
    }

    /// The value of a key that counts.
    pub fn number(&self, key: &str) -> u64 {
        self.get(key).parse().unwrap_or_else(|e| panic!("'{key}': {e}: {self:?}"))
    }

    /// Asserts that all it holds is well: true at any time.
    pub fn assert_sound(&self) {
        assert_eq!(
            self.get("locks"),
            format!("flock held, posix held by {}", self.get("pid")),
            "{self:?}"
        );
        assert_eq!(self.get("wrong_answers"), "0", "{self:?}");
        assert_eq!(self.get("deleted_is_gone"), "true", "{self:?}");
        assert_eq!(self.get("syslog"), "ok", "{self:?}");
        // The partner has counted the ball that is on its way, or not yet.
        assert!(self.number("shared").abs_diff(self.number("round_trips")) <= 1, "{self:?}");
    }
}
