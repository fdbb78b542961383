//! Tables of iptables-nft with extensions of the old iptables (`-m comment`, `-m recent`, `-j CT`).
//!
//! The kernel keeps such a rule in nftables, but the extension in the form of the old iptables
//! (nft_compat). CRIU saves all rules as nft(8) lists them, and nft cannot read back its own words
//! for an extension. The tools of iptables can: so these tables are saved and restored with them,
//! and CRIU is not shown them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Seek, Write};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::sys::netlink::raw::{self, Message, Protocol, Socket};
use crate::sys::netlink::{in_netns, in_new_netns};
use crate::sys::spawn::SAFE_PATH;
use crate::sys::{child, files};

/// `NFNL_SUBSYS_NFTABLES << 8`, with `NFT_MSG_GETCHAIN`, `…RULE`, `…SET`, `…OBJ`, `…FLOWTABLE`.
const GET_CHAIN: u16 = 0xa04;
const GET_RULE: u16 = 0xa07;
const GET_SET: u16 = 0xa0a;
const GET_OBJECT: u16 = 0xa13;
const GET_FLOW_TABLE: u16 = 0xa17;
/// The size of `nfgenmsg`; attributes: of all the table, of a chain its name, of a set its flags,
/// of a rule what it does.
const HEADER: usize = 4;
const TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const SET_FLAGS: u16 = 3;
/// `NFT_SET_ANONYMOUS`: it goes with its rule.
const ANONYMOUS: u32 = 1;
const EXPRESSIONS: u16 = 4;
/// The name of an expression, and those of nft_compat.
const NAME: u16 = 1;
const COMPAT: [&[u8]; 2] = [b"match\0", b"target\0"];
/// The short options of a rule as the tools write it.
const SHORT: [&str; 10] = ["-A", "-p", "-s", "-d", "-i", "-o", "-m", "-j", "-g", "-f"];
/// The tools work in milliseconds; a lock that somebody holds is waited for.
const LIMIT: Duration = Duration::from_secs(20);

/// A family of tables, with its tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Family {
    number: u8,
    /// As nft(8) calls it.
    name: &'static str,
    save: &'static str,
    restore: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family { number: 2, name: "ip", save: "iptables-nft-save", restore: "iptables-nft-restore" },
    Family {
        number: 10,
        name: "ip6",
        save: "ip6tables-nft-save",
        restore: "ip6tables-nft-restore",
    },
];
/// Those whose extensions none of these tools knows.
const OTHERS: [(u8, &str); 3] = [(1, "inet"), (3, "arp"), (7, "bridge")];

/// The tables of one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// "ip" or "ip6".
    pub family: String,
    /// What `iptables-nft-save -c` says.
    pub text: String,
}

/// A table of nftables: its family and its name.
pub(crate) type Table = (String, String);

/// Why tables cannot be restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsaved {
    /// A tool is not installed.
    #[error("{0} is not installed on the host")]
    NoTool(&'static str),
    /// No tool knows them.
    #[error("no tool can save it with its extensions")]
    Unknown(Table),
    /// It was tried.
    #[error("{0:#}")]
    Refused(anyhow::Error),
}

/// The tables of a network namespace that have extensions; none where there are no such rules.
pub(crate) fn save(netns: BorrowedFd<'_>) -> Result<Vec<Saved>, Unsaved> {
    let saved = in_netns(netns, || {
        let kernel =
            Kernel::read().context("list the rules of nftables").map_err(Unsaved::Refused)?;
        save_in_this(&kernel)
    });
    saved.context("enter the container's network namespace").map_err(Unsaved::Refused)?
}

fn save_in_this(kernel: &Kernel) -> Result<Vec<Saved>, Unsaved> {
    let of = |family: &Family| -> BTreeSet<Table> {
        kernel.with_extensions.iter().filter(|(name, _)| name == family.name).cloned().collect()
    };
    let mut saved = Vec::new();
    for family in FAMILIES.iter().filter(|family| !of(family).is_empty()) {
        let (Some(save), Some(_)) = (tool(family.save), tool(family.restore)) else {
            return Err(Unsaved::NoTool(family.save));
        };
        let text = run(&save, &["-c"], "").map_err(Unsaved::Refused)?;
        saved.push(Saved {
            family: family.name.to_owned(),
            text: of_tables(&text, family.name, kernel),
        });
    }
    let known: BTreeSet<Table> = saved.iter().flat_map(Saved::tables).collect();
    match kernel.with_extensions.iter().find(|table| !known.contains(*table)) {
        Some(table) => Err(Unsaved::Unknown(table.clone())),
        None => Ok(saved),
    }
}

/// What the kernel has in nftables.
#[derive(Debug, Default)]
struct Kernel {
    /// Tables that have rules with extensions.
    with_extensions: BTreeSet<Table>,
    /// Tables with sets, counters and the like, of which the tools of iptables know nothing.
    with_more: BTreeSet<Table>,
    /// Chains, each with its table.
    chains: BTreeSet<(Table, String)>,
    /// How many rules each table has.
    rules: BTreeMap<Table, usize>,
}

impl Kernel {
    /// In the network namespace of this thread.
    fn read() -> Result<Kernel> {
        let mut socket = Socket::open(Protocol::Netfilter)?;
        let mut kernel = Kernel::default();
        for rule in dump(&mut socket, GET_RULE)? {
            *kernel.rules.entry(table_of(&rule)).or_default() += 1;
            if has_extension(&rule) {
                kernel.with_extensions.insert(table_of(&rule));
            }
        }
        if kernel.with_extensions.is_empty() {
            return Ok(kernel);
        }
        for chain in dump(&mut socket, GET_CHAIN)? {
            kernel.chains.insert((table_of(&chain), text(chain.attribute(HEADER, CHAIN_NAME))));
        }
        let sets = dump(&mut socket, GET_SET)?;
        let named = sets.into_iter().filter(|set| !is_anonymous(set));
        let others =
            dump(&mut socket, GET_OBJECT)?.into_iter().chain(dump(&mut socket, GET_FLOW_TABLE)?);
        kernel.with_more = named.chain(others).map(|object| table_of(&object)).collect();
        Ok(kernel)
    }
}

/// Of what a tool says, the tables with extensions of which it has said all, without chains that
/// are not there.
fn of_tables(text: &str, family: &str, kernel: &Kernel) -> String {
    let mut whole = String::new();
    for block in text.split_inclusive("\nCOMMIT\n") {
        let Some(at) = block.find('*') else { continue };
        let lines: Vec<&str> = block.get(at..).unwrap_or_default().lines().collect();
        let Some(name) = lines.first().and_then(|line| line.strip_prefix('*')) else { continue };
        let table = (family.to_owned(), name.trim().to_owned());
        let chain = |line: &str| {
            line.strip_prefix(':').and_then(|rest| rest.split(' ').next()).map(str::to_owned)
        };
        let named: BTreeSet<String> = lines.iter().filter_map(|line| chain(line)).collect();
        let own: Vec<&String> =
            kernel.chains.iter().filter(|(of, _)| *of == table).map(|(_, name)| name).collect();
        let count =
            lines.iter().filter(|line| line.contains("-A ") && !line.starts_with(':')).count();
        let is_all = lines.iter().all(|line| is_plain(line))
            && own.iter().all(|chain| named.contains(*chain))
            && kernel.rules.get(&table).copied().unwrap_or_default() == count
            && !kernel.with_more.contains(&table);
        if !is_all || !kernel.with_extensions.contains(&table) {
            continue;
        }
        let kept =
            lines.iter().filter(|line| chain(line).is_none_or(|chain| own.contains(&&chain)));
        kept.for_each(|line| whole.push_str(&format!("{line}\n")));
    }
    whole
}

/// Whether a line is a table, a chain, a rule or the end of a table, and nothing in a rule is an
/// option that its tool never writes.
///
/// Names and comments are the container's, and may hold anything, ends of lines among it. The tool
/// that reads them is the host's, and `-M` would have it run any program.
fn is_plain(line: &str) -> bool {
    let counters =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b':') && text.contains(':');
    if let Some(rule) = line.strip_prefix('[') {
        let Some((count, rest)) = rule.split_once("] ") else { return false };
        return counters(count)
            && rest.starts_with("-A ")
            && rest.split([' ', '\t', '"', '\'']).all(is_harmless);
    }
    if let Some(chain) = line.strip_prefix(':') {
        let words: Vec<&str> = chain.split(' ').collect();
        let is_policy = |word: &&str| word.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
        return matches!(words.as_slice(), [_, policy, _] if is_policy(policy));
    }
    line == "COMMIT"
        || line.strip_prefix('*').is_some_and(|name| name.bytes().all(|b| b.is_ascii_lowercase()))
}

/// Whether a word of a rule is no option that leads elsewhere. A long one may be shortened as far
/// as it is clear.
fn is_harmless(word: &str) -> bool {
    match (word.strip_prefix("--"), word.strip_prefix('-')) {
        (Some(long), _) => {
            let name = long.split('=').next().unwrap_or(long);
            name.is_empty() || !"modprobe".starts_with(name)
        }
        (None, Some(short)) => short.is_empty() || SHORT.contains(&word),
        (None, None) => true,
    }
}

/// Restores tables into a network namespace.
pub(crate) fn restore(netns: BorrowedFd<'_>, saved: &[Saved]) -> Result<()> {
    in_netns(netns, || restore_in_this(saved)).context("enter the container's network namespace")?
}

/// Restores them in a network namespace that goes at once, and compares them.
pub(crate) fn try_out(saved: &[Saved]) -> Result<()> {
    if saved.is_empty() {
        return Ok(());
    }
    let again = in_new_netns(|| -> Result<Vec<Saved>> {
        restore_in_this(saved)?;
        Ok(save_in_this(&Kernel::read()?)?)
    });
    let again = again.context("make a network namespace to try rules in")??;
    let found =
        saved.iter().zip(&again).find(|(before, after)| rules_of(before) != rules_of(after));
    match found {
        None if saved.len() == again.len() => Ok(()),
        _ => bail!("restored to try it, they are others than before"),
    }
}

/// Rules without their counters, which stand in brackets.
fn rules_of(saved: &Saved) -> Vec<&str> {
    let rule = |line: &'_ str| line.starts_with('[').then(|| line.find("] ")).flatten();
    saved
        .text
        .lines()
        .map(|line| line.get(rule(line).unwrap_or_default()..).unwrap_or(line))
        .collect()
}

fn restore_in_this(saved: &[Saved]) -> Result<()> {
    for Saved { family, text } in saved {
        if let Some(line) = text.lines().find(|line| !is_plain(line)) {
            bail!("a rule of iptables is not as its tool writes one: {line}");
        }
        let found = FAMILIES.iter().find(|known| known.name == family);
        let restore = found
            .with_context(|| format!("a record names tables of the family '{family}'"))?
            .restore;
        let path = tool(restore).with_context(|| {
            format!("{restore} is not installed (Debian: apt install iptables)")
        })?;
        run(&path, &["-c"], text)?;
    }
    Ok(())
}

impl Saved {
    /// Its tables.
    pub fn tables(&self) -> Vec<Table> {
        let names = self.text.lines().filter_map(|line| line.strip_prefix('*'));
        names.map(|name| (self.family.clone(), name.trim().to_owned())).collect()
    }
}

/// Objects of nftables in this thread's network namespace.
fn dump(socket: &mut Socket, question: u16) -> Result<Vec<Message>> {
    match socket.dump(&Message::new(question, [0; HEADER])) {
        // A kernel without nftables, or without such objects.
        Err(e) if matches!(e.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOENT)) => {
            Ok(Vec::new())
        }
        other => Ok(other?),
    }
}

fn is_anonymous(set: &Message) -> bool {
    let flags = set.attribute(HEADER, SET_FLAGS).and_then(|flags| flags.first_chunk::<4>());
    flags.is_some_and(|flags| u32::from_be_bytes(*flags) & ANONYMOUS != 0)
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).trim_end_matches('\0').to_owned()
}

fn has_extension(rule: &Message) -> bool {
    let expressions = rule.attribute(HEADER, EXPRESSIONS).map(raw::attributes).unwrap_or_default();
    expressions.iter().any(|(_, expression)| {
        raw::attribute(expression, NAME).is_some_and(|name| COMPAT.contains(&name))
    })
}

fn table_of(rule: &Message) -> Table {
    let families = FAMILIES.iter().map(|family| (family.number, family.name)).chain(OTHERS);
    let family = families
        .into_iter()
        .find(|(number, _)| *number == rule.byte(0))
        .map_or("other", |(_, name)| name);
    (family.to_owned(), text(rule.attribute(HEADER, TABLE)))
}

fn tool(name: &str) -> Option<PathBuf> {
    SAFE_PATH.split(':').map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
}

/// Runs a tool in this thread's network namespace; gives what it says.
fn run(program: &Path, arguments: &[&str], input: &str) -> Result<String> {
    let name = program.display();
    let mut stdin = files::scratch("iptables")?;
    stdin.write_all(input.as_bytes()).and_then(|()| stdin.rewind()).context("hand rules over")?;
    let mut command = Command::new(program);
    command.env_clear().args(arguments).stdin(stdin);
    let told = child::run(&mut command, LIMIT).with_context(|| format!("run {name}"))?;
    match told.status.success() {
        true => Ok(told.stdout),
        false => bail!("{name}: {}: {}", told.status, told.stderr.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_named_by_the_tool() {
        let text = "# Generated\n*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m comment --comment \
                    \"*x\" -j DROP\nCOMMIT\n*nat\n";
        let saved = Saved { family: "ip".to_owned(), text: text.to_owned() };
        let table = |name: &str| ("ip".to_owned(), name.to_owned());
        assert_eq!(saved.tables(), [table("filter"), table("nat")]);
    }

    #[test]
    fn a_comment_cannot_smuggle_an_option_in() {
        for plain in [
            "*filter",
            ":INPUT ACCEPT [0:0]",
            ":f2b-sshd - [0:0]",
            "[1:22] -A INPUT -p tcp -m statistic --mode random -m comment --comment \"a - b -- c\" \
             -j f2b-sshd",
            "COMMIT",
        ] {
            assert!(is_plain(plain), "{plain}");
        }
        for strange in [
            "-A INPUT -M /x -m y",
            "[0:0] -A INPUT -M /x",
            "[0:0] -A INPUT -M/x",
            "[0:0] -A INPUT -vM /x",
            "[0:0] -A INPUT --modprobe=/x",
            "[0:0] -A INPUT --mo /x",
            "[0:0] -A INPUT -m comment --comment \"-M /x\"",
            "[0:0] -I INPUT -j DROP",
            "*../x",
            ":INPUT ACCEPT [0:0] -M /x",
            "",
        ] {
            assert!(!is_plain(strange), "{strange}");
        }
    }

    const TEXT: &str = "# x\n*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n[1:2] -A INPUT \
                        -j DROP\nCOMMIT\n# y\n*nat\n:INPUT ACCEPT [0:0]\nCOMMIT\n";

    #[test]
    fn only_what_a_tool_says_as_it_is_counts() {
        let table = ("ip".to_owned(), "filter".to_owned());
        let kernel = |rules: usize, chain: &str, more: bool| Kernel {
            with_extensions: BTreeSet::from([table.clone()]),
            with_more: more.then(|| table.clone()).into_iter().collect(),
            chains: BTreeSet::from([(table.clone(), chain.to_owned())]),
            rules: BTreeMap::from([(table.clone(), rules)]),
        };
        let wanted = "*filter\n:INPUT ACCEPT [0:0]\n[1:2] -A INPUT -j DROP\nCOMMIT\n";
        assert_eq!(of_tables(TEXT, "ip", &kernel(1, "INPUT", false)), wanted);
        for other in
            [kernel(2, "INPUT", false), kernel(1, "input", false), kernel(1, "INPUT", true)]
        {
            assert_eq!(of_tables(TEXT, "ip", &other), "");
        }
        let saved = |text: &str| Saved { family: "ip".to_owned(), text: text.to_owned() };
        assert_eq!(rules_of(&saved("[1:2] -A x")), rules_of(&saved("[7:9] -A x")));
        assert_ne!(rules_of(&saved("[1:2] -A x")), rules_of(&saved("[1:2] -A y")));
    }

    #[test]
    fn an_extension_is_seen_in_a_rule() {
        let mut rule = Message::new(10 << 8 | 6, [2, 0, 0, 0]);
        rule.push(TABLE, b"filter\0");
        let list = |name: &[u8]| {
            let (mut expression, mut list) = (Vec::new(), Vec::new());
            raw::push(&mut expression, NAME, name);
            raw::push(&mut list, 1, &expression);
            list
        };
        let mut plain = rule.clone();
        plain.push(EXPRESSIONS, &list(b"counter\0"));
        rule.push(EXPRESSIONS, &list(b"match\0"));
        assert!(has_extension(&rule) && !has_extension(&plain));
        assert_eq!(table_of(&rule), ("ip".to_owned(), "filter".to_owned()));
    }
}
