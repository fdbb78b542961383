//! What `lxc-cr prepare` would do for a container that cannot be checkpointed: the first thing to
//! be said then.

use crate::lxc::definition::Defined;
use crate::lxc::shell;
use crate::prepare::container;
use crate::prepare::installed::Installed;

/// The command that may be the cure, and what it takes; none where it would change nothing that
/// matters, or cannot.
pub(super) fn by_preparing(defined: &Defined) -> Option<String> {
    let plan = Installed::find().and_then(|installed| container::plan(defined, &installed, None));
    let cures =
        plan.inspect_err(|e| log::debug!("lxc-cr prepare: {e}")).is_ok_and(|plan| plan.cures);
    let named = shell::options(&defined.name, &defined.lxcpath);
    let restart = shell::restart(&defined.name, &defined.lxcpath);
    cures.then(|| format!("lxc-cr prepare {named} && {restart}"))
}
