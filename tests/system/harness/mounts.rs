//! What is mounted in a container, in words that a restore must not change: each mount with all
//! that the kernel says of it, and instead of the numbers that it gives out anew, what they stand
//! for.

use std::fs;

/// One line of a mount table.
struct Mount<'a> {
    id: &'a str,
    parent: &'a str,
    device: &'a str,
    root: &'a str,
    point: &'a str,
    options: &'a str,
    optional: Vec<&'a str>,
    /// Type, source and options of the file system.
    file_system: Vec<&'a str>,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Mount<'a> {
        let (mount, file_system) = line.split_once(" - ").unwrap();
        let fields: Vec<&str> = mount.split(' ').collect();
        let [id, parent, device, root, point, options] = fields[..6].try_into().unwrap();
        let (optional, file_system) = (fields[6..].to_vec(), file_system.split(' ').collect());
        Mount { id, parent, device, root, point, options, optional, file_system }
    }

    fn group(&self, kind: &str) -> Option<&'a str> {
        self.optional.iter().find_map(|field| field.strip_prefix(kind))
    }
}

/// The mounts of a process's mount namespace, sorted.
pub fn of(pid: u32) -> Vec<String> {
    let path = format!("/proc/{pid}/mountinfo");
    describe(
        &fs::read_to_string(&path).unwrap(),
        &fs::read_to_string("/proc/self/mountinfo").unwrap(),
    )
}

/// The same by the text of a container's mountinfo and of its host's.
pub fn describe(inside: &str, host: &str) -> Vec<String> {
    let inside: Vec<Mount<'_>> = inside.lines().map(Mount::parse).collect();
    let host: Vec<Mount<'_>> = host.lines().map(Mount::parse).collect();
    let members = |table: &[Mount<'_>], group: &str| {
        let mut points: Vec<&str> =
            table.iter().filter(|m| m.group("shared:") == Some(group)).map(|m| m.point).collect();
        points.sort_unstable();
        points.join(",")
    };
    let mut words: Vec<String> = inside
        .iter()
        .map(|mount| {
            let upon = inside.iter().find(|m| m.id == mount.parent).map_or("-", |m| m.point);
            let mut groups = Vec::new();
            for field in &mount.optional {
                groups.push(match field.split_once(':') {
                    Some(("shared", group)) => match members(&host, group).as_str() {
                        "" => format!("shares with {}", members(&inside, group)),
                        points => format!("shares with the host's {points}"),
                    },
                    Some(("master", group)) => {
                        match (members(&inside, group).as_str(), members(&host, group).as_str()) {
                            ("", points) => format!("receives from the host's {points}"),
                            (points, _) => format!("receives from {points}"),
                        }
                    }
                    _ => (*field).to_owned(),
                });
            }
            let device = if mount.device.starts_with("0:") { "0:*" } else { mount.device };
            let mut file_system = mount.file_system.clone();
            // What is said to be mounted is a word; CRIU says the kind of a cgroup2, LXC says
            // "none".
            if file_system[0] == "cgroup2" {
                file_system[1] = "cgroup2";
            }
            // LXC takes its terminals from the container's devpts, our monitor from the host's.
            let is_terminal = file_system[0] == "devpts" && mount.root[1..].parse::<u32>().is_ok();
            if is_terminal {
                file_system.pop();
            }
            let (root, point, options) =
                (if is_terminal { "/N" } else { mount.root }, mount.point, mount.options);
            format!(
                "{point} on {upon}: {device} {root} {options} {} [{}]",
                file_system.join(" "),
                groups.join("; ")
            )
        })
        .collect();
    words.sort();
    words
}

/// What differs, one line each.
pub fn differences(before: &[String], after: &[String]) -> Vec<String> {
    let only = |these: &[String], those: &[String], sign: &str| -> Vec<String> {
        these
            .iter()
            .filter(|line| !those.contains(line))
            .map(|line| format!("{sign} {line}"))
            .collect()
    };
    [only(before, after, "-"), only(after, before, "+")].concat()
}
