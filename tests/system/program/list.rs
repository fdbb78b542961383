//! The servers that are tried, from `list.txt`.

/// The list, which packaging/test-host.sh reads, too.
const LIST: &str = include_str!("list.txt");
/// What is not a server but what clients need.
const TOOLS: &str = "(tools)";

/// A server.
#[derive(Clone, Debug)]
pub struct Program {
    pub name: &'static str,
    pub packages: &'static str,
    pub unit: &'static str,
    /// Ports that no other server may use at the same time.
    ports: &'static str,
    pub client: Client,
}

/// How it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Client {
    /// A connection: what `client.sh` is called with.
    Connects { kind: &'static str, port: &'static str, text: &'static str, pattern: &'static str },
    /// A command.
    Runs(&'static str),
    /// Nothing but its unit is looked at.
    None,
}

impl Client {
    fn parse(text: &'static str) -> Client {
        let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
        let words: Vec<&'static str> = rest.split(' ').collect();
        match (kind, words.as_slice()) {
            ("serves", _) => Client::None,
            ("runs", _) => Client::Runs(rest),
            ("greets", [port, pattern]) => Client::Connects { kind, port, text: "", pattern },
            (_, [port, text, pattern]) => Client::Connects { kind, port, text, pattern },
            _ => panic!("a client: {text}"),
        }
    }

    /// Whether it keeps a connection over the restart.
    pub fn holds(&self) -> bool {
        matches!(self, Client::Connects { kind: "greets" | "asks", .. })
    }
}

impl Program {
    fn parse(line: &'static str) -> Program {
        let fields: Vec<&'static str> = line.splitn(6, " | ").collect();
        let [_, name, packages, unit, ports, client] = fields[..] else {
            panic!("a server: {line}")
        };
        Program { name, packages, unit, ports, client: Client::parse(client) }
    }

    /// Whether a line with the name of a log file is its.
    pub fn owns_log(&self, line: &str) -> bool {
        let stem = |word: &'static str| word.split(['@', '.', '-', ' ']).next().unwrap_or_default();
        let file = line.split(": ").next().unwrap_or_default();
        [self.unit, self.packages].iter().any(|word| file.contains(stem(word)))
    }

    /// Whether both can run at the same time.
    fn goes_with(&self, other: &Program) -> bool {
        self.ports == "-"
            || !self.ports.split(' ').any(|port| other.ports.split(' ').any(|taken| taken == port))
    }
}

/// The servers of a group.
pub fn of(group: &str) -> Vec<Program> {
    let lines = LIST.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let among = |line: &&str| {
        line.split(" | ").next().is_some_and(|groups| groups.split(' ').any(|g| g == group))
    };
    lines.filter(among).map(Program::parse).filter(|program| program.name != TOOLS).collect()
}

/// Puts servers that can run beside each other together, at most `most`.
pub fn batches(programs: Vec<Program>, most: usize) -> Vec<Vec<Program>> {
    let mut batches: Vec<Vec<Program>> = Vec::new();
    for program in programs {
        let free = |batch: &&mut Vec<Program>| {
            batch.len() < most && batch.iter().all(|p| p.goes_with(&program))
        };
        match batches.iter_mut().find(free) {
            Some(batch) => batch.push(program),
            None => batches.push(vec![program]),
        }
    }
    batches
}
