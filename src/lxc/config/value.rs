//! The small forms that values take: numbers, sizes, signals, paths, id maps, limits, time offsets.
//!
//! Each function says `None` to a text that liblxc refuses too.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// The first and the last real-time signal, as glibc numbers them (liblxc asks glibc, so not the
/// kernel's 32).
const SIGRTMIN: i32 = 34;
const SIGRTMAX: i32 = 64;

/// The names that `sig_parse` of liblxc knows, for Linux on the architectures that number alike.
const SIGNALS: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// A number in the forms of `strtoul(…, 0)`: decimal, `0x…`, or octal with a leading zero.
fn digits(text: &str) -> Option<u64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (body, radix) = match (hex, text) {
        (Some(hex), _) => (hex, 16),
        (None, "0") => (text, 10),
        (None, _) if text.starts_with('0') => (text.get(1..)?, 8),
        (None, _) => (text, 10),
    };
    // `from_str_radix` would take a second sign.
    body.starts_with(|c: char| c.is_ascii_hexdigit())
        .then(|| u64::from_str_radix(body, radix).ok())?
}

/// What `isspace` skips before a number.
fn skip_space(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c'])
}

/// An unsigned number (`lxc_safe_ulong`).
pub(super) fn unsigned(text: &str) -> Option<u64> {
    digits(skip_space(text))
}

/// An unsigned number of 32 bits (`lxc_safe_uint`).
pub(super) fn unsigned32(text: &str) -> Option<u32> {
    unsigned(text).and_then(|n| u32::try_from(n).ok())
}

/// A signed number of 32 bits (`lxc_safe_int`).
pub(super) fn signed32(text: &str) -> Option<i32> {
    let text = skip_space(text);
    match text.strip_prefix('-') {
        Some(rest) if !rest.starts_with('+') => {
            i32::try_from(-i64::try_from(digits(rest)?).ok()?).ok()
        }
        Some(_) => None,
        None => i32::try_from(digits(text)?).ok(),
    }
}

/// A signal by number or by name: `9`, `SIGPWR`, `SIGRTMIN+3`, `SIGRTMAX-1`.
pub(super) fn signal(text: &str) -> Option<i32> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return i32::try_from(unsigned32(text)?).ok();
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG")?;
    let real_time = |n: &str| {
        n.starts_with(|c: char| c.is_ascii_digit())
            .then(|| unsigned32(n))?
            .and_then(|n| i32::try_from(n).ok())
            .filter(|n| *n <= SIGRTMAX - SIGRTMIN)
    };
    if let Some(n) = name.strip_prefix("RTMIN+") {
        return real_time(n).map(|n| SIGRTMIN + n);
    }
    if let Some(n) = name.strip_prefix("RTMAX-") {
        return real_time(n).map(|n| SIGRTMAX - n);
    }
    SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The size of the console's ring buffer or log: rounded up to a page and then to a power of two.
pub(super) fn console_size(text: &str) -> Option<u64> {
    const PAGE: u64 = 4096;
    const AUTO: u64 = 1 << 17;
    if text == "auto" {
        return Some(AUTO);
    }
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(number.len()..)?.to_ascii_uppercase();
    let number = unsigned(number.trim_end_matches([' ', '\t']))?;
    let scale = match (unit.as_str(), unit.len()) {
        (_, 0 | 1) => 1,
        ("KB", _) => 1 << 10,
        ("MB", _) => 1 << 20,
        ("GB", _) => 1 << 30,
        _ => return None,
    };
    number.checked_mul(scale)?.max(PAGE).checked_next_power_of_two()
}

/// A path without doubled slashes, `.` components and a slash at its end (`lxc_path_simplify`).
pub(super) fn simplified_path(path: &[u8]) -> OsString {
    let absolute = path.first() == Some(&b'/');
    let parts = path.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".");
    let joined = parts.collect::<Vec<_>>().join(&b'/');
    let simple = match (absolute, joined.is_empty(), path.is_empty()) {
        (true, _, _) => [b"/".as_slice(), &joined].concat(),
        (false, true, false) => b".".to_vec(),
        (false, _, _) => joined,
    };
    OsString::from_vec(simple)
}

/// A range of ids of a user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// Users or groups.
    pub kind: IdKind,
    /// The first id inside the container.
    pub inside: u64,
    /// The first id on the host.
    pub host: u64,
    /// How many ids.
    pub count: u64,
}

/// Which ids an [`IdMap`] maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdKind {
    /// User ids.
    Uid,
    /// Group ids.
    Gid,
}

/// The value of `lxc.idmap`: `u 0 100000 65536`.
pub(super) fn id_map(text: &str) -> Option<IdMap> {
    let text = text.trim_start_matches([' ', '\t', '\r']);
    let kind = match text.chars().next()? {
        'u' => IdKind::Uid,
        'g' => IdKind::Gid,
        _ => return None,
    };
    let rest = text.get(1..)?;
    let fields: Vec<&str> = rest.split([' ', '\t', '\r']).filter(|f| !f.is_empty()).collect();
    match fields.as_slice() {
        [inside, host, count] if rest.starts_with([' ', '\t', '\r']) => Some(IdMap {
            kind,
            inside: unsigned(inside)?,
            host: unsigned(host)?,
            count: unsigned(count)?,
        }),
        _ => None,
    }
}

/// The value of `lxc.prlimit.X`, `soft` or `soft:hard`, in the form in which liblxc prints it.
pub(super) fn limit(text: &str) -> Option<String> {
    // strtoull: nothing is 0, and a sign counts down from the top, so -1 is no limit at all.
    let one = |text: &str| {
        let number = match text.strip_prefix('-') {
            _ if text == "unlimited" => Some(u64::MAX),
            _ if text.is_empty() => Some(0),
            Some(rest) => rest.parse::<u64>().ok().map(u64::wrapping_neg),
            None => text.parse::<u64>().ok(),
        };
        number.map(|n| if n == u64::MAX { "unlimited".to_owned() } else { n.to_string() })
    };
    let (soft, hard) = match text.split_once(':') {
        Some((soft, hard)) if !hard.trim().is_empty() => (one(soft.trim())?, one(hard.trim())?),
        Some((soft, _)) => (one(soft.trim())?, one(soft.trim())?),
        None => (one(text.trim())?, one(text.trim())?),
    };
    Some(if soft == hard { soft } else { format!("{soft}:{hard}") })
}

/// A time offset, as seconds or as nanoseconds: liblxc keeps the two apart and prints only one of
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeOffset {
    /// Given in `h`, `m` or `s`.
    Seconds(i64),
    /// Given in `ms`, `us` or `ns`.
    Nanoseconds(i64),
}

/// The value of `lxc.time.offset.*`: a number and a unit.
pub(super) fn time_offset(text: &str) -> Option<TimeOffset> {
    let text = skip_space(text);
    let sign = usize::from(text.starts_with(['+', '-']));
    let end = text.get(sign..)?.find(|c: char| !c.is_ascii_digit())? + sign;
    let number: i64 = text.get(..end)?.parse().ok()?;
    match text.get(end..)?.trim_matches([' ', '\t']) {
        "h" => number.checked_mul(3600).map(TimeOffset::Seconds),
        "m" => number.checked_mul(60).map(TimeOffset::Seconds),
        "s" => Some(TimeOffset::Seconds(number)),
        "ms" => number.checked_mul(1_000_000).map(TimeOffset::Nanoseconds),
        "us" => number.checked_mul(1000).map(TimeOffset::Nanoseconds),
        "ns" => Some(TimeOffset::Nanoseconds(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_as_strtoul_does() {
        for (text, want) in [
            ("0", Some(0)),
            ("10", Some(10)),
            ("010", Some(8)),
            ("0x1F", Some(31)),
            (" 7", Some(7)),
            ("+7", Some(7)),
            ("++7", None),
            ("-7", None),
            ("7 ", None),
            ("", None),
            ("0x", None),
            ("4294967296", None),
            ("08", None),
        ] {
            assert_eq!(unsigned32(text), want, "{text:?}");
        }
        for (text, want) in
            [("-5", Some(-5)), ("-+5", None), ("2147483648", None), ("-2147483648", Some(i32::MIN))]
        {
            assert_eq!(signed32(text), want, "{text:?}");
        }
    }

    #[test]
    fn reads_signals_by_number_and_name() {
        for (text, want) in [
            ("9", Some(9)),
            ("SIGPWR", Some(30)),
            ("sigterm", Some(15)),
            ("SIGRTMIN+3", Some(37)),
            ("SIGRTMAX-1", Some(63)),
            ("SIGRTMIN+31", None),
            ("SIGRTMIN", None),
            ("PWR", None),
            ("SIGNOPE", None),
            ("", None),
        ] {
            assert_eq!(signal(text), want, "{text:?}");
        }
    }

    #[test]
    fn reads_sizes() {
        for (text, want) in [
            ("auto", Some(131_072)),
            ("1", Some(4096)),
            ("5KB", Some(8192)),
            ("1 MB", Some(1 << 20)),
            ("5000B", Some(8192)),
            ("1XB", None),
            ("99999999999GB", None),
            ("-1", None),
        ] {
            assert_eq!(console_size(text), want, "{text:?}");
        }
    }

    #[test]
    fn simplifies_paths() {
        for (path, want) in [
            ("/a//b/./c/", "/a/b/c"),
            ("a/b/", "a/b"),
            ("./a", "a"),
            ("/", "/"),
            ("//", "/"),
            ("", ""),
            (".", "."),
            ("none", "none"),
            ("/a/../b", "/a/../b"),
        ] {
            assert_eq!(simplified_path(path.as_bytes()), want, "{path:?}");
        }
    }

    #[test]
    fn reads_id_maps() {
        let want = IdMap { kind: IdKind::Gid, inside: 0, host: 100_000, count: 65536 };
        assert_eq!(id_map("g 0 100000 65536"), Some(want));
        assert_eq!(id_map(" g\t0  100000 65536 "), Some(want));
        for wrong in
            ["", "u", "u0 1 2", "x 0 1 2", "u 0 1", "u 0 1 2 3", "u a 1 2", "b 0 100000 65536"]
        {
            assert_eq!(id_map(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn reads_limits_and_time_offsets() {
        for (text, want) in [
            ("10", Some("10")),
            ("10:20", Some("10:20")),
            ("10 : unlimited", Some("10:unlimited")),
            ("unlimited", Some("unlimited")),
            ("10:", Some("10")),
            (":5", Some("0:5")),
            ("-1", Some("unlimited")),
            ("10 20", None),
            ("x", None),
            ("10:x", None),
        ] {
            assert_eq!(limit(text).as_deref(), want, "{text:?}");
        }
        assert_eq!(time_offset("2h"), Some(TimeOffset::Seconds(7200)));
        assert_eq!(time_offset("-3 ms"), Some(TimeOffset::Nanoseconds(-3_000_000)));
        for wrong in ["", "5", "h", "5d", "9223372036854775807h", "-"] {
            assert_eq!(time_offset(wrong), None, "{wrong:?}");
        }
    }
}
