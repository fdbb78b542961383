//! What `lxc-cr prepare` would do, on hosts and containers made of files: no root is needed,
//! nothing is changed.
//!
//! A case is a file below `tests/prepare`: what the user wishes on its first lines, then files (`--
//! PATH --`) and links (`-- PATH -> TARGET --`), and at its end what a person would see. `@DIR@`
//! stands for the directory of the case, `@NUL@` for a NUL.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use lxc_cr::api::lxc::definition::Defined;
use lxc_cr::api::lxc::name::{ContainerName, LxcPath};
use lxc_cr::api::prepare::change::Change;
use lxc_cr::api::prepare::container;
use lxc_cr::api::prepare::host::spec::{Address, BridgeSpec, Cidr};
use lxc_cr::api::prepare::host::{self, Network, Port, Root};
use lxc_cr::api::prepare::init::Init;
use lxc_cr::api::prepare::installed::Installed;
use lxc_cr::api::sys::netlink::Mac;

/// The section that is compared.
const EXPECTED: &str = "expected";

/// A case, with its files in a directory.
struct Case {
    dir: tempfile::TempDir,
    wishes: Vec<(String, String)>,
    expected: String,
}

impl Case {
    fn read(path: &Path) -> Case {
        let dir = tempfile::Builder::new().prefix("case").tempdir().unwrap();
        let text = fs::read_to_string(path).unwrap();
        let (head, body) = text.split_once("\n-- ").unwrap();
        let wishes = head.lines().filter_map(|line| line.split_once(": "));
        let wishes = wishes.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let mut expected = String::new();
        for section in format!("\n{body}")
            .split("\n-- ")
            .map(|s| s.trim_start_matches('\n'))
            .filter(|s| !s.is_empty())
        {
            let (name, content) =
                section.split_once(" --\n").or(section.split_once(" --")).unwrap();
            let content = if content.is_empty() || content.ends_with('\n') {
                content.to_owned()
            } else {
                format!("{content}\n")
            };
            if name == EXPECTED {
                expected = content;
                continue;
            }
            let (name, target) =
                name.split_once(" -> ").map_or((name, None), |(name, target)| (name, Some(target)));
            let at = dir.path().join(name);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            match target {
                Some(target) => symlink(target, at).unwrap(),
                None => fs::write(
                    at,
                    content.replace("@DIR@", dir.path().to_str().unwrap()).replace("@NUL@", "\0"),
                )
                .unwrap(),
            }
        }
        Case { dir, wishes, expected }
    }

    fn spec(&self, key: &str) -> Option<&str> {
        self.wishes.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// What is seen, without the name of the directory.
    fn without_dir(&self, text: &str) -> String {
        text.replace(self.dir.path().to_str().unwrap(), "@DIR@")
    }
}

fn diffs<'a>(changes: impl IntoIterator<Item = &'a Change>) -> String {
    changes.into_iter().map(|change| format!("{}mode {:o}\n", change.diff(), change.mode)).collect()
}

/// "lxcbr0 10.0.3.1/24".
fn network_of(text: &str) -> Option<(String, Cidr)> {
    let (link, cidr) = text.split_once(' ')?;
    let Ok(Address::Fixed(cidr)) = cidr.parse() else { return None };
    Some((link.to_owned(), cidr))
}

fn of_host(case: &Case) -> String {
    let spec = BridgeSpec {
        bridge: case.spec("bridge").unwrap_or("br0").to_owned(),
        address: case.spec("address").map(|a| a.parse().unwrap()),
        gateway: case.spec("gateway").map(|g| g.parse().unwrap()),
        port: case.spec("port").map(str::to_owned),
    };
    let default_route = case.spec("default-route").is_some();
    let network = Network {
        bridge: case.spec("there").map(|_| (true, true)),
        port: spec.port.as_ref().map(|_| Port {
            mac: Some(Mac([0x52, 0x54, 0, 1, 2, 3])),
            default_route,
            on_bridge: false,
        }),
        networks: case.spec("network").map(|text| network_of(text).unwrap()).into_iter().collect(),
    };
    match host::plan(&Root::new(case.dir.path()), &spec, &network, Vec::new()) {
        Ok(plan) => {
            let lines =
                plan.deeds().into_iter().chain(plan.advice.clone()).map(|line| format!("{line}\n"));
            format!("{}{}{}", plan.findings, diffs(&plan.changes), lines.collect::<String>())
        }
        Err(failure) => {
            format!("{failure}\nhint: {}\n", failure.hint.as_deref().unwrap_or_default())
        }
    }
}

fn of_container(case: &Case) -> String {
    let prefix = case.dir.path().join("usr");
    let installed = Installed::below(&prefix);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("lxc-config");
    fs::create_dir_all(&installed.config).unwrap();
    fs::create_dir_all(installed.data.join("systemd")).unwrap();
    for name in ["lxc-cr.conf", "lxc-cr-systemd.conf"] {
        let text = fs::read_to_string(source.join(format!("{name}.in"))).unwrap();
        fs::write(
            installed.config.join(name),
            text.replace("@DATADIR@", installed.data.to_str().unwrap()),
        )
        .unwrap();
    }
    fs::copy(source.join("systemd/no-bpf.seccomp"), installed.profile()).unwrap();
    let (name, lxcpath) =
        (ContainerName::new("web").unwrap(), LxcPath::new(case.dir.path()).unwrap());
    let defined = Defined::load(&name, &lxcpath, None).unwrap();
    let init = case.spec("init").and_then(Init::named);
    match container::plan(&defined, &installed, init) {
        Ok(plan) => format!("{} {}\n{}{}", plan.init, plan.id_map, diffs(&plan.change), plan.notes),
        Err(failure) => {
            format!("{failure}\nhint: {}\n", failure.hint.as_deref().unwrap_or_default())
        }
    }
}

/// Compares all cases of a kind; what differs is shown as it would have to be.
fn compare(kind: &str, seen: fn(&Case) -> String) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/prepare").join(kind);
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 3, "only {} cases", paths.len());
    let mut wrong = String::new();
    for path in paths {
        let case = Case::read(&path);
        let seen = case.without_dir(&seen(&case));
        if seen != case.expected {
            wrong += &format!("{} is now:\n{seen}\n", path.display());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn hosts() {
    compare("host", of_host);
}

#[test]
fn containers() {
    compare("container", of_container);
}
