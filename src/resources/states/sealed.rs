//! Memory that is sealed (mseal(2), Linux 6.10): it can be neither unmapped nor made writable
//! again. CRIU (4.2) restores the memory without the seal.

use std::io::{self, BufRead, BufReader};

use anyhow::{Context, Result};

use crate::sys::inject::Stopped;

/// The flag in `VmFlags` of /proc/PID/smaps.
const FLAG: &str = "sl";

/// Start and length of an area, in bytes.
pub(crate) type Area = (u64, u64);

/// The areas of a process that it has sealed.
///
/// # Errors
/// As reading /proc/PID/smaps.
pub(crate) fn of_process(pid: i32) -> io::Result<Vec<Area>> {
    parse(BufReader::new(std::fs::File::open(format!("/proc/{pid}/smaps"))?))
}

/// Has a process seal its areas again.
pub(crate) fn set(stopped: &Stopped, areas: &[Area]) -> Result<()> {
    for (start, length) in areas {
        stopped
            .call(libc::SYS_mseal, &[*start, *length, 0])
            .with_context(|| format!("seal its memory at {start:#x}"))?;
    }
    Ok(())
}

/// Adjoining areas are one. What the kernel itself maps and seals is its own.
fn parse(text: impl BufRead) -> io::Result<Vec<Area>> {
    let (mut found, mut last): (Vec<Area>, Option<Area>) = (Vec::new(), None);
    for line in text.split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let Some((start, end)) = last.filter(|_| flags.split(' ').any(|flag| flag == FLAG))
            else {
                continue;
            };
            match found.last_mut() {
                Some((before, length)) if *before + *length == start => *length += end - start,
                _ => found.push((start, end - start)),
            }
        } else if let Some(area) = header(&line) {
            last = Some(area).filter(|_| !line.contains("[v"));
        }
    }
    Ok(found)
}

/// "7f2c8a400000-7f2c8a421000 rw-p …"; other lines begin with a word and a colon.
fn header(line: &str) -> Option<Area> {
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_areas_are_found() {
        let text = "\
1000-2000 r--p 00000000 00:00 0
Size:                  4 kB
VmFlags: rd mr mw me sl
2000-4000 rw-p 00000000 00:00 0
VmFlags: rd wr mr mw me sl
5000-6000 rw-p 00000000 00:00 0 [heap]
VmFlags: rd wr mr mw me slx
7000-8000 r-xp 00000000 00:00 0 [vdso]
VmFlags: rd ex mr mw me de sl
";
        assert_eq!(parse(text.as_bytes()).unwrap(), [(0x1000, 0x3000)]);
    }
}
