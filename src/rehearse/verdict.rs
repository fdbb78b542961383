//! What a rehearsal says.

use crate::error::{Exit, Failure};
use crate::inspect::Difference;
use crate::report::shown;

/// No more values than this are named for one state.
const MOST_NAMED: usize = 3;
/// A value is cut to this many characters.
const LONGEST: usize = 80;

/// Whether the container may be ended.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It comes back; what differs can be borne or was accepted, in words.
    Good(Vec<String>),
    /// It does not come back as it was.
    Bad(Failure),
}

/// Judges what differs, the worst first; pure. States that are named in `accept` keep no container
/// from being ended.
pub(crate) fn judge(differences: &[Difference], accept: &[String]) -> Verdict {
    let groups = by_state(differences);
    let blocks = |group: &&Group<'_>| {
        group[0].state.class.blocks() && !accept.iter().any(|name| name == group[0].state.name)
    };
    let (bad, good): (Vec<&Group<'_>>, Vec<&Group<'_>>) = groups.iter().partition(blocks);
    if bad.is_empty() {
        return Verdict::Good(good.into_iter().map(in_words).collect());
    }
    let refused = Failure::msg(Exit::Refused, "it would not come back as it is:");
    let told = bad.iter().fold(refused, |failure, group| failure.detail(in_words(group)));
    let names: Vec<&str> = bad.iter().map(|group| group[0].state.name).collect();
    Verdict::Bad(
        told.hint(format!("leave it running, or accept that: --accept {}", names.join(","))),
    )
}

/// A restore that fails, as the reason not to end the container. Remedies for a restore that has
/// failed are of no use yet.
pub(crate) fn fails(failure: &Failure) -> Failure {
    let text = format!("its restore, rehearsed beside it, fails: {failure}");
    Failure {
        hint: Some(HINT.to_owned()),
        log: failure.log.clone(),
        ..Failure::msg(Exit::CriuFailed, text)
    }
}

const HINT: &str = "take away what is named (close the file, restart the program, remove the rule \
                    or route), then try again";

/// All that differs, in words.
pub(crate) fn told(differences: &[Difference]) -> Vec<String> {
    by_state(differences).iter().map(in_words).collect()
}

type Group<'d> = Vec<&'d Difference>;

/// The differences of each state, in the order in which the first comes.
fn by_state(differences: &[Difference]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for difference in differences {
        match groups.iter_mut().find(|group| group[0].state.name == difference.state.name) {
            Some(group) => group.push(difference),
            None => groups.push(vec![difference]),
        }
    }
    groups
}

/// "mdwe of process 7: 1 becomes 0 (memory may become writable and executable)".
fn in_words(group: &Group<'_>) -> String {
    let state = group[0].state;
    let named = group.iter().take(MOST_NAMED).map(|difference| {
        let value =
            |value: &Option<String>| value.as_deref().map_or_else(|| "nothing".to_owned(), cut);
        format!(
            "{}: {} becomes {}",
            difference.subject,
            value(&difference.before),
            value(&difference.after)
        )
    });
    let mut text: Vec<String> = named.collect();
    if group.len() > MOST_NAMED {
        text.push(format!("and {} more", group.len() - MOST_NAMED));
    }
    shown(&format!("{} of {} ({})", state.name, text.join("; "), state.loss))
}

fn cut(value: &str) -> String {
    let value = value.replace('\n', ", ");
    match value.chars().nth(LONGEST) {
        None => value,
        Some(_) => value.chars().take(LONGEST).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::{Class, PutBack, State, Subject};

    static MDWE: State = State {
        name: "mdwe",
        put_back: PutBack::Us,
        class: Class::Weakens,
        loss: "memory may become executable",
    };
    static SLACK: State = State {
        name: "timer-slack",
        put_back: PutBack::Us,
        class: Class::Bearable,
        loss: "timers are less exact",
    };

    fn difference(state: &'static State, pid: i32) -> Difference {
        let value = |text: &str| Some(text.to_owned());
        Difference {
            subject: Subject::Task { pid },
            state,
            before: value("1\n2"),
            after: value("0"),
        }
    }

    #[test]
    fn what_weakens_it_blocks_unless_it_is_accepted() {
        let both = || vec![difference(&MDWE, 7), difference(&MDWE, 8), difference(&SLACK, 7)];
        let Verdict::Bad(failure) = judge(&both(), &["timer-slack".to_owned()]) else {
            panic!("accepted")
        };
        assert_eq!(
            failure.to_string(),
            "it would not come back as it is:\n  mdwe of process 7: 1, 2 becomes 0; process 8: 1, \
             2 becomes 0 (memory may become executable)"
        );
        assert_eq!(
            (failure.exit, failure.hint.as_deref().map(|h| h.ends_with("--accept mdwe"))),
            (Exit::Refused, Some(true))
        );
        let Verdict::Good(borne) = judge(&both(), &["mdwe".to_owned()]) else { panic!("refused") };
        assert_eq!(borne.len(), 2);
        assert!(matches!(judge(&[], &[]), Verdict::Good(borne) if borne.is_empty()));
    }

    #[test]
    fn much_is_told_in_short() {
        let differences: Vec<Difference> = (1..6).map(|pid| difference(&SLACK, pid)).collect();
        let group = differences.iter().collect();
        assert!(in_words(&group).contains("; and 2 more (timers"), "{}", in_words(&group));
        assert_eq!(cut(&"x".repeat(100)).chars().count(), LONGEST + 1);
    }
}
