//! Metrics of the containers' checkpoints, in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::list::Entry;
use super::status::Status;

/// A container, by the directory that holds its directory, and its name.
type Whose = (String, String);

/// The newest checkpoint of each container that can be restored, and how many there are in each
/// state.
pub(crate) fn of(entries: &[Entry], status: &[Status]) -> String {
    let mut newest = BTreeMap::<Whose, &Entry>::new();
    let mut counts = BTreeMap::<(Whose, &str), usize>::new();
    for (entry, status) in entries.iter().zip(status) {
        let Some(name) = &entry.container else { continue };
        let lxcpath =
            entry.lxcpath.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let whose = (lxcpath, name.clone());
        *counts.entry((whose.clone(), status.as_str())).or_default() += 1;
        let is_usable = matches!(
            status,
            Status::Complete
                | Status::Suspended
                | Status::ToBeResumed
                | Status::Restored
                | Status::Stale
        );
        if is_usable && newest.get(&whose).is_none_or(|known| known.created < entry.created) {
            newest.insert(whose, entry);
        }
    }
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&Entry) -> Option<f64>| {
        head(&mut text, name, help);
        for (whose, entry) in &newest {
            if let Some(value) = value(entry) {
                line(&mut text, name, &labels(whose), value);
            }
        }
    };
    gauge(
        "lxc_cr_checkpoint_created_timestamp_seconds",
        "When the newest checkpoint was made.",
        &|entry| Some(entry.created as f64),
    );
    gauge("lxc_cr_checkpoint_size_bytes", "The size of its images.", &|entry| {
        Some(entry.size as f64)
    });
    gauge(
        "lxc_cr_checkpoint_frozen_seconds",
        "How long the processes stood still for it.",
        &|entry| Some(entry.frozen_us? as f64 / 1e6),
    );
    gauge(
        "lxc_cr_checkpoint_verified_timestamp_seconds",
        "When it was last found whole.",
        &|entry| Some(entry.history.verified? as f64),
    );
    head(&mut text, "lxc_cr_checkpoints", "How many checkpoints there are, by their state.");
    for ((whose, state), count) in &counts {
        let labels = format!("{},state=\"{state}\"", labels(whose));
        line(&mut text, "lxc_cr_checkpoints", &labels, *count as f64);
    }
    text
}

// Writing to a string cannot fail.
fn head(text: &mut String, name: &str, help: &str) {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge").unwrap_or_default();
}

fn line(text: &mut String, name: &str, labels: &str, value: f64) {
    writeln!(text, "{name}{{{labels}}} {value}").unwrap_or_default();
}

fn labels((lxcpath, name): &Whose) -> String {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("container=\"{}\",lxcpath=\"{}\"", escaped(name), escaped(lxcpath))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_each_container_is_measured() {
        let newer = Entry { created: 2000, size: 7, ..Entry::sample() };
        let broken = Entry { created: 3000, container: Some("a\"b".to_owned()), ..Entry::sample() };
        let entries = [Entry::sample(), newer, broken];
        let status = [Status::Stale, Status::Suspended, Status::Damaged];
        insta::assert_snapshot!(of(&entries, &status), @r#"
        # HELP lxc_cr_checkpoint_created_timestamp_seconds When the newest checkpoint was made.
        # TYPE lxc_cr_checkpoint_created_timestamp_seconds gauge
        lxc_cr_checkpoint_created_timestamp_seconds{container="web",lxcpath="/var/lib/lxc"} 2000
        # HELP lxc_cr_checkpoint_size_bytes The size of its images.
        # TYPE lxc_cr_checkpoint_size_bytes gauge
        lxc_cr_checkpoint_size_bytes{container="web",lxcpath="/var/lib/lxc"} 7
        # HELP lxc_cr_checkpoint_frozen_seconds How long the processes stood still for it.
        # TYPE lxc_cr_checkpoint_frozen_seconds gauge
        lxc_cr_checkpoint_frozen_seconds{container="web",lxcpath="/var/lib/lxc"} 0.041
        # HELP lxc_cr_checkpoint_verified_timestamp_seconds When it was last found whole.
        # TYPE lxc_cr_checkpoint_verified_timestamp_seconds gauge
        # HELP lxc_cr_checkpoints How many checkpoints there are, by their state.
        # TYPE lxc_cr_checkpoints gauge
        lxc_cr_checkpoints{container="a\"b",lxcpath="/var/lib/lxc",state="damaged"} 1
        lxc_cr_checkpoints{container="web",lxcpath="/var/lib/lxc",state="stale"} 1
        lxc_cr_checkpoints{container="web",lxcpath="/var/lib/lxc",state="suspended"} 1
        "#);
    }
}
