//! What a row of the table of keys is.

/// One trial of one key, or of a few that only make sense together.
///
/// The scripts are of sh(1). They have NAME, LXCPATH, DIR (the container's directory), ROOTFS and,
/// of a running container, INIT; `lx lxc-info …` is a command of LXC on it, `inside …` a command in
/// it. A hook that is `$DIR/hook` appends its arguments and LXC's variables to `$DIR/notes`.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The keys that it tries.
    pub keys: &'static [&'static str],
    /// Lines of the configuration, with $DIR and $ROOTFS.
    pub lines: &'static str,
    /// What has to be there before the container is started.
    pub make: &'static str,
    /// What is to be seen of the running container besides what is always looked at. Run on one
    /// that LXC has started and on one that was restored: both print the same.
    pub probe: &'static str,
    /// How the container is ended; what that prints, and what the hooks note then, is the same,
    /// too.
    pub end: &'static str,
    /// Whether the witness runs in it: then all that it sees from inside is compared.
    pub witness: bool,
    /// Whether the hooks that LXC runs at a start are run at a restart, with the same arguments.
    pub hooks_again: bool,
    /// What comes of it.
    pub expected: Expected,
    /// Whether it is in the sample that each run of the tests tries.
    pub sample: bool,
}

/// What should come of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// All is as LXC made it.
    Same,
    /// Refused before the container is touched, with these words.
    Refused(&'static str),
    /// These things differ (keys of what is seen begin like this), and these words say so before
    /// the container stops.
    #[allow(dead_code, reason = "no row is expected to differ yet")]
    Named(&'static [&'static str], &'static str),
    /// LXC does not start such a container on this test host, for this reason.
    NotHere(&'static str),
}

/// What most rows have.
pub const ROW: Row = Row {
    keys: &[],
    lines: "",
    make: "",
    probe: "",
    end: "lx lxc-stop -k",
    witness: true,
    hooks_again: false,
    expected: Expected::Same,
    sample: false,
};

impl Row {
    /// Whether something of its life is to be compared, not only how the container looks.
    pub fn has_lives(&self) -> bool {
        !self.probe.is_empty() || self.end != ROW.end || self.lines.contains("/hook")
    }

    /// Its keys as docs/configuration.md has them.
    pub fn keys_in_page(&self) -> String {
        let keys: Vec<String> = self.keys.iter().map(|key| format!("`{key}`")).collect();
        keys.join(" ")
    }

    /// Its name in lists.
    pub fn name(&self) -> String {
        self.keys.join(" + ")
    }
}
