//! The programs that are in force on a cgroup.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{Policy, program};
use crate::lxc::protocol::DeviceItem;
use crate::sys::bpf::{self, Instruction};

/// A call of a kernel function, and a load of something that lives outside the program
/// (include/uapi/linux/bpf.h).
const CALL: u8 = 0x85;
const LOAD_WIDE: u8 = 0x18;
/// Registers that a program may name; the kernel's own ones come with its hardening.
const MAX_REGISTER: u8 = 10;
/// Digits of one instruction in the record.
const DIGITS: usize = 16;

/// A device program as it stands in the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Program {
    /// One that was made from rules.
    Rules(Policy),
    /// Somebody else's, which means by itself all that it means.
    Instructions {
        /// Its instructions, 16 hexadecimal digits each.
        instructions: String,
    },
}

/// The device programs on a cgroup directory; `None` stands for one that cannot be read or taken
/// elsewhere.
pub(crate) fn read(dir: &Path) -> Result<Vec<Option<Program>>> {
    let what = || format!("read the device programs of cgroup {}", dir.display());
    let cgroup = File::open(dir).with_context(what)?;
    let programs = match bpf::programs_of(cgroup.as_fd()) {
        Ok(programs) => programs,
        // A kernel without such programs has none.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(e).with_context(what),
    };
    programs
        .iter()
        .map(|p| Ok(understand(&bpf::instructions_of(p.as_fd()).with_context(what)?)))
        .collect()
}

fn understand(instructions: &[Instruction]) -> Option<Program> {
    if let Some(policy) = program::decode(instructions) {
        return Some(Program::Rules(policy));
    }
    let foreign = |i: &Instruction| {
        [CALL, LOAD_WIDE].contains(&i.code)
            || i.registers >> 4 > MAX_REGISTER
            || i.registers & 15 > MAX_REGISTER
    };
    let whole = !instructions.is_empty() && !instructions.iter().any(foreign);
    whole.then(|| Program::Instructions { instructions: instructions.iter().map(digits).collect() })
}

fn digits(i: &Instruction) -> String {
    format!("{:02x}{:02x}{:04x}{:08x}", i.code, i.registers, i.offset, i.immediate)
}

fn of_digits(text: &str) -> Option<Vec<Instruction>> {
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let one = |digits: &[u8]| -> Option<Instruction> {
        let text = std::str::from_utf8(digits).ok()?;
        Some(Instruction {
            code: u8::from_str_radix(text.get(..2)?, 16).ok()?,
            registers: u8::from_str_radix(text.get(2..4)?, 16).ok()?,
            offset: u16::from_str_radix(text.get(4..8)?, 16).ok()?.cast_signed(),
            immediate: number(text.get(8..16)?)?.cast_signed(),
        })
    };
    text.len().is_multiple_of(DIGITS).then(|| text.as_bytes().chunks(DIGITS).map(one).collect())?
}

impl Program {
    fn instructions(&self) -> Result<Vec<Instruction>> {
        match self {
            Program::Rules(policy) => Ok(program::encode(policy)),
            Program::Instructions { instructions } => {
                of_digits(instructions).context("the record holds an invalid device program")
            }
        }
    }
}

/// Puts programs on a cgroup directory, one after the other. They are gone when the directory is
/// removed.
pub(crate) fn attach(dir: &Path, programs: &[Program]) -> Result<Vec<OwnedFd>> {
    if programs.is_empty() {
        return Ok(Vec::new());
    }
    let what = || format!("put a device program on cgroup {}", dir.display());
    let cgroup = File::open(dir).with_context(what)?;
    let mut attached = Vec::new();
    for program in programs {
        let loaded = bpf::load(&program.instructions()?).with_context(what)?;
        bpf::attach(cgroup.as_fd(), loaded.as_fd(), None).with_context(what)?;
        attached.push(loaded);
    }
    Ok(attached)
}

/// The rules of a running container, for its monitor.
#[derive(Debug)]
pub(crate) struct Attached {
    cgroup: OwnedFd,
    policy: Policy,
    /// The program that stands for the policy; none before the first rule.
    program: Option<OwnedFd>,
}

impl Attached {
    /// Takes charge of what [`attach`] has put on a cgroup. `otherwise` is the policy that requests
    /// change where no program of rules is in force.
    pub(crate) fn new(
        dir: &Path,
        programs: &[Program],
        attached: Vec<OwnedFd>,
        otherwise: Policy,
    ) -> Result<Attached> {
        let cgroup =
            File::open(dir).with_context(|| format!("open cgroup {}", dir.display()))?.into();
        let mut rules = programs.iter().zip(attached).filter_map(|(program, fd)| match program {
            Program::Rules(policy) => Some((policy.clone(), fd)),
            Program::Instructions { .. } => None,
        });
        Ok(match rules.next_back() {
            Some((policy, fd)) => Attached { cgroup, policy, program: Some(fd) },
            None => Attached { cgroup, policy: otherwise, program: None },
        })
    }

    /// Does what `lxc-device` or `lxc-cgroup` asks. There is no moment without a program, and after
    /// a failure the old one is in force.
    pub(crate) fn request(&mut self, item: &DeviceItem) -> io::Result<()> {
        let mut policy = self.policy.clone();
        if !policy.request(item) && self.program.is_some() {
            return Ok(());
        }
        let new = bpf::load(&program::encode(&policy))?;
        bpf::attach(self.cgroup.as_fd(), new.as_fd(), self.program.as_ref().map(AsFd::as_fd))?;
        self.policy = policy;
        self.program = Some(new);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_written_as_rules_or_as_it_is() {
        let rules = Policy { allow_by_default: false, rules: vec!["c 1:3 rwm".parse().unwrap()] };
        let mut instructions = program::encode(&rules);
        assert_eq!(understand(&instructions), Some(Program::Rules(rules)));
        // No rule looks like this.
        instructions[1].immediate = -2;
        instructions[6].offset = -1;
        let kept = understand(&instructions).unwrap();
        assert_eq!(kept.instructions().unwrap(), instructions);
        instructions[3].code = CALL;
        assert_eq!(understand(&instructions), None);
        assert_eq!(understand(&[]), None, "the kernel did not show it");
    }

    #[test]
    fn the_record_keeps_both() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Both {
            devices: Vec<Program>,
        }
        let rules = Policy { allow_by_default: true, rules: vec!["b *:* rm".parse().unwrap()] };
        let both = Both {
            devices: vec![
                Program::Rules(rules),
                Program::Instructions {
                    instructions: "b700000000000001950000000000000".to_owned() + "0",
                },
            ],
        };
        let text = toml::to_string(&both).unwrap();
        assert!(text.contains("rules = [\"b *:* rm\"]"), "{text}");
        assert_eq!(toml::from_str::<Both>(&text).unwrap(), both);
        for wrong in ["b7", "zz00000000000001"] {
            assert!(
                Program::Instructions { instructions: wrong.to_owned() }.instructions().is_err()
            );
        }
    }
}
