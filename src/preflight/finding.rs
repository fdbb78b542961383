//! What a look at a container finds.

use std::fmt;

use serde::Serialize;

use crate::report::{Foreign, shown};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// CRIU cannot dump the container, or cannot restore what it dumped.
    Blocker,
    /// It may fail, or something is lost.
    Warning,
    /// Worth knowing; nothing has to be done.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Blocker => "blocker",
            Severity::Warning => "warning",
            Severity::Note => "note",
        })
    }
}

/// The step that a blocker makes fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fails {
    /// The dump: the container is still running as before. `--force` may try.
    #[default]
    Dump,
    /// The restore, or what it brings back is not what was dumped. A container with such a blocker
    /// is never stopped.
    Restore,
}

impl Fails {
    fn at_dump(&self) -> bool {
        *self == Fails::Dump
    }
}

/// Where it was found. What does not apply is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The process, by its number on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The same process by its number in the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid_inside: Option<i32>,
    /// Its command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Foreign>,
    /// The systemd unit that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<Foreign>,
    /// The number of the open descriptor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<u32>,
    /// The file, as the container sees it, or what the kernel calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<Foreign>,
    /// The mount point in the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount: Option<Foreign>,
    /// The network interface in the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<Foreign>,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What a blocker makes fail.
    #[serde(rename = "fails", skip_serializing_if = "Fails::at_dump")]
    pub fails: Fails,
    /// What it is; a main clause without a full stop.
    pub what: String,
    /// Where.
    #[serde(rename = "where")]
    pub place: Place,
    /// Why it matters; a main clause without a full stop.
    pub why: String,
    /// What can be done about it, in words that can be pasted; empty for a note that needs nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl Finding {
    /// Something that stands in the way.
    pub fn blocker(what: impl Into<String>, why: impl Into<String>) -> Finding {
        Finding::new(Severity::Blocker, what, why)
    }

    /// Something that may go wrong or get lost.
    pub fn warning(what: impl Into<String>, why: impl Into<String>) -> Finding {
        Finding::new(Severity::Warning, what, why)
    }

    /// Something worth knowing.
    pub fn note(what: impl Into<String>, why: impl Into<String>) -> Finding {
        Finding::new(Severity::Note, what, why)
    }

    fn new(severity: Severity, what: impl Into<String>, why: impl Into<String>) -> Finding {
        let (what, why) = (shown(&what.into()), shown(&why.into()));
        Finding {
            severity,
            fails: Fails::Dump,
            what,
            place: Place::default(),
            why,
            remedy: String::new(),
        }
    }

    /// It can be dumped, but not restored as it was.
    pub fn on_restore(mut self) -> Finding {
        self.fails = Fails::Restore;
        self
    }

    /// Adds where it was found.
    pub fn at(mut self, place: Place) -> Finding {
        self.place = place;
        self
    }

    /// Adds what to do.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Finding {
        self.remedy = shown(&remedy.into());
        self
    }
}

impl fmt::Display for Finding {
    /// What and why on one line; severity and remedy are for the caller to lay out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

/// All that was found, the worst first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Puts findings in order: by severity, then as they were found. What would be told in the same
    /// words is kept once, as of a process with several such descriptors.
    pub fn new(found: impl IntoIterator<Item = Finding>) -> Findings {
        let mut findings: Vec<Finding> = Vec::new();
        for finding in found {
            let same = |f: &Finding| {
                (&f.what, &f.why, &f.remedy) == (&finding.what, &finding.why, &finding.remedy)
            };
            if !findings.iter().any(same) {
                findings.push(finding);
            }
        }
        findings.sort_by_key(|f| f.severity);
        Findings(findings)
    }

    /// Those that stand in the way.
    pub fn blockers(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter().filter(|f| f.severity == Severity::Blocker)
    }

    /// Those of them with which the container could be dumped, but not restored.
    pub fn unrestorable(&self) -> impl Iterator<Item = &Finding> {
        self.blockers().filter(|f| f.fails == Fails::Restore)
    }

    /// Whether something stands in the way.
    pub fn blocked(&self) -> bool {
        self.blockers().next().is_some()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter()
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Findings {
    /// As a person reads them; each with its remedy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.0 {
            writeln!(f, "{}: {}\n  why: {}", finding.severity, finding.what, finding.why)?;
            if !finding.remedy.is_empty() {
                writeln!(f, "  remedy: {}", finding.remedy)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_comes_first_and_nothing_twice() {
        let one = Finding::note("n", "x");
        let findings = Findings::new([
            one.clone(),
            Finding::blocker("b", "y").remedy("do it"),
            one,
            Finding::warning("w", "z"),
        ]);
        assert_eq!(findings.iter().map(|f| f.what.as_str()).collect::<Vec<_>>(), ["b", "w", "n"]);
        assert!(findings.blocked() && !findings.is_empty());
    }

    #[test]
    fn only_what_applies_is_in_the_json() {
        let place = Place { pid: Some(12), command: Some("x".into()), ..Place::default() };
        let json =
            serde_json::to_string(&Findings::new([Finding::blocker("b", "y").at(place)])).unwrap();
        assert_eq!(
            json,
            r#"[{"severity":"blocker","what":"b","where":{"pid":12,"command":"x"},"why":"y"}]"#
        );
    }
}
