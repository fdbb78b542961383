//! The network scripts: the host's end of a veth pair on a bridge that LXC is not told of.
//!
//! With `lxc.net.N.link` LXC does it itself, and the scripts do nothing. Without it, `--bridge br0`
//! in the script's line says where the port goes, as the script of the recipe did with `brctl
//! addif`.

use anyhow::{Context, Result, anyhow, bail};

use super::no_bridge;
use crate::error::Failure;
use crate::lxc::hook::HookCall;
use crate::sys::netlink::{Error, Link, Netlink};

/// The option that names the bridge.
const BRIDGE: &str = "--bridge";

/// The `up` script: puts the port on the bridge and sets it up.
pub(crate) fn net_up(call: &HookCall) -> Result<(), Failure> {
    let Some((bridge, host)) = wanted(call)? else { return Ok(()) };
    let mut netlink = Netlink::open().context("open a netlink socket")?;
    let controller = look(&mut netlink, bridge)?.ok_or_else(|| no_bridge(bridge))?;
    let port = look(&mut netlink, host)?.ok_or_else(|| anyhow!("there is no link '{host}'"))?;
    match port.controller {
        Some(index) if index == controller.index => {}
        Some(index) => {
            let other =
                netlink.link_by_index(index).map_or_else(|_| format!("link {index}"), |l| l.name);
            return Err(
                anyhow!("{host} is a port of {other}, not of {bridge}: it is left there").into()
            );
        }
        None => netlink
            .set_controller(port.index, Some(controller.index))
            .with_context(|| format!("put {host} on {bridge}"))?,
    }
    if !port.up {
        netlink.set_up(port.index, true).with_context(|| format!("set {host} up"))?;
    }
    Ok(())
}

/// The `down` script: takes the port off the bridge. Whatever is gone already is fine.
pub(crate) fn net_down(call: &HookCall) -> Result<(), Failure> {
    let Some((bridge, host)) = wanted(call)? else { return Ok(()) };
    let mut netlink = Netlink::open().context("open a netlink socket")?;
    let (Some(controller), Some(port)) = (look(&mut netlink, bridge)?, look(&mut netlink, host)?)
    else {
        return Ok(());
    };
    if port.controller == Some(controller.index) {
        match netlink.set_controller(port.index, None) {
            Ok(()) | Err(Error::NotFound) => {}
            Err(e) => return Err(anyhow!(e).context(format!("take {host} off {bridge}")).into()),
        }
    }
    Ok(())
}

/// The bridge and the port, if there is anything to do for us.
fn wanted(call: &HookCall) -> Result<Option<(&str, &str)>> {
    let bridge = bridge(&call.own)?;
    let (Some(bridge), Some(net)) = (bridge, &call.net) else { return Ok(None) };
    if net.kind != "veth" || net.link.is_some() {
        return Ok(None);
    }
    let host = net.host.as_deref().context("LXC does not pass the name of the pair's host end")?;
    Ok(Some((bridge, host)))
}

fn bridge(own: &[String]) -> Result<Option<&str>> {
    match own {
        [] => Ok(None),
        [option, name] if option == BRIDGE => Ok(Some(name)),
        [option] => match option.strip_prefix(BRIDGE).and_then(|o| o.strip_prefix('=')) {
            Some(name) if !name.is_empty() => Ok(Some(name)),
            _ => bail!("'{option}' is not an argument of this script; {BRIDGE} NAME is"),
        },
        _ => bail!("'{}' are no arguments of this script; {BRIDGE} NAME is", own.join(" ")),
    }
}

fn look(netlink: &mut Netlink, name: &str) -> Result<Option<Link>> {
    match netlink.link(name) {
        Ok(link) => Ok(Some(link)),
        Err(Error::NotFound) => Ok(None),
        Err(e) => Err(e).with_context(|| format!("find {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(args: &str) -> HookCall {
        let args: Vec<String> = args.split_ascii_whitespace().map(str::to_owned).collect();
        HookCall::from_env(&args, |_| None).unwrap()
    }

    #[test]
    fn only_a_port_that_lxc_puts_nowhere_is_ours() {
        let ours = call("--bridge br7 web net up veth vethX");
        assert_eq!(wanted(&ours).unwrap(), Some(("br7", "vethX")));
        for other in [
            "web net up veth vethX",
            "--bridge=br7 web net up veth br0 vethX",
            "--bridge br7 web net up phys",
        ] {
            assert_eq!(wanted(&call(other)).unwrap(), None, "{other}");
        }
        assert!(wanted(&call("--bridge br7 web net up veth")).is_err());
        assert!(wanted(&call("--brige br7 web net up veth vethX")).is_err());
        assert!(wanted(&call("--bridge web net up veth vethX")).is_err());
    }
}
