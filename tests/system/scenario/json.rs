//! What the commands print for programs is what docs/json.md says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use lxc_cr::api::cli::commands;
use serde_json::Value;

use super::day_two::{json, lxc_cr};
use super::suspend::prepared;
use crate::harness::World;
use crate::harness::run::Run;

const JSON: &str = include_str!("../../../docs/json.md");

/// The fields that a section of docs/json.md has, each with whether it may be missing.
fn documented(section: &str) -> BTreeMap<String, bool> {
    let text = JSON
        .split(&format!("\n## {section}\n"))
        .nth(1)
        .unwrap_or_else(|| panic!("{section} is not documented"));
    let text = text.split("\n## ").next().unwrap();
    let mut fields = BTreeMap::new();
    for cell in text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once(" |"))
        .map(|(cell, _)| cell)
    {
        for field in cell.split(", `") {
            let (name, rest) = field.split_once('`').unwrap();
            fields.insert(name.to_owned(), rest == "?");
        }
    }
    fields
}

/// The paths of all fields of a value: `checkpoints[].size_bytes`.
fn fields(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields_of) => {
            for (name, value) in fields_of {
                let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                match value {
                    Value::Array(_) => found.insert(format!("{path}[]")),
                    _ => found.insert(path.clone()),
                };
                // What a finding is about has fields of its own.
                if !path.ends_with(".where") {
                    fields(value, &path, found);
                }
            }
        }
        Value::Array(values) if values.iter().any(Value::is_object) => {
            values.iter().for_each(|value| fields(value, &format!("{at}[]"), found));
        }
        _ => {}
    }
}

/// The commands and subcommands that there are, as the headings of docs/json.md name them.
fn all_commands() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for command in commands() {
        let name = command.get_name().to_owned();
        let subcommands: Vec<_> =
            command.get_subcommands().filter(|sub| sub.get_name() != "help").collect();
        if subcommands.is_empty() {
            all.insert(name);
        } else {
            all.extend(subcommands.iter().map(|sub| format!("{name} {}", sub.get_name())));
        }
    }
    all
}

/// No field more than the section has, and none less.
fn assert_documented(section: &str, value: &Value) {
    let (documented, mut found) = (documented(section), BTreeSet::new());
    fields(value, "", &mut found);
    for field in &found {
        let plain = field.strip_suffix("[]").unwrap_or(field);
        assert!(
            documented.contains_key(field) || documented.contains_key(plain),
            "{section}: {field} in {value:#}"
        );
    }
    for (field, may_be_missing) in &documented {
        assert!(*may_be_missing || found.contains(field), "{section}: no {field} in {value:#}");
    }
    assert_eq!(value["version"], 1, "{section}");
    assert_times(value);
}

/// Moments are written as RFC 3339 has them, wherever they stand.
fn assert_times(value: &Value) {
    match value {
        Value::Object(fields) => {
            for name in ["created", "verified", "restored"] {
                let text = fields.get(name).map(|time| time.as_str().unwrap());
                let is_time = |text: &str| text.len() >= 20 && text.as_bytes()[10] == b'T';
                assert!(text.is_none_or(is_time), "{name}: {value:#}");
            }
            fields.values().for_each(assert_times);
        }
        Value::Array(values) => values.iter().for_each(assert_times),
        _ => {}
    }
}

/// Every command prints for programs what docs/json.md says.
pub fn is_as_documented(world: &World) {
    let container = prepared(world, "web", "");
    let mut seen: Vec<(&str, Value, bool)> = Vec::new();
    container.start();
    let snapshot = json(container.lxc_cr("inspect"));
    let file = world.lxcpath().join("before.json");
    fs::write(&file, snapshot.to_string()).unwrap();
    seen.push(("lxc-cr inspect", snapshot, false));
    let compared = container.lxc_cr("inspect").arg("--json").arg("--against").arg(&file).output();
    let compared = serde_json::from_str(&compared.stdout).unwrap();
    seen.push(("lxc-cr inspect --against", compared, false));

    let made = json(container.ours("lxc-checkpoint").args(["--keep", "--label", "good"]));
    container.ours("lxc-checkpoint").arg("--keep").ok();
    seen.push(("lxc-cr verify", json(container.lxc_cr("verify")), false));
    let listed = json(container.lxc_cr("list"));
    let dir = |index: usize| listed["checkpoints"][index]["directory"].as_str().unwrap();
    seen.push(("lxc-cr show", json(lxc_cr(world, "show").arg(dir(1))), false));
    seen.push(("lxc-cr check", json(container.lxc_cr("check")), false));
    seen.push(("lxc-cr check --all", json(lxc_cr(world, "check").arg("--all")), false));
    let pruned = json(container.lxc_cr("prune").args(["--dry-run", "--keep-last", "1"]));
    seen.push(("lxc-cr prune", pruned, false));
    let made_in = made["directory"].as_str().unwrap();
    seen.push(("lxc-cr remove", json(lxc_cr(world, "remove").arg(made_in)), true));
    seen.extend([("lxc-checkpoint", made, true), ("lxc-cr list", listed, false)]);

    let rehearsed = json(container.lxc_cr("suspend").arg("--dry-run"));
    seen.push(("lxc-cr suspend --dry-run", rehearsed, false));
    let suspended = json(container.lxc_cr("suspend"));
    assert_eq!(suspended["containers"][0]["running"], false, "{suspended:#}");
    seen.push(("lxc-cr suspend", suspended, true));
    let resumed = json(lxc_cr(world, "resume").arg("--all"));
    assert_eq!(resumed["containers"][0]["result"], "resumed", "{resumed:#}");
    seen.push(("lxc-cr resume", resumed, true));
    let refused = container.lxc_cr("resume").arg("--json").output();
    refused.assert_code(3);
    let refused: Value = serde_json::from_str(&refused.stdout).unwrap();
    assert_eq!(refused["containers"][0]["exit_status"], 3, "{refused:#}");
    seen.push(("lxc-cr resume", refused, false));
    // A bridge that was made again has forgotten the container.
    Run::new("ip").args(["link", "set", &container.veth(), "nomaster"]).ok();
    seen.push(("lxc-cr recover", json(container.lxc_cr("recover")), true));
    seen.push(("lxc-cr recover", json(container.lxc_cr("recover")), false));
    container.ours("lxc-checkpoint").ok();
    let restored = json(container.ours("lxc-restart"));
    assert_eq!(restored["pid"], container.init_pid(), "{restored:#}");
    seen.push(("lxc-restart", restored, true));
    container.kill();

    let installed = world.installed();
    let prepare = |more: &[&str]| {
        let prepare = Run::new(&installed.lxc_cr().to_string_lossy()).args(["prepare", "-P"]);
        json(prepare.arg(world.lxcpath()).args(["-n", container.name()]).args(more))
    };
    // What the init is cannot be seen in a root that holds the test's own program.
    let named = ["--init", "busybox"];
    seen.push(("lxc-cr prepare", prepare(&["--dry-run", named[0], named[1]]), false));
    seen.push(("lxc-cr prepare", prepare(&named), true));
    seen.push(("lxc-cr prepare", prepare(&named), false));
    seen.push(("lxc-cr prepare --undo", prepare(&["--undo"]), true));
    let host = Run::ours("lxc-cr").args(["prepare", "--host", "--json"]).output();
    seen.push(("lxc-cr prepare --host", serde_json::from_str(&host.stdout).unwrap(), false));

    for (section, value, changed) in &seen {
        assert_documented(section, value);
        assert_eq!(value["changed"], *changed, "{section}: {value:#}");
    }
    let mut left = all_commands();
    left.retain(|command| !seen.iter().any(|(section, ..)| section == command));
    assert!(left.is_empty(), "not tried: {left:?}");
}

/// The newest checkpoint of each container is in the metrics.
pub fn metrics_are_written(world: &World) {
    let container = world.container();
    container.start();
    container.ours("lxc-checkpoint").arg("--keep").ok();
    let metrics = world.lxcpath().join("lxc_cr.prom");
    lxc_cr(world, "list").arg("--prometheus").arg(&metrics).ok();
    let text = fs::read_to_string(&metrics).unwrap();
    let of = format!("{{container=\"{}\",", container.name());
    let line = |name: &str| text.lines().any(|line| line.starts_with(&format!("{name}{of}")));
    assert!(
        line("lxc_cr_checkpoint_frozen_seconds") && line("lxc_cr_checkpoint_size_bytes"),
        "{text}"
    );
    container.kill();
}
