//! What is put into commands that a person is told to type: a root shell reads it.

use std::path::Path;

use super::config::system::DEFAULT_LXCPATH;
use super::name::{ContainerName, LxcPath};

/// Whether a shell and the program it runs take this for one word and for no option. What a
/// container's root has named goes into no command otherwise: it would be shell code of the
/// container's that the host's root pastes.
pub(crate) fn is_plain(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@:_.-/".contains(c);
    !word.is_empty() && !word.starts_with('-') && word.chars().all(plain)
}

/// A word of the administrator's, as a shell takes it.
pub(crate) fn quoted(word: &str) -> String {
    match is_plain(word) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// The options that name a container: `-n NAME`, and `-P PATH` where it is not in LXC's own
/// directory. Without that the command would be about another container of this name.
pub(crate) fn options(name: &ContainerName, lxcpath: &LxcPath) -> String {
    let mut text = format!("-n {}", quoted(name.as_str()));
    if lxcpath.as_path() != Path::new(DEFAULT_LXCPATH) {
        text.push_str(&format!(" -P {}", quoted(&lxcpath.to_string())));
    }
    text
}

/// The commands that restart a container so that it reads its configuration again. `lxc-stop -r`
/// does not: the monitor keeps what it has read (lxccontainer.c, `do_lxcapi_start`). Proxmox VE
/// writes the configuration itself.
pub(crate) fn restart(name: &ContainerName, lxcpath: &LxcPath) -> String {
    let is_of_proxmox = || Path::new("/etc/pve/lxc").join(format!("{name}.conf")).exists();
    if lxcpath.as_path() == Path::new(DEFAULT_LXCPATH) && is_of_proxmox() {
        return format!("pct reboot {}", quoted(name.as_str()));
    }
    let options = options(name, lxcpath);
    format!("lxc-stop {options} && lxc-start {options}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_words_go_into_commands() {
        for plain in ["/mnt/a-b", "getty@tty1.service", "a:b_c.d"] {
            assert!(is_plain(plain), "{plain}");
        }
        for other in ["", "-f", "a b", "a'b", "$(id)", "a;b", "a\nb", "a\\x2db", "ä", "/*"] {
            assert!(!is_plain(other), "{other}");
        }
        assert_eq!((quoted("/a").as_str(), quoted("it's").as_str()), ("/a", r"'it'\''s'"));
    }

    #[test]
    fn a_container_elsewhere_is_named_with_its_directory() {
        let named = |name: &str, path: &str| {
            options(&ContainerName::new(name).unwrap(), &LxcPath::new(path).unwrap())
        };
        assert_eq!(named("web", DEFAULT_LXCPATH), "-n web");
        assert_eq!(named("web", "/srv/lxc"), "-n web -P /srv/lxc");
        assert_eq!(named("a b", "/srv/my lxc"), "-n 'a b' -P '/srv/my lxc'");
    }
}
