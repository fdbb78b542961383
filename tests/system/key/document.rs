//! docs/configuration.md: what comes of each key, as a run of all rows saw it.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Row;
use super::outcome::Outcome;

/// Before the table.
const HEAD: &str = "\
# What a restore makes of each key of a container's configuration

`make test-keys` writes this page. Each trial sets keys of lxc.container.conf(5) to a value that has
a visible effect, starts the container with LXC, checkpoints and restores it twice, and compares the
container from inside and from the host: mounts, links, addresses, routes, cgroups with their limits
and device rules, limits, environment, capabilities, namespaces, kernel settings, the answers of
LXC's tools, and how the container ends. The result is one of

* **same**: after each restore, everything is as LXC made it;
* **named**: something differs, and `lxc-cr check` and `lxc-checkpoint` say so before the container
  stops;
* **refused**: the checkpoint is refused, and the container runs on, unchanged;
* **not here**: LXC does not start such a container on the test host, for the reason given.

";

/// What came of each row.
pub fn page(outcomes: &[(&Row, Outcome)], versions: &str) -> String {
    let mut page = HEAD.to_owned();
    let _ = writeln!(page, "Made with {versions}.\n\n{}\n", counts(outcomes));
    page += "| key | tried with | result |\n|---|---|---|\n";
    for (row, outcome) in outcomes {
        let _ = writeln!(
            page,
            "| {} | {} | {} |",
            row.keys_in_page(),
            tried(row),
            in_words(row, outcome)
        );
    }
    page
}

/// How many came to what.
pub fn counts(outcomes: &[(&Row, Outcome)]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, outcome) in outcomes {
        *counts.entry(outcome.kind()).or_default() += 1;
    }
    let keys: usize = outcomes.iter().map(|(row, _)| row.keys.len()).sum();
    let counts: Vec<String> =
        counts.iter().map(|(kind, number)| format!("{number} {kind}")).collect();
    format!("{} trials of {keys} keys: {}.", outcomes.len(), counts.join(", "))
}

/// The values of the row's keys.
fn tried(row: &Row) -> String {
    let values = row.lines.lines().filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        let of_row = row
            .keys
            .iter()
            .any(|k| key.trim().starts_with(k.trim_end_matches(".N")) || is_nic_key(k, key.trim()));
        of_row.then(|| format!("`{}`", value.trim().replace("$DIR", "…").replace('|', "\\|")))
    });
    values.collect::<Vec<_>>().join(" ")
}

/// `lxc.net.N.KEY` stands for `lxc.net.0.KEY`.
fn is_nic_key(row: &str, key: &str) -> bool {
    let plain = |key: &str| key.replacen(".N", "", 1).replacen(".0", "", 1).replacen(".1", "", 1);
    plain(row) == plain(key)
}

fn in_words(row: &Row, outcome: &Outcome) -> String {
    let cell = |text: &str| text.lines().next().unwrap_or_default().replace('|', "\\|");
    match outcome {
        Outcome::Same => "same".to_owned(),
        Outcome::Refused(words) => format!("refused: {}", cell(reason(words))),
        Outcome::Named(words) => format!("named: {}", cell(reason(words))),
        Outcome::NotHere(_) => match row.expected {
            super::Expected::NotHere(why) => format!("not here: {why}"),
            _ => "not here".to_owned(),
        },
        other => format!("**{}**: {}", other.kind(), cell(other.words())),
    }
}

/// Without the program's and the container's name, and what a message begins with.
fn reason(words: &str) -> &str {
    let refusal = words.lines().find(|line| line.starts_with("lxc-checkpoint: "));
    let words = refusal.or_else(|| words.lines().next()).unwrap_or_default();
    let starts =
        ["lxc-checkpoint: ", "key: ", "note: ", "warning: ", "it cannot be checkpointed: "];
    starts.iter().fold(words, |words, start| words.strip_prefix(start).unwrap_or(words))
}
