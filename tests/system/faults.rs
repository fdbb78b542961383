//! Every fault at every moment: `make faults`.
//!
//! `cargo test --test faults [-- actions|steps|random|peer [TEXT]]`: only these, and only cases
//! whose name contains the text. `peer` is LXC's own tool, under the faults of `actions`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::exit,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod fault;
mod harness;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use fault::case::Rig;
use fault::peer::{self, Peer};
use fault::{COMMANDS, Case, Command, FAULTS, Fault, Moment, Outcome};
use harness::{World, enter};

/// Of the steps of our commands, each is a moment to be killed at; for the other faults each n-th
/// is.
const EVERY: usize = 8;
/// Moments at random.
const RANDOM: usize = 200;
/// They are the same at each run.
const SEED: u64 = 20_261_124;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |section: &str| arguments.first().is_none_or(|only| only == section);
    let text = arguments.get(1).cloned().unwrap_or_default();
    if let Err(error) = enter::enter() {
        eprintln!("faults: {}", error.0);
        return ExitCode::FAILURE;
    }
    // What does not hold is told in the table.
    std::panic::set_hook(Box::new(|_| {}));
    fault::inflict::limit_state();
    let world = World::new("faults");
    let mut rig = Rig::new(&world);
    let mut tally = Tally::default();
    if wanted("actions") {
        tally.section(&mut rig, "at CRIU's actions", fault::at_actions(), &text);
    }
    if wanted("steps") {
        let cases = at_steps(&mut rig);
        tally.section(&mut rig, "at the steps of our commands", cases, &text);
    }
    if wanted("random") {
        let cases = at_random(&mut rig);
        tally.section(&mut rig, "at random moments", cases, &text);
    }
    drop(rig);
    tally.tell("in all");
    if wanted("peer") {
        let theirs = beside_lxcs_own(&world, &text);
        Tally::compare(&tally, &theirs);
    }
    if tally.lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The same faults at CRIU's actions, against LXC's own tool. What it loses is no failure of ours.
fn beside_lxcs_own(world: &World, text: &str) -> Tally {
    println!("\nLXC's own lxc-checkpoint, at CRIU's actions\n");
    let peer = Peer::new(world);
    let mut tally = Tally::default();
    for case in fault::at_actions()
        .into_iter()
        .filter(|c| peer::knows(c.fault) && c.to_string().contains(text))
    {
        let started = Instant::now();
        let outcome = peer.run(case);
        tally.count(case, &outcome);
        println!("{case} | {outcome} | {:.1} s", started.elapsed().as_secs_f64());
    }
    tally.tell("LXC's own lxc-checkpoint");
    tally
}

fn at_steps(rig: &mut Rig<'_>) -> Vec<Case> {
    let mut cases = Vec::new();
    for command in COMMANDS {
        let steps = rig.steps(*command);
        println!("{command} has {} steps: {}", steps.len(), steps.join(" "));
        for number in 1..=steps.len() {
            for fault in FAULTS {
                let every = if *fault == Fault::OursKilled { 1 } else { EVERY };
                // There is no script here, and of the time limit it does not matter where it
                // passes.
                if number % every == 0 && ![Fault::ScriptFails, Fault::TimeLimit].contains(fault) {
                    cases.push(Case {
                        command: *command,
                        moment: Moment::Step(number),
                        fault: *fault,
                    });
                }
            }
        }
    }
    cases
}

/// The command is killed at any moment from its start to a little after its usual end.
fn at_random(rig: &mut Rig<'_>) -> Vec<Case> {
    let longest: Vec<(Command, u64)> = COMMANDS
        .iter()
        .map(|command| (*command, rig.duration(*command).as_micros() as u64 * 11 / 10))
        .collect();
    let mut random = Random(SEED);
    (0..RANDOM)
        .map(|_| {
            let (command, longest) = longest[random.below(longest.len() as u64) as usize];
            Case { command, moment: Moment::After(random.below(longest)), fault: Fault::OursKilled }
        })
        .collect()
}

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[derive(Default)]
struct Tally {
    held: usize,
    ended: usize,
    cut_off: usize,
    not_reached: usize,
    lost: usize,
    /// At CRIU's actions, for each fault: how many cases held, of how many.
    at_actions: BTreeMap<String, (usize, usize)>,
}

impl Tally {
    fn section(&mut self, rig: &mut Rig<'_>, title: &str, cases: Vec<Case>, text: &str) {
        println!("\n{title}\n");
        let mut tally = Tally::default();
        for case in cases.into_iter().filter(|case| case.to_string().contains(text)) {
            let started = Instant::now();
            let outcome = rig.run(case);
            tally.count(case, &outcome);
            println!("{case} | {outcome} | {:.1} s", started.elapsed().as_secs_f64());
        }
        tally.tell(title);
        self.held += tally.held;
        self.ended += tally.ended;
        self.cut_off += tally.cut_off;
        self.not_reached += tally.not_reached;
        self.lost += tally.lost;
        self.at_actions.extend(tally.at_actions);
    }

    fn count(&mut self, case: Case, outcome: &Outcome) {
        if matches!(case.moment, Moment::Action(_)) && *outcome != Outcome::NotReached {
            let of = self.at_actions.entry(case.fault.to_string()).or_default();
            of.0 += usize::from(!matches!(outcome, Outcome::Lost(_)));
            of.1 += 1;
        }
        match outcome {
            Outcome::Held(_) => self.held += 1,
            Outcome::CutOff => {
                self.held += 1;
                self.cut_off += 1;
            }
            Outcome::Ended => self.ended += 1,
            Outcome::NotReached => self.not_reached += 1,
            Outcome::Lost(_) => self.lost += 1,
        }
    }

    /// The faults at CRIU's actions, ours beside LXC's own. (Ours are there if that section was
    /// run.)
    fn compare(ours: &Tally, theirs: &Tally) {
        let told = |of: Option<&(usize, usize)>| {
            of.map_or("-".to_owned(), |(held, all)| format!("{held} of {all}"))
        };
        let sum = |tally: &Tally| {
            let known =
                tally.at_actions.iter().filter(|(fault, _)| theirs.at_actions.contains_key(*fault));
            known.fold((0, 0), |(held, all), (_, of)| (held + of.0, all + of.1))
        };
        println!("\n| fault at CRIU's actions | ours held | LXC's own held |\n|---|---|---|");
        for (fault, of) in &theirs.at_actions {
            println!("| {fault} | {} | {} |", told(ours.at_actions.get(fault)), told(Some(of)));
        }
        println!("| in all | {} | {} |", told(Some(&sum(ours))), told(Some(&sum(theirs))));
    }

    fn tell(&self, title: &str) {
        let Tally { held, ended, cut_off, not_reached, lost, .. } = self;
        println!(
            "\n{title}: {} cases, {} held ({ended} of them ended by the fault itself, {cut_off} \
             without their connection), {not_reached} not reached, {lost} NOT HELD",
            held + ended + lost,
            held + ended
        );
    }
}
