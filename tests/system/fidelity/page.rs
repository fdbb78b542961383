//! docs/fidelity.md.

use std::fmt::Write;

use lxc_cr::api::inspect::{Class, PutBack};

use super::outcome::{Outcome, Row, Tried};
use super::trial::Trial;

/// Before the table.
const HEAD: &str = "\
# What comes back as it was

A line for each state that `lxc-cr inspect` reads of a container, and what a checkpoint and a
restore made of it on the test host. `make test-fidelity` writes this page; do not edit it.

";

/// After it.
const FOOT: &str = "
## How the table is made

Each setting has a busybox container of its own. It is read as it starts (`lxc-cr inspect --json`,
frozen, and with `--ask`), set, read again, checked (`lxc-cr check`), checkpointed, restored, and
read once more. *Tried* says which values the state had before the checkpoint: *unusual* (one that
the container did not have before it was set), *usual* (only such), or *not seen*. In parentheses is
the setting. The outcome is

* **same**: equal after the restore;
* **varies**: expected to differ (a process id of the host, a counter, a running time);
* **named**: different, and `lxc-cr check` or `lxc-checkpoint` says so beforehand;
* **refused**: the container that has it is not checkpointed, and keeps running;
* **different**: different, and not named beforehand; [limitations](limitations.md) lists these;
* **not tried**: none of the containers has the state.

*Same* with a *usual* value shows that the state is not disturbed, and less than *same* with an
*unusual* one.
";

/// How many came to what.
pub fn counts(rows: &[Row]) -> String {
    let count = |outcome, tried: Option<Tried>| {
        rows.iter()
            .filter(|row| row.outcome == outcome && tried.is_none_or(|t| row.tried == t))
            .count()
    };
    format!(
        "{} states: {} same ({} of them with an unusual value), {} vary, {} named, {} refused, {} \
         different and not named, {} not tried.",
        rows.len(),
        count(Outcome::Same, None),
        count(Outcome::Same, Some(Tried::Unusual)),
        count(Outcome::Varies, None),
        count(Outcome::Named, None),
        count(Outcome::Refused, None),
        count(Outcome::Different, None),
        count(Outcome::NotTried, None),
    )
}

/// The whole page.
pub fn page(rows: &[Row], trials: &[Trial], versions: &str) -> String {
    let mut page = HEAD.to_owned();
    let _ = writeln!(page, "Run with {versions}.\n\n{}", counts(rows));
    for trial in trials.iter().filter(|trial| trial.after.is_none()) {
        let _ = writeln!(page, "The setting \"{}\" is not restored.", trial.setting.name);
    }
    let mut family = "";
    for row in rows {
        if row.family != family {
            family = row.family;
            let _ = writeln!(
                page,
                "\n## {family}\n\n| state | brought back by | class | tried | outcome |"
            );
            page += "|---|---|---|---|---|\n";
        }
        page += &line(row);
    }
    page + FOOT
}

fn line(row: &Row) -> String {
    let by = match row.state.put_back {
        PutBack::Criu => "CRIU".to_owned(),
        PutBack::Us => "lxc-cr".to_owned(),
        PutBack::Cannot(why) => format!("nothing: {}", why.replace('|', "\\|")),
    };
    let class = match row.state.class {
        Class::Varies => "varies",
        Class::Bearable => "bearable",
        Class::Breaks => "breaks",
        Class::Weakens => "weakens",
    };
    let tried = match row.tried {
        Tried::NotSeen => "not seen",
        Tried::Usual => "usual",
        Tried::Unusual => "unusual",
    };
    let setting = row
        .setting
        .filter(|_| row.tried == Tried::Unusual)
        .map_or(String::new(), |name| format!(" ({name})"));
    let outcome = match row.outcome {
        Outcome::NotTried => "not tried",
        Outcome::Same => "same",
        Outcome::Varies => "varies",
        Outcome::Refused => "refused",
        Outcome::Named => "named",
        Outcome::Different => "**different**",
    };
    format!("| `{}` | {by} | {class} | {tried}{setting} | {outcome} |\n", row.state.name)
}
