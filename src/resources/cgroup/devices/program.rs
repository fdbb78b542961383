//! Rules as a program of the shape that liblxc's have (cgroup2_devices.c), and back.
//!
//! The kernel asks with one structure: `access << 16 | type`, major, minor
//! (include/uapi/linux/bpf.h, `struct bpf_cgroup_dev_ctx`). The program loads them into registers
//! and goes through the rules: a test for each part of the rule that is not "any" jumps on to the
//! next rule; when all hold, the answer is given. The last two instructions give the answer for all
//! that no rule speaks of.

use super::{Access, Kind, Policy, Rule};
use crate::sys::bpf::Instruction;

/// The registers, by what they hold.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
/// The context is not needed any more once all is loaded.
const SCRATCH: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// Operations, include/uapi/linux/bpf.h and bpf_common.h.
const LOAD_WORD: u8 = 0x61;
const AND_32: u8 = 0x54;
const SHIFT_RIGHT_32: u8 = 0x74;
const MOVE_32: u8 = 0xbc;
const SET: u8 = 0xb7;
const JUMP_UNLESS_IS: u8 = 0x55;
const JUMP_UNLESS_SAME: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// `BPF_DEVCG_DEV_*` and `BPF_DEVCG_ACC_*`.
const BLOCK: i32 = 1;
const CHAR: i32 = 2;
const MAKE: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    let registers = if cfg!(target_endian = "big") { to << 4 | from } else { from << 4 | to };
    Instruction { code, registers, offset, immediate }
}

fn beginning() -> [Instruction; 6] {
    [
        instruction(LOAD_WORD, TYPE, CONTEXT, 0, 0),
        instruction(AND_32, TYPE, 0, 0, 0xffff),
        instruction(LOAD_WORD, ACCESS, CONTEXT, 0, 0),
        instruction(SHIFT_RIGHT_32, ACCESS, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ]
}

fn answer(allow: bool) -> [Instruction; 2] {
    [instruction(SET, ANSWER, 0, 0, i32::from(allow)), instruction(EXIT, 0, 0, 0, 0)]
}

/// The program for a policy.
pub(super) fn encode(policy: &Policy) -> Vec<Instruction> {
    let mut program = beginning().to_vec();
    for rule in &policy.rules {
        let mut tests = Vec::new();
        if rule.access != Access::ALL {
            tests.push(instruction(MOVE_32, SCRATCH, ACCESS, 0, 0));
            tests.push(instruction(AND_32, SCRATCH, 0, 0, mask(rule.access)));
            tests.push(instruction(JUMP_UNLESS_SAME, SCRATCH, ACCESS, 0, 0));
        }
        let mut is =
            |register, number| tests.push(instruction(JUMP_UNLESS_IS, register, 0, 0, number));
        match rule.kind {
            Kind::All => {}
            Kind::Block => is(TYPE, BLOCK),
            Kind::Char => is(TYPE, CHAR),
        }
        if let Some(major) = rule.major {
            is(MAJOR, major.cast_signed());
        }
        if let Some(minor) = rule.minor {
            is(MINOR, minor.cast_signed());
        }
        // A test that fails leads behind the answer, which has two instructions.
        for (left, test) in (2..).zip(tests.iter_mut().rev()) {
            if matches!(test.code, JUMP_UNLESS_IS | JUMP_UNLESS_SAME) {
                test.offset = left;
            }
        }
        program.extend(tests);
        program.extend(answer(!policy.allow_by_default));
    }
    program.extend(answer(policy.allow_by_default));
    program
}

/// The policy that a program stands for, if it has the shape of liblxc's and ours; the kernel's
/// verifier may have taken out what is never reached.
pub(super) fn decode(program: &[Instruction]) -> Option<Policy> {
    let mut reader = Reader { program, at: 0 };
    for expected in beginning() {
        reader.take(|i| (i == expected).then_some(()))?;
    }
    let mut found: Vec<(Rule, bool)> = Vec::new();
    while reader.at < program.len() {
        found.push(reader.rule()?);
    }
    // The last answer is given to all: it has no tests.
    let (last, default) = found.pop()?;
    let everything = Rule { kind: Kind::All, major: None, minor: None, access: Access::ALL };
    if last != everything {
        return None;
    }
    // liblxc's rules say all the same. If the last one says so, too, it is a rule for everything,
    // behind which the verifier has taken out the answer for the rest.
    let allow = found.first().map_or(!default, |(_, allow)| *allow);
    if found.iter().any(|(_, a)| *a != allow) {
        return None;
    }
    if default == allow {
        found.push((last, allow));
    }
    Some(Policy {
        allow_by_default: !allow,
        rules: found.into_iter().map(|(rule, _)| rule).collect(),
    })
}

fn mask(access: Access) -> i32 {
    let bit = |on, bit| if on { bit } else { 0 };
    bit(access.make, MAKE) | bit(access.read, READ) | bit(access.write, WRITE)
}

struct Reader<'a> {
    program: &'a [Instruction],
    at: usize,
}

impl Reader<'_> {
    /// The next instruction, if it is one that is wanted here.
    fn take<T>(&mut self, wanted: impl FnOnce(Instruction) -> Option<T>) -> Option<T> {
        // On some machines the verifier adds a move of a register to itself, to clear its upper
        // half.
        let clears = |i: &Instruction| {
            i.code == MOVE_32 && i.immediate == 1 && i.registers >> 4 == i.registers & 15
        };
        let next = self.program.get(self.at..)?.iter().position(|i| !clears(i))? + self.at;
        let taken = wanted(*self.program.get(next)?)?;
        self.at = next + 1;
        Some(taken)
    }

    /// A rule and its answer.
    fn rule(&mut self) -> Option<(Rule, bool)> {
        let mut rule = Rule { kind: Kind::All, major: None, minor: None, access: Access::ALL };
        let mut targets = Vec::new();
        if self.take(|i| (i == instruction(MOVE_32, SCRATCH, ACCESS, 0, 0)).then_some(())).is_some()
        {
            let mask = self.take(|i| {
                (i == instruction(AND_32, SCRATCH, 0, 0, i.immediate) && i.immediate & !7 == 0)
                    .then_some(i.immediate)
            })?;
            rule.access =
                Access { make: mask & MAKE != 0, read: mask & READ != 0, write: mask & WRITE != 0 };
            let skips = self.take(|i| {
                (i == instruction(JUMP_UNLESS_SAME, SCRATCH, ACCESS, i.offset, 0))
                    .then_some(i.offset)
            })?;
            targets.push(self.target(skips)?);
        }
        if let Some((number, target)) = self.test(TYPE) {
            rule.kind = match number {
                BLOCK => Kind::Block,
                CHAR => Kind::Char,
                _ => return None,
            };
            targets.push(target);
        }
        for (register, part) in [(MAJOR, &mut rule.major), (MINOR, &mut rule.minor)] {
            if let Some((number, target)) = self.test(register) {
                *part = Some(number.cast_unsigned());
                targets.push(target);
            }
        }
        let allow = self.take(|i| match i {
            i if i == answer(true)[0] => Some(true),
            i if i == answer(false)[0] => Some(false),
            _ => None,
        })?;
        self.take(|i| (i == answer(allow)[1]).then_some(()))?;
        targets.iter().all(|t| *t == self.at).then_some((rule, allow))
    }

    /// A test of a register for a number, and where it leads otherwise.
    fn test(&mut self, register: u8) -> Option<(i32, usize)> {
        let (number, skips) = self.take(|i| {
            let like = instruction(JUMP_UNLESS_IS, register, 0, i.offset, i.immediate);
            (i == like).then_some((i.immediate, i.offset))
        })?;
        Some((number, self.target(skips)?))
    }

    fn target(&self, skips: i16) -> Option<usize> {
        self.at.checked_add_signed(isize::from(skips))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allow_by_default: bool, rules: &[&str]) -> Policy {
        Policy { allow_by_default, rules: rules.iter().map(|r| r.parse().unwrap()).collect() }
    }

    /// What the kernel would answer.
    fn run(program: &[Instruction], kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0_i32; 6];
        let mut at = 0;
        loop {
            let i = program[at];
            at += 1;
            let (to, from) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            let jump = match i.code {
                LOAD_WORD => {
                    registers[to] = context[usize::try_from(i.offset).unwrap() / 4];
                    false
                }
                AND_32 => {
                    registers[to] &= i.immediate;
                    false
                }
                SHIFT_RIGHT_32 => {
                    registers[to] >>= i.immediate;
                    false
                }
                MOVE_32 => {
                    registers[to] = registers[from];
                    false
                }
                SET => {
                    registers[to] = i.immediate;
                    false
                }
                JUMP_UNLESS_IS => registers[to] != i.immediate,
                JUMP_UNLESS_SAME => registers[to] != registers[from],
                EXIT => return registers[0] == 1,
                code => panic!("instruction {code:#x}"),
            };
            if jump {
                at += usize::try_from(i.offset).unwrap();
            }
        }
    }

    #[test]
    fn a_program_answers_as_its_rules_say() {
        let program = encode(&policy(false, &["c 1:3 rw", "b 8:* m", "a *:9 rwm"]));
        assert!(run(&program, CHAR, READ, 1, 3));
        assert!(run(&program, CHAR, READ | WRITE, 1, 3));
        assert!(!run(&program, CHAR, MAKE, 1, 3));
        assert!(!run(&program, CHAR, READ | MAKE, 1, 3));
        assert!(!run(&program, BLOCK, READ, 1, 3));
        assert!(!run(&program, CHAR, READ, 1, 5));
        assert!(run(&program, BLOCK, MAKE, 8, 17));
        assert!(!run(&program, BLOCK, READ, 8, 17));
        assert!(run(&program, CHAR, MAKE, 77, 9));

        let program = encode(&policy(true, &["c 10:229 rwm"]));
        assert!(!run(&program, CHAR, READ, 10, 229));
        assert!(run(&program, CHAR, READ, 10, 200));
    }

    #[test]
    fn rules_come_back_from_their_program() {
        for rules in [
            policy(false, &[]),
            policy(true, &[]),
            policy(false, &["c 1:3 rwm", "c *:* m", "b 8:0 r", "a *:9 w", "c 5:2 "]),
            policy(true, &["b *:* rwm", "c 10:229 rw"]),
        ] {
            assert_eq!(decode(&encode(&rules)), Some(rules));
        }
    }

    #[test]
    fn what_the_verifier_took_out_is_understood() {
        // Behind a rule for everything nothing is reached.
        let whole = encode(&policy(false, &["c 1:3 rwm", "a *:* rwm"]));
        let cut = &whole[..whole.len() - 2];
        assert_eq!(decode(cut), Some(policy(false, &["c 1:3 rwm", "a *:* rwm"])));
    }

    #[test]
    fn another_program_is_none_of_ours() {
        let mut program = encode(&policy(false, &["c 1:3 rwm"]));
        assert_eq!(decode(&program[..program.len() - 1]), None);
        assert_eq!(decode(&program[1..]), None);
        assert_eq!(decode(&[]), None);
        // A jump to somewhere else.
        program[6].offset += 1;
        assert_eq!(decode(&program), None);
    }
}
