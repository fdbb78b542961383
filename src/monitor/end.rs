//! STUB until hooks are merged.
use crate::lxc::defined::Defined;
use crate::net::Port;
pub struct AtEnd<'a> {
    pub defined: &'a Defined,
    pub init: i32,
    pub reboot: bool,
}
impl AtEnd<'_> {
    pub fn network_down(&self, _p: &[Port]) -> anyhow::Result<()> {
        Ok(())
    }
    pub fn run_stop(&self) -> anyhow::Result<()> {
        Ok(())
    }
    pub fn run_post_stop(&self) -> anyhow::Result<()> {
        Ok(())
    }
}
