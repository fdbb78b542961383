//! Makes the manuals and completions: `cargo run --example doc -- DIRECTORY`.
//!
//! What the commands' `--help` says comes from their own definitions; the rest of each manual is
//! written by hand, in `packaging/man`. Paths of the installation (`@LIBEXECDIR@`, …) are left for
//! `make install` to fill in.
#![allow(clippy::print_stderr)]

mod completions;
mod pages;

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1) else {
        eprintln!("usage: doc DIRECTORY");
        return ExitCode::from(2);
    };
    match write(Path::new(&dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("doc: {e}");
            ExitCode::FAILURE
        }
    }
}

fn write(dir: &Path) -> io::Result<()> {
    let commands = lxc_cr::api::cli::commands();
    let (man, bash, zsh, fish) =
        (dir.join("man"), dir.join("bash"), dir.join("zsh"), dir.join("fish"));
    for dir in [&man, &bash, &zsh, &fish] {
        fs::create_dir_all(dir)?;
    }
    for page in pages::all(&commands)? {
        fs::write(man.join(page.name), page.text)?;
    }
    for command in &commands {
        let name = command.get_name();
        fs::write(bash.join(name), completions::bash(command))?;
        fs::write(zsh.join(format!("_{name}")), completions::zsh(command))?;
        fs::write(fish.join(format!("{name}.fish")), completions::fish(command))?;
    }
    Ok(())
}
