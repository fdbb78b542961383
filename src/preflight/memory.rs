//! Memory that keeps CRIU from making its calls in a process.

use super::Names;
use super::descriptor::Opened;
use super::finding::{Finding, Place};
use super::task::{Task, end};
use crate::report::Foreign;

/// Judges the memory of all processes; pure. infect.c: `POKEDATA failed`.
pub(crate) fn judge(opened: &[Opened<'_>], names: &Names) -> Vec<Finding> {
    opened
        .iter()
        .filter_map(|o| Some(shared_code(o.task, o.shared_code.as_ref()?, names)))
        .collect()
}

fn shared_code(task: &Task, target: &Foreign, names: &Names) -> Finding {
    let finding = Finding::blocker(
        format!("{} has shared memory with code in front of its program's", task.name()),
        "CRIU makes its calls from the first code of a process, and cannot write into shared \
         memory",
    )
    .at(Place { file: Some(target.clone()), ..task.place() });
    if is_php(task) {
        return finding.remedy(format!(
            "start PHP without the buffer of its compiler (opcache.jit_buffer_size=0): {}",
            names.prepare()
        ));
    }
    finding.remedy(format!(
        "switch off the program's compiler (JIT) in its configuration, or {}",
        end(task)
    ))
}

/// PHP's own process manager, its command lines, and web servers with it as a module.
fn is_php(task: &Task) -> bool {
    ["php", "apache2", "httpd"].iter().any(|name| task.command.raw().starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::super::task::tests::task;
    use super::*;

    #[test]
    fn php_is_told_what_to_do() {
        let php = task(105, "php-fpm8.4");
        let other = task(106, "x");
        let opened = |task| Opened {
            task,
            descriptors: Vec::new(),
            mapped: Vec::new(),
            shared_code: Some("/dev/zero (deleted)".into()),
            program: None,
        };
        let found = judge(
            &[opened(&php), opened(&other), Opened { shared_code: None, ..opened(&php) }],
            &Names::test(),
        );
        assert_eq!(found.len(), 2);
        assert!(found[0].remedy.contains("lxc-cr prepare -n web"), "{}", found[0].remedy);
        assert!(found[1].remedy.ends_with("kill 106"), "{}", found[1].remedy);
    }
}
