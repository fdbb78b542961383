//! `criu check`: what CRIU says of this kernel.

use std::process::{Command, Stdio};

use super::version::Criu;
use crate::sys::spawn::SAFE_PATH;

/// How many of its lines are told.
const LINES: usize = 5;

/// What CRIU finds wrong; nothing if the kernel has all that it needs.
pub(crate) fn complaint(criu: &Criu) -> std::io::Result<Option<String>> {
    let told = Command::new(&criu.path)
        .args(["--no-default-config", "check"])
        .env_clear()
        .env("PATH", SAFE_PATH)
        .current_dir("/")
        .stdin(Stdio::null())
        .output()?;
    if told.status.success() {
        return Ok(None);
    }
    let text =
        String::from_utf8_lossy(&told.stderr).into_owned() + &String::from_utf8_lossy(&told.stdout);
    let lines: Vec<&str> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).take(LINES).collect();
    Ok(Some(if lines.is_empty() {
        format!("it ended with {}", told.status)
    } else {
        lines.join("; ")
    }))
}
